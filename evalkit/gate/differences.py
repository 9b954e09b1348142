"""How much worse a candidate is than its baseline, and how well that is known.

    found = difference(candidate, baseline, same_seeds=True)
    print(found.value, found.se, found.degrees, found.errors)

A difference is worse-positive: candidate minus baseline of a distance, baseline minus candidate of a
precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from evalkit.errors import InvalidInputError
from evalkit.gate.facts import Errors, Quantity, Rule
from evalkit.gate.quantities import UNKNOWN_DEGREES, full_name
from evalkit.spec import Better

NUMERIC_FLOOR = 1e-4
"""Smallest margin, as a share of the baseline's value: what rerunning the very same seeds with another batch
size or number of threads moves a score by. ``evalkit gate calibrate`` measures it."""

# Two decimals such as 0.8 and 0.79 differ by a little more than 0.01 in float64.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """A worse-positive difference.

    Attributes:
        value: in the metric's unit.
        se: its standard error, and ``degrees`` its degrees of freedom; None where ``errors`` is ``none``.
        errors: where the standard error comes from.
        identical: the very same images gave the very same score.
    """

    value: float
    se: float | None = None
    degrees: int | None = None
    errors: Errors = "none"
    identical: bool = False


def margin_of(rule: Rule, baseline: float) -> float:
    """Return ``max(absolute, relative |b|, NUMERIC_FLOOR |b|)`` for the baseline's value b."""
    return max(rule.absolute, max(rule.relative, NUMERIC_FLOOR) * abs(baseline))


def exceeds(difference: float, margin: float, *, baseline: float) -> bool:
    """Whether a plain difference is beyond a margin by more than the rounding of the values it came from."""
    return difference - margin > _ROUNDING * max(abs(baseline), abs(difference))


def worse_by(candidate: float, baseline: float, direction: Better) -> float:
    """Return candidate against baseline, worse-positive."""
    return candidate - baseline if direction == "lower" else baseline - candidate


def difference(
    candidate: Quantity, baseline: Quantity, *, same_seeds: bool, same_images: bool = False
) -> Difference:
    """Return how much worse ``candidate`` is, with the best standard error that the two sides allow.

    - identical (``same_images``, same value, same leave-one-out values): nothing differs, with certainty.
    - paired (``same_seeds`` and equal blocks): the delete-m_j jackknife (Busing, Meijer & van der Leeden
      1999, eqs. 6-8) of the differences of the leave-one-block-out values. A recorded standard error may be
      smaller than the raw jackknife of its blocks, which counts higher orders several times (Efron & Stein
      1981); the variance is multiplied by the larger of the two sides' shares, in 0..1. B - 1 degrees of
      freedom.
    - unpaired: ``hypot(se_candidate, se_baseline)`` on the smaller number of degrees of freedom of the two,
      B - 1. Welch's approximation lies between that and the sum of both; the smaller number is conservative
      for any ratio of variances (Scheffe 1970), and equal to B - 1 as the paired one.
    - none: a side has no error bar.

    Args:
        candidate: one side.
        baseline: the other, of the same metric.
        same_seeds: image i of both sides was drawn from the same seed and for the same label.
        same_images: besides, by the same checkpoint and sampler.

    Raises:
        InvalidInputError: the two sides have opposite directions, or other units.
    """
    _require_alike(candidate, baseline)
    value = worse_by(candidate.value, baseline.value, candidate.direction)
    if same_images and value == 0 and (candidate.loo == baseline.loo or not baseline.loo):
        degrees = _smaller_degrees(candidate, baseline)
        return Difference(0.0, 0.0, degrees, "paired", identical=True)
    if candidate.se is None or baseline.se is None:
        return Difference(value)
    rounding = _ROUNDING * max(abs(candidate.value), abs(baseline.value))
    if same_seeds and _equal_blocks(candidate, baseline):
        error, degrees = _paired_error(candidate, baseline), len(candidate.loo) - 1
        return Difference(value, error if error > rounding else 0.0, degrees, "paired")
    error = math.hypot(candidate.se, baseline.se)
    degrees = _smaller_degrees(candidate, baseline)
    return Difference(value, error if error > rounding else 0.0, degrees, "unpaired")


def difference_of_runs(
    candidates: Sequence[float], baselines: Sequence[float], direction: Better
) -> Difference | None:
    """Return the difference of the means of runs of two models, or None where no model has two.

    The standard error is that of Student's two samples: ``s sqrt(1 / R_c + 1 / R_b)`` with the pooled
    standard deviation s on ``R_c + R_b - 2`` degrees of freedom. It supposes that runs of both models spread
    alike, so that the several runs of one side also speak for the single one of the other.
    """
    degrees = len(candidates) + len(baselines) - 2
    if min(len(candidates), len(baselines)) < 1 or degrees < 1:
        return None
    squares = math.fsum((x - fmean(runs)) ** 2 for runs in (candidates, baselines) for x in runs)
    error = math.sqrt(squares / degrees * (1 / len(candidates) + 1 / len(baselines)))
    value = worse_by(fmean(candidates), fmean(baselines), direction)
    return Difference(value, error, degrees, "replicates")


def with_mean(quantity: Quantity, runs: Sequence[float]) -> Quantity:
    """Return ``quantity`` with the mean of several runs as its value, without an error bar of its own."""
    return replace(quantity, value=fmean(runs), se=None, degrees=None, loo=(), sizes=())


def _require_alike(candidate: Quantity, baseline: Quantity) -> None:
    if candidate.direction != baseline.direction:
        raise InvalidInputError(
            f"{full_name(candidate)} is better {candidate.direction} in the candidate and "
            f"{baseline.direction} in the baseline",
            hint="was one of the two written by hand?",
        )
    if candidate.unit and baseline.unit and candidate.unit != baseline.unit:
        raise InvalidInputError(
            f"{full_name(candidate)} is in {candidate.unit} on one side and in {baseline.unit} on the other",
            hint="was one of the two written by hand?",
        )


def _equal_blocks(candidate: Quantity, baseline: Quantity) -> bool:
    return (
        len(candidate.loo) == len(baseline.loo) >= 2
        and len(candidate.sizes) == len(candidate.loo)
        and candidate.sizes == baseline.sizes
    )


def _paired_error(candidate: Quantity, baseline: Quantity) -> float:
    changes = [a - b for a, b in zip(candidate.loo, baseline.loo, strict=True)]
    share = max(_share(candidate), _share(baseline))
    return math.sqrt(share) * _raw_error(changes, candidate.sizes)


def _share(quantity: Quantity) -> float:
    """Part of a raw jackknife variance that its side's recorded error bar holds to be the statistic's own."""
    # The error bar of a mean comes from its images, on many more degrees: its blocks are only noisier.
    if quantity.se is None or quantity.degrees != len(quantity.loo) - 1:
        return 1.0
    raw = _raw_error(quantity.loo, quantity.sizes)
    return min(1.0, (quantity.se / raw) ** 2) if raw > 0 else 1.0


def _raw_error(without: Sequence[float], sizes: Sequence[int]) -> float:
    """Return the jackknife's standard error of leave-one-out values alone.

    They stand around their own mean: for equal blocks the estimate from all rows does not matter, and a
    metric may print another headline than the one that its blocks belong to. The formula is that of
    :func:`evalkit.numerics.resampling.jackknife`, which takes a second to load.
    """
    centre, total = fmean(without), sum(sizes)
    ratios = [total / size for size in sizes]
    changes = [(1 - 1 / ratio) * (centre - value) for ratio, value in zip(ratios, without, strict=True)]
    correction = math.fsum(changes)
    return math.sqrt(
        fmean(
            (ratio * change - correction) ** 2 / (ratio - 1)
            for ratio, change in zip(ratios, changes, strict=True)
        )
    )


def _smaller_degrees(candidate: Quantity, baseline: Quantity) -> int:
    return min(candidate.degrees or UNKNOWN_DEGREES, baseline.degrees or UNKNOWN_DEGREES)
