"""Quality against what it costs: network evaluations and seconds an image, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.formatting import ARROWS, human_rate, measured
from evalkit.reporting.rendering import Cell, Column, Table

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe & Ito 2008


def curve_table(records: Sequence[RunRecord]) -> Table:
    """Return one row for each point: evaluations, seconds an image and every score with its error.

    Raises:
        NothingMeasuredError: no record holds a score.
    """
    metrics = list(dict.fromkeys(result.metric for record in records for result in record.results))
    if not metrics:
        raise NothingMeasuredError("no record holds a score", hint="evalkit bench ddpm --curve 5,10,20")
    first = {m: next(r for record in records for r in record.results if r.metric == m) for m in metrics}
    rows = []
    for record in records:
        scores = [_result(record, metric) for metric in metrics]
        rows.append(
            (
                Cell(record.model.id),
                Cell(str(_evaluations(record) or "")),
                Cell(human_rate(1000.0 * _seconds(record))),
                *(Cell(measured(score.value, score.se) if score else "—") for score in scores),
            )
        )
    return Table(
        title="quality against cost",
        columns=(
            Column("model", "left"),
            Column("NFE ↓"),
            Column("ms/image ↓"),
            *(Column(f"{metric} {ARROWS[first[metric].direction]}") for metric in metrics),
        ),
        rows=tuple(rows),
        legend="± jackknife standard error; NFE: network evaluations an image, counted",
        data=tuple(
            {
                "model": record.model.id,
                "steps": record.sampling.steps if record.sampling else None,
                "nfe": _evaluations(record),
                "seconds_per_image": _seconds(record),
                "metric": result.metric,
                "value": result.value,
                "se": result.se,
                "n": result.n_gen,
                "run_id": record.run_id,
            }
            for record in records
            for result in record.results
        ),
    )


def draw_curve(records: Sequence[RunRecord], path: Path, *, metric: str | None = None) -> None:
    """Write the headline metric (or ``metric``) against NFE and against seconds as PNG, SVG or PDF.

    Raises:
        UsageError: matplotlib is not installed, or no record has the metric.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError("figures need matplotlib", hint="pip install 'evalkit[plots]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    wanted = metric or records[0].results[0].metric
    points = [(record, result) for record in records if (result := _result(record, wanted))]
    if not points:
        raise UsageError(f"no record holds {wanted!r}")
    values, errors = [r.value for _, r in points], [2.0 * (r.se or 0.0) for _, r in points]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    arrow = ARROWS[points[0][1].direction]
    for axis, costs, title, colour in (
        (axes[0], [_evaluations(r) or 0 for r, _ in points], "network evaluations an image", _BLUE),
        (axes[1], [_seconds(r) for r, _ in points], "seconds an image", _ORANGE),
    ):
        axis.errorbar(costs, values, yerr=errors, marker="o", capsize=3, color=colour)
        axis.set(xscale="log", xlabel=title)
        axis.set_xticks(costs, [f"{cost:.3g}" for cost in costs])
        axis.minorticks_off()
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel(f"{wanted} {arrow}")
    device = points[0][0].performance[0].device if points[0][0].performance else "unknown device"
    n = points[0][1].n_gen
    figure.suptitle(
        f"{points[0][0].model.id.rsplit('-', 1)[0]}: N = {n:,}, {device}; bars are ±2 standard errors"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _result(record: RunRecord, metric: str) -> MetricResult | None:
    return next((result for result in record.results if result.metric == metric), None)


def _evaluations(record: RunRecord) -> int | None:
    return record.sampling.nfe if record.sampling else None


def _seconds(record: RunRecord) -> float:
    if not record.performance:
        raise NothingMeasuredError(f"record {record.run_id} holds no speed")
    return 1.0 / record.performance[0].throughput
