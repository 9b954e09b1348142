"""What a model costs: speed, network evaluations and size as columns, read from the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.record import Performance, RunRecord
from evalkit.reporting.formatting import MISSING, human_count, human_rate
from evalkit.reporting.rendering import Cell
from evalkit.spec import Better


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column of cost: how to read it from a record, and how it looks."""

    key: str
    title: str
    better: Better
    read: Callable[[RunRecord], float | None]
    show: Callable[[float], str]


def fastest(record: RunRecord) -> Performance | None:
    """Return the fastest measurement, offline where there is one: the images/s of every table."""
    return min(record.performance, key=lambda p: (p.scenario != "offline", -p.throughput), default=None)


def timed(record: RunRecord) -> Performance | None:
    """Return the measurement whose latency counts: one image at a time where there is one."""
    found = (p for p in record.performance if p.latency_p50_ms is not None)
    return min(found, key=lambda p: (p.scenario != "single-stream", -p.throughput), default=None)


def speed_fact(records: Sequence[RunRecord]) -> str:
    """Return one sentence on how speeds were measured, or why they do not compare; empty without speeds."""
    devices = _devices(records)
    if not devices:
        return ""
    if len(devices) > 1:
        return f"Speeds were measured on different devices ({', '.join(devices)}) and do not compare."
    scenarios = sorted({p.scenario for record in records if (p := timed(record))})
    latency = f"; ms/image: median, {' or '.join(scenarios)}" if scenarios else ""
    return f"images/s: offline on {devices[0]}{latency}; NFE: network evaluations an image."


def cost_column(records: Sequence[RunRecord], quantity: Quantity) -> list[Cell]:
    """Return the cells of one column of cost, in the order of ``records``."""
    values = [quantity.read(record) for record in records]
    # Speeds on different devices say nothing about the models.
    fair = not quantity.key.startswith(("images", "ms")) or len(_devices(records)) == 1
    best = best_of(values, quantity.better) if fair else None
    return [Cell(MISSING) if v is None else Cell(quantity.show(v), best=v == best) for v in values]


def best_of(values: Sequence[float | None], better: Better) -> float | None:
    """Return the best value, or None where there is nothing to choose from."""
    present = [value for value in values if value is not None]
    if len(set(present)) < 2:
        return None
    return min(present) if better == "lower" else max(present)


def _devices(records: Sequence[RunRecord]) -> list[str]:
    return sorted({performance.device for record in records for performance in record.performance})


def _images_per_second(record: RunRecord) -> float | None:
    return p.throughput if (p := fastest(record)) else None


def _milliseconds(record: RunRecord) -> float | None:
    return p.latency_p50_ms if (p := timed(record)) else None


def _evaluations(record: RunRecord) -> float | None:
    if record.sampling and record.sampling.nfe is not None:
        return record.sampling.nfe
    return p.nfe if (p := fastest(record)) else None


def _parameters(record: RunRecord) -> float | None:
    if record.model.n_params is not None:
        return record.model.n_params
    return p.parameters if (p := fastest(record)) else None


_COSTS = (
    Quantity("images_per_second", "images/s", "higher", _images_per_second, human_rate),
    Quantity("ms_per_image", "ms/image", "lower", _milliseconds, human_rate),
    Quantity("nfe", "NFE", "lower", _evaluations, human_rate),
    Quantity("n_params", "params", "lower", _parameters, human_count),
)


def known_costs(records: Sequence[RunRecord]) -> list[Quantity]:
    """Return the columns of cost that any record knows."""
    return [quantity for quantity in _COSTS if any(quantity.read(record) is not None for record in records)]
