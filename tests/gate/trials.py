"""How often a gate alarms: quick trials of its bounds, on differences of synthetic models without records.

    design = TrialDesign(images=1024, blocks=16, spread=3.0, shift=0.0, margin=0.0)
    print(rates(design, trials=200, seed=0).regression)    # a false alarm: at most alpha

Accepted trade-offs: an image's influence on a score is normal, as it is for a mean; what a real metric's
error bars are worth is measured on real images, by ``evalkit gate calibrate``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalkit.gate.bounds import Verdict, judge
from evalkit.gate.differences import difference
from evalkit.gate.facts import Quantity

_CENTRE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDesign:
    """One experiment.

    Attributes:
        images: of each side, a multiple of ``blocks``.
        spread: standard deviation of an image's influence; a score's standard error is
            ``spread / sqrt(images)``.
        shift: by how much the candidate is truly worse.
        margin: of each rule.
        correlation: between the influences of image i on both sides, in 0..1; above 0 the seeds agree, and
            the error bar is paired.
        rules: independent metrics of one gate, Holm's correction over them; all are shifted.
        alpha: of the gate.
    """

    images: int
    blocks: int
    spread: float
    shift: float
    margin: float
    correlation: float = 0.0
    rules: int = 1
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the trials: some rule a regression, all rules passed, neither."""

    regression: float
    passed: float
    inconclusive: float


def rates(design: TrialDesign, *, trials: int, seed: int) -> Rates:
    """Return how often the gate said what in ``trials`` gates of ``design``."""
    rng = np.random.default_rng(seed)
    statuses = [{verdict.status for verdict in trial(design, rng)} for _ in range(trials)]
    regression = sum("regression" in found for found in statuses) / trials
    passed = sum(found == {"pass"} for found in statuses) / trials
    return Rates(regression, passed, 1 - regression - passed)


def trial(design: TrialDesign, rng: np.random.Generator) -> tuple[Verdict, ...]:
    """Return the verdicts of one gate between two models drawn from ``design``, one a rule."""
    found = [
        difference(*synthetic_pair(design, rng), same_seeds=design.correlation > 0)
        for _ in range(design.rules)
    ]
    return judge(found, [design.margin] * design.rules, alpha=design.alpha)


def synthetic_pair(design: TrialDesign, rng: np.random.Generator) -> tuple[Quantity, Quantity]:
    """Return candidate and baseline: means of normal influences, by blocks, with jackknife error bars.

    The mean of a block of m images is drawn as one normal number of ``spread / sqrt(m)``, which is its law.
    """
    size = design.images // design.blocks
    common, ours, theirs = rng.standard_normal((3, design.blocks)) * design.spread / math.sqrt(size)
    together, apart = math.sqrt(design.correlation), math.sqrt(1 - design.correlation)
    return (
        _mean_of_blocks(_CENTRE + design.shift + together * common + apart * ours, size),
        _mean_of_blocks(_CENTRE + together * common + apart * theirs, size),
    )


def _mean_of_blocks(means: np.ndarray[tuple[int, ...], np.dtype[np.float64]], size: int) -> Quantity:
    blocks = len(means)
    without = (means.sum() - means) / (blocks - 1)
    return Quantity(
        metric="synthetic",
        variant="",
        unit="",
        direction="lower",
        value=float(means.mean()),
        se=float(means.std(ddof=1)) / math.sqrt(blocks),
        degrees=blocks - 1,
        loo=tuple(without.tolist()),
        sizes=(size,) * blocks,
        n=size * blocks,
    )
