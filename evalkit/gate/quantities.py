"""What a record gives to be judged: its scores with their error bars, then its speed, memory and size.

Accepted trade-offs: of several speed measurements in one record the one that ``evalkit compare`` shows
counts: the fastest of the offline ones, and for latencies one image at a time where that was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from evalkit.errors import UsageError
from evalkit.gate.facts import Quantity, Rule
from evalkit.record import MetricResult, Performance, RunRecord
from evalkit.spec import Better, Interval

UNKNOWN_DEGREES = 15
"""Degrees of freedom of an error bar that does not tell them: those of 16 blocks."""

_MOST_DEGREES = 199
# Shortest relative difference between two t quantiles that is told apart in a table's rounded decimals.
_CLOSE = 1e-6
_Read = Callable[[Performance], float | None]
_OFFLINE: tuple[tuple[str, str, Better, _Read], ...] = (
    ("throughput", "img/s", "higher", lambda p: p.throughput),
    ("peak_memory", "B", "lower", lambda p: p.peak_memory_bytes),
    ("energy", "J/img", "lower", lambda p: p.energy_per_image_joule),
)
_TIMED: tuple[tuple[str, str, Better, _Read], ...] = (
    ("latency_p50", "ms", "lower", lambda p: p.latency_p50_ms),
    ("latency_p90", "ms", "lower", lambda p: p.latency_p90_ms),
    ("latency_p99", "ms", "lower", lambda p: p.latency_p99_ms),
)
SPEEDS = tuple(name for name, *_ in (*_OFFLINE, *_TIMED))
"""Quantities that compare only under the same conditions."""


def quantities(record: RunRecord) -> tuple[Quantity, ...]:
    """Return every number of ``record``: metric results in its order, then speed, then size.

    Speed is ``throughput`` (img/s), ``latency_p50``, ``_p90`` and ``_p99`` (ms), ``peak_memory`` (B) and
    ``energy`` (J/img), each with its conditions; size is ``nfe`` (network evaluations an image), ``flops``
    (an image) and ``n_params``. What was not measured is left out.
    """
    return (*map(_of_result, record.results), *_speeds(record), *_sizes(record))


def pick(known: Sequence[Quantity], rule: Rule) -> Quantity | None:
    """Return the quantity that ``rule`` means: by its label, else by the part of a label before ``:``.

    Returns:
        None where there is none.

    Raises:
        UsageError: several fit; the hint lists them.
    """
    # A label may hold the slash that otherwise comes before a variant.
    whole = f"{rule.metric}/{rule.variant}"
    candidates = (
        [q for q in known if q.metric == rule.metric and rule.variant in {None, q.variant}],
        [q for q in known if q.metric == whole],
        [q for q in known if short_name(q) == rule.metric and rule.variant in {None, q.variant}],
        [q for q in known if short_name(q) == whole],
    )
    found = next(filter(None, candidates), [])
    if len(found) > 1:
        names = ", ".join(full_name(quantity) for quantity in found)
        raise UsageError(f"rule {rule.metric!r} fits several quantities", hint=f"name one of: {names}")
    return found[0] if found else None


def full_name(quantity: Quantity) -> str:
    """Return ``metric/variant``, as a rule names one quantity and no other."""
    return f"{quantity.metric}/{quantity.variant}" if quantity.variant else quantity.metric


def short_name(quantity: Quantity) -> str:
    """Return the part of a label before ``:``."""
    return quantity.metric.partition(":")[0]


def degrees_of(se: float | None, ci: Interval | None) -> int | None:
    """Return the degrees of freedom of an error bar from the width of its interval.

    Solves ``(high - low) / 2 = t_{(1 + level) / 2}(degrees) se`` for the whole number of degrees, up to
    199; where none fits (another method, an error of 0) :data:`UNKNOWN_DEGREES`. None without an error bar.
    """
    if se is None:
        return None
    if ci is None or se == 0 or not ci.method.endswith("-t"):
        return UNKNOWN_DEGREES
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to import

    reach = (ci.high - ci.low) / (2 * se)
    nearest = min(
        range(1, _MOST_DEGREES + 1), key=lambda d: abs(float(stdtrit(d, (1 + ci.level) / 2)) - reach)
    )
    quantile = float(stdtrit(nearest, (1 + ci.level) / 2))
    if nearest == _MOST_DEGREES and reach < quantile:
        return _MOST_DEGREES
    return nearest if abs(quantile - reach) <= _CLOSE * quantile else UNKNOWN_DEGREES


def _of_result(result: MetricResult) -> Quantity:
    return Quantity(
        metric=result.metric,
        variant=result.variant,
        unit=result.unit,
        direction=result.direction,
        value=result.value,
        se=result.se,
        degrees=_degrees(result),
        loo=result.blocks.loo,
        sizes=result.blocks.sizes,
        n=result.n_gen,
        warnings=result.warnings,
    )


def _degrees(result: MetricResult) -> int | None:
    """A mean's error bar comes from its images, every other from its blocks."""
    if result.se is None:
        return None
    if result.ci is not None and result.ci.method == "mean-t":
        return max(1, result.n_gen - 1)
    return result.blocks.count - 1 if result.blocks.count > 1 else degrees_of(result.se, result.ci)


def _speeds(record: RunRecord) -> Iterator[Quantity]:
    fastest = sorted(record.performance, key=lambda p: (p.scenario != "offline", -p.throughput))
    timed = [performance for performance in record.performance if performance.latency_p50_ms is not None]
    timed.sort(key=lambda p: (p.scenario != "single-stream", -p.throughput))
    for measured, table in ((fastest, _OFFLINE), (timed, _TIMED)):
        for name, unit, direction, read in table if measured else ():
            if (value := read(measured[0])) is not None:
                yield Quantity(
                    metric=name,
                    variant="",
                    unit=unit,
                    direction=direction,
                    value=float(value),
                    conditions=_conditions(measured[0]),
                )


def _conditions(performance: Performance) -> tuple[tuple[str, str], ...]:
    return (
        ("device", performance.device),
        ("dtype", performance.dtype),
        ("batch size", str(performance.batch_size)),
        ("scenario", performance.scenario),
    )


def _sizes(record: RunRecord) -> Iterator[Quantity]:
    first = record.performance[0] if record.performance else None
    nfe = record.sampling.nfe if record.sampling else None
    known = {
        "nfe": nfe if nfe is not None or first is None else first.nfe,
        "flops": first.flops_per_image if first else None,
        "n_params": record.model.n_params
        if record.model.n_params is not None or not first
        else first.parameters,
    }
    for name, value in known.items():
        if value is not None:
            unit = "FLOP/img" if name == "flops" else ""
            yield Quantity(metric=name, variant="", unit=unit, direction="lower", value=float(value))
