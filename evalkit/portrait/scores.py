"""The section of scores: a table of each record, and for two of them their difference with its error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from evalkit.errors import NotComparableError
from evalkit.gate.differences import Difference, difference
from evalkit.gate.facts import Errors
from evalkit.gate.quantities import full_name, quantities
from evalkit.gate.subjects import same_seeds
from evalkit.pages.report_facts import (
    Bar,
    Block,
    Facts,
    IntervalRow,
    Intervals,
    Paragraph,
    Section,
    TableBlock,
)
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.comparability import differing_fields, require_comparable
from evalkit.reporting.footnotes import has_small_sample, is_kernel
from evalkit.reporting.formatting import ARROWS, MISSING, interval, measured
from evalkit.reporting.rendering import Cell, Column, Table
from evalkit.reporting.table import comparison_table, score_table
from evalkit.reporting.variants import shown_variants

LEVEL = 0.95
_UNDECIDED = "undecided"


def incomparable(records: Sequence[RunRecord]) -> str:
    """Return why the scores of the records do not compare; empty where they do."""
    try:
        require_comparable(records)
    except NotComparableError as error:
        return f"{error.message.splitlines()[0]}. {error.hint or ''}".strip()
    return ""


def scores(records: Sequence[RunRecord], names: Sequence[str]) -> Section:
    """Return the section of scores."""
    tables = tuple((TableBlock(table=score_table(record)),) for record in records)
    if len(records) == 1:
        return Section(anchor="scores", title="Scores", common=(*tables[0], _forest(records, names)))
    why = incomparable(records)
    if why:
        fields = differing_fields(records[0].protocol.fields, records[1].protocol.fields)
        pairs = tuple((name, f"{one} against {other}") for name, (one, other) in fields.items())
        told: tuple[Block, ...] = (
            Paragraph(text=f"No differences are shown: {why}", tone="warning"),
            *((Facts(title="What differs", pairs=pairs),) if pairs else ()),
        )
        return Section(anchor="scores", title="Scores", common=told, sides=tables)
    folded = tuple(TableBlock(table=score_table(record), folded=True) for record in records)
    common: tuple[Block, ...] = (
        TableBlock(table=difference_table(records, names)),
        _forest(records, names),
        TableBlock(table=comparison_table(records), folded=True),
        *folded,
    )
    return Section(anchor="scores", title="Scores", common=common)


def difference_table(records: Sequence[RunRecord], names: Sequence[str]) -> Table:
    """Return a row a metric: both values, second minus first with its error, and which is better."""
    paired = same_seeds(records[0], records[1])
    ours, theirs = ({full_name(q): q for q in quantities(record) if q.n} for record in records)
    order = [f"{r.metric}/{r.variant}" if r.variant else r.metric for r in ordered(records[0].results)]
    rows: list[tuple[Cell, ...]] = []
    shown = shown_variants(records[0])
    kinds: set[Errors] = set()
    for name in order:
        first, second = ours.get(name), theirs.get(name)
        if first is None or second is None:
            continue
        # The difference is worse-positive for the second: turned into the metric's own direction.
        found = difference(second, first, same_seeds=paired)
        kinds.add(found.errors)
        sign = 1.0 if first.direction == "lower" else -1.0
        better = _better(found, names)
        rows.append(
            (
                Cell(
                    f"{first.metric} {ARROWS[first.direction]}"
                    + (f" ({first.variant})" if (first.metric, first.variant) in shown else "")
                ),
                Cell(measured(first.value, first.se), best=better == names[0]),
                Cell(measured(second.value, second.se), best=better == names[1]),
                Cell(measured(sign * found.value, found.se)),
                Cell(_reach(found, sign)),
                Cell(better, tone="" if better != _UNDECIDED else "dim"),
            )
        )
    return Table(
        title=f"{names[1]} against {names[0]}",
        columns=(
            Column("metric", "left"),
            *map(Column, (*names, f"{names[1]} minus {names[0]}", "95 % interval")),
            Column("better", "left"),
        ),
        rows=tuple(rows),
        legend="± standard error; bold: better, by an interval that leaves out 0, each metric by itself",
        facts=(_errors(kinds),),
    )  # fmt: skip


def ordered(results: Sequence[MetricResult]) -> Sequence[MetricResult]:
    """Return scores as every table of evalkit has them: kernel distances first where images are few."""
    if not any(map(has_small_sample, results)):
        return results
    return sorted(results, key=lambda result: not is_kernel(result.metric))


def reach(found: Difference) -> float | None:
    """Half the width of the 95 % interval of a difference by Student's t; None without an error bar."""
    if found.se is None or not found.degrees:
        return None
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to import

    return float(stdtrit(found.degrees, (1 + LEVEL) / 2)) * found.se


def _better(found: Difference, names: Sequence[str]) -> str:
    half = reach(found)
    if half is None or abs(found.value) <= half or found.value == 0:
        return _UNDECIDED
    return names[1] if found.value < 0 else names[0]


def _reach(found: Difference, sign: float) -> str:
    half = reach(found)
    if half is None:
        return MISSING
    middle = sign * found.value
    return interval(middle - half, middle + half, value=middle, error=found.se)


def _errors(kinds: set[Errors]) -> str:
    if kinds == {"paired"}:
        return (
            "Errors are paired: image i of both was drawn from one seed, and what their blocks share cancels."
        )
    if "paired" in kinds:
        return "Errors are paired where both were cut into the same blocks, the others are not."
    return "Errors are unpaired: the images of both were drawn independently."


def _forest(records: Sequence[RunRecord], names: Sequence[str]) -> Intervals:
    rows = tuple(_rows(records, names))
    known = [result.ci for record in records for result in record.results if result.ci]
    level = f"{known[0].level:.0%} intervals".replace("%", " %") if known else "values"
    return Intervals(
        title="Scores with their intervals",
        rows=rows,
        note=f"{level[0].upper()}{level[1:]}, each metric on its own scale; ↓ lower is better, ↑ higher.",
    )


def _rows(records: Sequence[RunRecord], names: Sequence[str]) -> Iterator[IntervalRow]:
    keys = dict.fromkeys(
        (r.metric, r.variant, r.direction) for record in records for r in ordered(record.results)
    )
    shown = set().union(*map(shown_variants, records))
    for metric, variant, direction in keys:
        bars = []
        for side, (record, name) in enumerate(zip(records, names, strict=True)):
            found = next((r for r in record.results if (r.metric, r.variant) == (metric, variant)), None)
            if found is not None:
                bars.append(replace(_bar(found, name), side=side))
        named = f"/{variant}" if (metric, variant) in shown else ""
        yield IntervalRow(label=f"{metric}{named} {ARROWS[direction]}", bars=tuple(bars))


def _bar(result: MetricResult, name: str) -> Bar:
    low, high = (result.ci.low, result.ci.high) if result.ci else (None, None)
    if low is not None and high is not None and not (math.isfinite(low) and math.isfinite(high)):
        low = high = None
    return Bar(name=f"{name}: {measured(result.value, result.se)}", value=result.value, low=low, high=high)
