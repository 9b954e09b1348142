"""Which ranks the intervals of scores allow, and which models no other one beats in quality and speed.

rank_ranges([Estimate(2.0, 1.8, 2.2), Estimate(2.1, 1.9, 2.3), Estimate(5.0, 4.9, 5.1)], "lower")
# [(1, 2), (1, 2), (3, 3)]

Accepted trade-offs: the intervals are those of single scores (95 % each), so one range is trustworthy by
itself, and all ranges of a large board at once are less so. Two runs with the same seeds could often be told
apart by their paired difference; a board does not ask whose seeds agree, the gate does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.record import MetricResult, Performance, RunRecord
from evalkit.reporting.footnotes import has_small_sample, is_kernel
from evalkit.spec import Better

# Half the width of a 95 % normal interval, for a standard error whose degrees of freedom nobody recorded.
_NORMAL_95 = 1.96


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
    ranges = []
    for own in ordered:
        certainly_better = sum(other.high < own.low for other in ordered)
        certainly_worse = sum(other.low > own.high for other in ordered)
        ranges.append((1 + certainly_better, len(ordered) - certainly_worse))
    return ranges


def pareto_marks(places: Sequence[Place], better: Better) -> list[bool]:
    """Return which models no other one on their device beats: as good in both, and better in one.

    Speeds of two devices say nothing about the models: each device has a front of its own.
    """
    sign = 1.0 if better == "lower" else -1.0
    return [
        not any(
            other.device == own.device
            and sign * other.quality <= sign * own.quality
            and other.speed >= own.speed
            and (other.quality, other.speed) != (own.quality, own.speed)
            for other in places
        )
        for own in places
    ]


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


def result_of(record: RunRecord, headline: str) -> MetricResult | None:
    """Return the first result with that label; a label of several variants ranks by the first of them."""
    return next((result for result in record.results if result.metric == headline), None)


def fastest(record: RunRecord) -> Performance | None:
    """Return the fastest measurement, offline where there is one: the images/s of every table."""
    return min(record.performance, key=lambda p: (p.scenario != "offline", -p.throughput), default=None)


def timed(record: RunRecord) -> Performance | None:
    """Return the measurement whose latency counts: one image at a time where there is one."""
    found = (p for p in record.performance if p.latency_p50_ms is not None)
    return min(found, key=lambda p: (p.scenario != "single-stream", -p.throughput), default=None)
