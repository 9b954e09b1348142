"""From measured curves to the charts and tables of the page."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.pages.report_facts import Block, Chart, Curve, CurvePoint, Paragraph, Pictures, TableBlock
from evalkit.portrait.curves import Line, Measured, StepPoint, steps_text
from evalkit.reporting.formatting import ARROWS, MISSING, measured, rounded_like
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.spec import Score

# Sorts after every name of a model, so that lines keep the colours of their models.
_CORRECTED = "↳ {}, bias-corrected"


def size_blocks(lines: Sequence[Sequence[Line]], names: Sequence[str]) -> tuple[Block, ...]:
    """Return a chart and a table for each distance, with a line a model (and one corrected for bias)."""
    labels = dict.fromkeys(line.label for side in lines for line in side)
    blocks: list[Block] = []
    for label in labels:
        shown = [
            (name, line)
            for side, name in zip(lines, names, strict=True)
            for line in side
            if line.label == label
        ]
        blocks += [_size_chart(label, shown), TableBlock(table=_size_table(label, shown), folded=True)]
    return tuple(blocks)


def _size_chart(label: str, shown: Sequence[tuple[str, Line]]) -> Chart:
    curves = [Curve(label=name, points=tuple(map(_point, line.points))) for name, line in shown]
    corrected = [
        Curve(
            label=_CORRECTED.format(name),
            points=tuple(
                CurvePoint(x=p.x, y=p.score.bias_corrected)
                for p in line.points
                if p.score.bias_corrected is not None
            ),
        )
        for name, line in shown
    ]
    biased = any(curve.points for curve in corrected)
    note = (
        "Fewer images give a larger Fréchet distance of the same model (Bińkowski et al. 2018, appendix D); "
        "the corrected line should lie level."
        if biased
        else "An unbiased distance lies level, within its error."
    )
    return Chart(
        title=f"{label} against the number of images",
        x_title="images N",
        y_title=f"{label} {_arrow(shown[0][1].points)}",
        curves=tuple(curve for curve in (*curves, *corrected) if curve.points),
        note=f"Prefixes of the run's own images; bars are ±2 standard errors. {note}",
    )


def _size_table(label: str, shown: Sequence[tuple[str, Line]]) -> Table:
    biased = any(p.score.bias_corrected is not None for _, line in shown for p in line.points)
    rows = [
        (
            Cell(name), Cell(f"{point.x:,.0f}"), Cell(measured(point.score.value, point.score.stderr)),
            *((Cell(_corrected(point.score)),) if biased else ()),
        )
        for name, line in shown
        for point in line.points
    ]  # fmt: skip
    columns = [
        Column("model", "left"),
        Column("N"),
        Column(label),
        *([Column("bias-corrected")] if biased else []),
    ]
    return Table(
        title=f"Numbers: {label} against N",
        columns=tuple(columns),
        rows=tuple(rows),
        legend="± standard error",
    )


def step_chart(curves: Sequence[Sequence[StepPoint]], names: Sequence[str]) -> tuple[Block, ...]:
    """Return a chart and a table for each distance against network evaluations."""
    labels = dict.fromkeys(label for side in curves for point in side for label, _ in point.scores)
    blocks: list[Block] = []
    for label in labels:
        lines = [(name, _steps_line(side, label)) for name, side in zip(names, curves, strict=True)]
        shown = [(name, line) for name, line in lines if line.points]
        images = next(point.images for side in curves for point in side)
        blocks.append(
            Chart(
                title=f"{label} against network evaluations",
                x_title="network evaluations an image (NFE)",
                y_title=f"{label} {_arrow(shown[0][1].points)}",
                curves=tuple(Curve(label=n, points=tuple(map(_point, line.points))) for n, line in shown),
                note=f"At every point the same {images:,} seeds, and not the number of the score: compare "
                "along the line only. Bars are ±2 standard errors.",
            )
        )
    return (*blocks, *((TableBlock(table=_step_table(curves, names, list(labels))),) if labels else ()))


def step_pictures(points: Sequence[StepPoint], own: int | None) -> tuple[Block, ...]:
    """Return the first samples at each number of steps."""
    if len(points) < 2:
        return (Paragraph(text="The model takes no number of steps.", tone="dim"),)
    return tuple(
        Pictures(
            title=f"{steps_text(point.steps)}, NFE {point.evaluations}"
            + (" (as scored)" if point.steps == own else ""),
            pictures=point.pictures,
        )
        for point in points
    )


def _step_table(curves: Sequence[Sequence[StepPoint]], names: Sequence[str], labels: Sequence[str]) -> Table:
    rows = []
    for name, side in zip(names, curves, strict=True):
        for point in side:
            found = dict(point.scores)
            values = [measured(found[k].value, found[k].stderr) if k in found else MISSING for k in labels]
            cells = (name, str(point.steps), str(point.evaluations), f"{point.images:,}", *values)
            rows.append(tuple(map(Cell, cells)))
    columns = (Column("model", "left"), *map(Column, ("steps", "NFE", "N", *labels)))
    return Table(
        title="Numbers: distance against sampler steps",
        columns=columns,
        rows=tuple(rows),
        legend="± standard error",
    )


def _steps_line(points: Sequence[StepPoint], label: str) -> Line:
    found = [
        Measured(x=float(point.evaluations), score=score)
        for point in points
        for name, score in point.scores
        if name == label
    ]
    return Line(label=label, points=tuple(found))


def _point(point: Measured) -> CurvePoint:
    error = point.score.stderr
    if error is None:
        return CurvePoint(x=point.x, y=point.score.value)
    return CurvePoint(
        x=point.x, y=point.score.value, low=point.score.value - 2 * error, high=point.score.value + 2 * error
    )


def _corrected(score: Score) -> str:
    if score.bias_corrected is None:
        return MISSING
    return rounded_like(score.bias_corrected, value=score.value, error=score.stderr)


def _arrow(points: Sequence[Measured]) -> str:
    return ARROWS[points[0].score.better]
