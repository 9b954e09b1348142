"""The scores of one run as a table: a row a metric, with error bar, interval and what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from evalkit.errors import NothingMeasuredError
from evalkit.record import MetricResult, Performance, RunRecord
from evalkit.reporting.footnotes import (
    Footnotes,
    has_small_sample,
    is_frechet,
    is_kernel,
    legend,
)
from evalkit.reporting.formatting import (
    ARROWS,
    MISSING,
    human_bytes,
    human_count,
    human_flops,
    human_rate,
    interval,
    measured,
    rounded_like,
)
from evalkit.reporting.predictions import prediction_data, prediction_keys, predictions
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.reporting.variants import shown_variants
from evalkit.spec import Scalar

T = TypeVar("T")
_CORRECTED = "bias-corrected"


def score_table(record: RunRecord) -> Table:
    """Return the scores of one run: value ± standard error, interval, bias-corrected value, images, notes."""
    if not record.results:
        raise NothingMeasuredError(
            f"the record of {record.model.id} holds no score", hint=f"its status is {record.status}"
        )
    footnotes = Footnotes()
    shown = shown_variants(record)
    results = record.results
    if any(map(has_small_sample, results)):  # the kernel distance is unbiased at any number of images
        results = tuple(sorted(results, key=lambda result: not is_kernel(result.metric)))
    rows: list[Sequence[Cell]] = []
    for result in results:
        named = (result.metric, result.variant) in shown
        rows += [_score_row(result, footnotes, named=named), *_predicted_rows(result)]
    predicted = prediction_keys(results)
    levels = sorted({result.ci.level for result in record.results if result.ci})
    level = f"{levels[0]:.0%} interval".replace("%", " %") if len(levels) == 1 else "interval"
    columns: Sequence[Column] = [
        Column("metric", "left"),
        *map(Column, ("value", level, _CORRECTED, "N")),
        Column("notes", "left"),
    ]
    if all(result.bias_corrected is None for result in results):
        empty = [column.title for column in columns].index(_CORRECTED)
        columns, rows = _without(columns, empty), [_without(row, empty) for row in rows]
    footnotes.add(record.warnings)
    return Table(
        title=_title(record),
        columns=tuple(columns),
        rows=tuple(map(tuple, rows)),
        facts=tuple(_facts(record)),
        legend=legend(record.results, level=level),
        notes=footnotes.notes(),
        data=tuple(_score_data(record, result, predicted) for result in results),
    )


def _without(cells: Sequence[T], position: int) -> Sequence[T]:
    return (*cells[:position], *cells[position + 1 :])


def _score_row(result: MetricResult, footnotes: Footnotes, *, named: bool) -> tuple[Cell, ...]:
    value, error = result.value, result.se
    marks = footnotes.add(result.warnings, small_sample=is_frechet(result.metric))
    name = f"{result.metric} {ARROWS[result.direction]}"
    return (
        Cell(f"{name} ({result.variant})" if named else name),
        Cell(f"{measured(value, error)} {result.unit}".strip()),
        Cell(interval(result.ci.low, result.ci.high, value=value, error=error) if result.ci else MISSING),
        Cell(
            MISSING
            if result.bias_corrected is None
            else rounded_like(result.bias_corrected, value=value, error=error)
        ),
        Cell(f"{result.n_gen:,}"),
        Cell(marks.strip()),
    )


def _predicted_rows(result: MetricResult) -> Iterable[tuple[Cell, ...]]:
    """A row below the score for each number of images that its distance was predicted at."""
    for found in predictions(result):
        value, error, low, high = found.value, found.stderr, found.low, found.high
        around = None if low is None or high is None else interval(low, high, value=value, error=error)
        yield (
            Cell(f"  predicted, N = {found.images}"),
            Cell(f"{measured(value, error)} {result.unit}".strip()),
            Cell(around or MISSING),
            *(Cell("") for _ in range(3)),
        )


def _score_data(record: RunRecord, result: MetricResult, predicted: Iterable[str]) -> dict[str, Scalar]:
    ci = result.ci
    return {
        "model": record.model.id,
        "metric": result.metric,
        "variant": result.variant,
        "value": result.value,
        "unit": result.unit,
        "direction": result.direction,
        "se": result.se,
        "ci_low": ci.low if ci else None,
        "ci_high": ci.high if ci else None,
        "ci_level": ci.level if ci else None,
        "ci_method": ci.method if ci else None,
        "bias_corrected": result.bias_corrected,
        **prediction_data(result, predicted),
        "n_gen": result.n_gen,
        "n_ref": result.n_ref,
        "warnings": "; ".join(result.warnings),
        "protocol": record.protocol.name,
        "fingerprint": record.protocol.fingerprint,
        "run_id": record.run_id,
    }


def _facts(record: RunRecord) -> Iterable[str]:
    rejected = len(record.inputs.rejected)
    yield (
        f"Images: {record.inputs.used:,} used of {record.inputs.found:,} found, {rejected:,} rejected; "
        f"reference of {record.data.n_ref:,}."
    )
    for performance in record.performance:
        yield f"Speed ({performance.scenario}): {', '.join(_speed(performance))}."
    yield f"Fingerprint {record.protocol.fingerprint[:16]}: compare only with the same one."


def _speed(performance: Performance) -> Iterable[str]:
    yield f"{human_rate(performance.throughput)} images/s on {performance.device}"
    yield f"batch {performance.batch_size}"
    yield performance.dtype
    if performance.latency_p50_ms is not None:
        yield f"{human_rate(performance.latency_p50_ms)} ms/image"
    if performance.nfe is not None:
        yield f"{performance.nfe} network evaluations an image"
    if performance.parameters is not None:
        yield f"{human_count(performance.parameters)} parameters"
    if performance.flops_per_image is not None:
        yield f"{human_flops(performance.flops_per_image)} an image"
    if performance.peak_memory_bytes is not None:
        yield f"peak memory {human_bytes(performance.peak_memory_bytes)}"
    if performance.energy_per_image_joule is not None:
        yield f"{human_rate(performance.energy_per_image_joule)} J an image"


def _title(record: RunRecord) -> str:
    data = f"{record.data.dataset}/{record.data.split}" if record.data.split else record.data.dataset
    return f"{record.model.id} ({record.model.family}) · {data} · protocol {record.protocol.name}"
