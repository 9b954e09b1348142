"""Which ranks the intervals of scores allow, and which models no other one beats in quality and speed.

rank_ranges([Estimate(2.0, 1.8, 2.2), Estimate(2.1, 1.9, 2.3), Estimate(5.0, 4.9, 5.1)], "lower")
# [(1, 2), (1, 2), (3, 3)]

Accepted trade-offs: the intervals are those of single scores (95 % each), so one range is trustworthy by
itself, and all ranges of a large board at once are less so. Two runs with the same seeds could often be told
apart by their paired difference; a board does not ask whose seeds agree, the gate does.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.footnotes import has_small_sample, is_kernel
from evalkit.spec import Better

# Half the width of a 95 % normal interval, for a standard error whose degrees of freedom nobody recorded.
_NORMAL_95 = 1.96
# From this ratio of the worst to the best value on, an axis is logarithmic.
_WIDE = 20.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and the interval around it; the interval holds the score."""

    value: float
    low: float
    high: float

    def flipped(self) -> Estimate:
        """Return the estimate of the negative, for which lower is better where higher was."""
        return Estimate(-self.value, -self.high, -self.low)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model stands in a plot of quality against speed: images/s measured on ``device``."""

    quality: float
    speed: float
    device: str


def estimate_of(result: MetricResult) -> Estimate:
    """Return a score with its interval, widened to hold it; without one 1.96 standard errors, or nothing."""
    value, reach = result.value, _NORMAL_95 * (result.se or 0.0)
    low, high = (result.ci.low, result.ci.high) if result.ci else (value - reach, value + reach)
    return Estimate(value, min(low, value), max(high, value))


def rank_ranges(estimates: Sequence[Estimate], better: Better) -> list[tuple[int, int]]:
    """Return the best and worst rank that the intervals allow each model, 1 the best.

    With L the models whose interval lies entirely on the better side of a model's own and O the others that
    overlap it, the ranks are ``|L| + 1`` to ``|L| + |O| + 1``; intervals that touch overlap (the rank sets
    of Klein, Wright & Wieczorek 2020, "A joint confidence region for an overall ranking of populations").
    """
    ordered = [e if better == "lower" else e.flipped() for e in estimates]
    lows, highs = sorted(e.low for e in ordered), sorted(e.high for e in ordered)
    # Before the first place: how many end below it; up to the last: how many begin no higher than it ends.
    return [(1 + bisect_left(highs, own.low), bisect_right(lows, own.high)) for own in ordered]


def pareto_marks(places: Sequence[Place], better: Better) -> list[bool]:
    """Return which models no other one on their device beats: as good in both, and better in one.

    Speeds of two devices say nothing about the models: each device has a front of its own.
    """
    sign = 1.0 if better == "lower" else -1.0
    front: set[Place] = set()
    best: dict[str, float] = {}
    # From the fastest on, only a better quality than any before is a place on the front.
    for place in sorted(set(places), key=lambda p: (-p.speed, sign * p.quality)):
        if sign * place.quality < best.get(place.device, math.inf):
            best[place.device] = sign * place.quality
            front.add(place)
    return [place in front for place in places]


def headline_of(records: Sequence[RunRecord], wanted: str | None) -> str:
    """Return the label that ranks ``records``: ``wanted`` where one has it, else their first metric.

    As in ``evalkit compare`` the kernel distances come before a Fréchet distance of too few images. Empty
    where the records hold no scores.
    """
    results = [result for record in records for result in record.results]
    labels = list(dict.fromkeys(result.metric for result in results))
    if wanted in labels:
        return str(wanted)
    if any(map(has_small_sample, results)):
        labels.sort(key=lambda label: not is_kernel(label))
    return labels[0] if labels else ""


def variant_of(records: Sequence[RunRecord], headline: str) -> str | None:
    """Return the variant of the headline that ranks ``records``: the first that one of them has."""
    found = (result_of(record, headline) for record in records)
    return next((result.variant for result in found if result), None)


def result_of(record: RunRecord, headline: str, variant: str | None = None) -> MetricResult | None:
    """Return the result with that label and variant, the first with that label where ``variant`` is None."""
    return next((r for r in record.results if r.metric == headline and variant in {None, r.variant}), None)


def wants_log_axis(values: Sequence[float]) -> bool:
    """Whether a linear axis would press the good models of a group together."""
    return min(values) > 0 and max(values) / min(values) > _WIDE
