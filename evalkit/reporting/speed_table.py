"""Speeds as a table: one row for each model, scenario and batch size. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evalkit.errors import NothingMeasuredError
from evalkit.record import Performance, RunRecord
from evalkit.reporting.formatting import MISSING, human_bytes, human_count, human_flops, human_rate
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.spec import Scalar

_Show = Callable[[float], str]


def _joules(value: float) -> str:
    return f"{value:.3g} J"


_QUANTITIES: tuple[tuple[str, str, _Show], ...] = (
    ("throughput", "images/s ↑", human_rate),
    ("latency_p50_ms", "ms p50 ↓", human_rate),
    ("latency_p90_ms", "ms p90 ↓", human_rate),
    ("latency_p99_ms", "ms p99 ↓", human_rate),
    ("nfe", "NFE", human_rate),
    ("flops_per_image", "FLOPs/image", human_flops),
    ("peak_memory_bytes", "peak memory", human_bytes),
    ("energy_per_image_joule", "J/image ↓", _joules),
)


def speed_table(records: Sequence[RunRecord]) -> Table:
    """Return the speeds of ``records`` and, below the table, the best batch size of each model.

    Raises:
        NothingMeasuredError: no record holds a speed.
    """
    rows = [(record, p) for record in records for p in record.performance]
    if not rows:
        raise NothingMeasuredError("no record holds a speed", hint="evalkit bench MODEL")
    shown = [q for q in _QUANTITIES if any(getattr(p, q[0]) is not None for _, p in rows)]
    devices = sorted({p.device for _, p in rows})
    return Table(
        title=f"speed · {', '.join(devices)}",
        columns=(
            Column("model", "left"),
            Column("family", "left"),
            Column("scenario", "left"),
            Column("batch"),
            *(Column(title) for _, title, _ in shown),
        ),
        rows=tuple(_row(record, p, shown) for record, p in rows),
        facts=tuple(_facts(records)),
        legend="images/s and milliseconds an image, with the copy to the host; p50, p90, p99: over batches",
        data=tuple(_data(record, p) for record, p in rows),
    )


def _row(record: RunRecord, p: Performance, shown: Sequence[tuple[str, str, _Show]]) -> tuple[Cell, ...]:
    values = [getattr(p, key) for key, _, _ in shown]
    cells = [
        Cell(MISSING if value is None else show(value))
        for value, (_, _, show) in zip(values, shown, strict=True)
    ]
    return (
        Cell(record.model.id),
        Cell(record.model.family),
        Cell(p.scenario),
        Cell(str(p.batch_size)),
        *cells,
    )


def _facts(records: Sequence[RunRecord]) -> list[str]:
    best = {
        record.model.id: max(offline, key=lambda p: p.throughput)
        for record in records
        if (offline := [p for p in record.performance if p.scenario == "offline"])
    }
    first = {r.model.id: r.performance[0].warmup_seconds for r in records if r.performance}
    size = {r.model.id: r.model.n_params for r in records if r.model.n_params}
    threads = sorted({str(record.env.get("threads")) for record in records})
    facts = [
        _listed(
            "Fastest offline", {n: f"{human_rate(p.throughput)}/s at {p.batch_size}" for n, p in best.items()}
        ),
        _listed("First image (warm-up, apart)", {n: f"{s:.2g} s" for n, s in first.items() if s is not None}),
        _listed("Parameters", {n: human_count(count) for n, count in size.items()}),
        f"CPU threads: {', '.join(threads)}.",
    ]
    return [fact for fact in facts if fact]


def _listed(title: str, values: Mapping[str, str]) -> str:
    return f"{title}: " + ", ".join(f"{name} {text}" for name, text in values.items()) + "." if values else ""


def _data(record: RunRecord, p: Performance) -> Mapping[str, Scalar]:
    return {
        "model": record.model.id,
        "family": record.model.family,
        "scenario": p.scenario,
        "batch_size": p.batch_size,
        **{key: getattr(p, key) for key, _, _ in _QUANTITIES},
        "parameters": p.parameters,
        "images": p.images,
        "device": p.device,
        "dtype": p.dtype,
        "warmup_seconds": p.warmup_seconds,
        "run_id": record.run_id,
    }
