"""The tables of a suite: models side by side for each protocol fingerprint, and over seeds. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from evalkit.errors import UsageError
from evalkit.record import RunRecord, check_identifier
from evalkit.reporting.rendering import Table
from evalkit.reporting.table import comparison_table
from evalkit.spec import Scalar
from evalkit.suites.facts import Cell
from evalkit.suites.seeds import seeds_table


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTable:
    """One table; ``stem`` is the name of its files without the suffix."""

    kind: Literal["models", "seeds"]
    protocol: str
    fingerprint: str
    stem: str
    table: Table


@dataclass(frozen=True, slots=True)
class _Run:
    cell: Cell
    record: RunRecord


def suite_tables(cells: Sequence[Cell], records: Mapping[str, RunRecord]) -> tuple[SuiteTable, ...]:
    """Return a comparison for each protocol fingerprint, and one over seeds where a row has several.

    Cells without a record are named below the tables of their protocol.
    """
    groups: dict[tuple[str, str], list[_Run]] = {}
    for cell in cells:
        if cell.key in records:
            record = records[cell.key]
            groups.setdefault((cell.protocol, record.protocol.fingerprint), []).append(_Run(cell, record))
    counts = Counter(protocol for protocol, _ in groups)
    tables: list[SuiteTable] = []
    for (protocol, fingerprint), runs in groups.items():
        missing = [c.label for c in cells if c.protocol == protocol and c.key not in records]
        stem = f"table-{protocol}" + (f"-{fingerprint[:8]}" if counts[protocol] > 1 else "")
        made: dict[Literal["models", "seeds"], Table] = {"models": _side_by_side(runs)}
        if len({run.cell.seed for run in runs}) > 1:
            made["seeds"] = seeds_table(
                [(run.cell.row, run.record) for run in runs], title=f"{made['models'].title} · over seeds"
            )
        tables += [
            SuiteTable(
                kind=kind,
                protocol=protocol,
                fingerprint=fingerprint,
                stem=stem if kind == "models" else f"{stem}-seeds",
                table=_with_missing(table, missing),
            )
            for kind, table in made.items()
        ]
    return tuple(tables)


def _side_by_side(runs: Sequence[_Run]) -> Table:
    several = len({run.cell.seed for run in runs}) > 1
    named = [_named(run, f"{run.cell.row}@seed{run.cell.seed}" if several else run.cell.row) for run in runs]
    table = comparison_table(named)
    if several:
        models = len({run.cell.row for run in runs})
        title = table.title.replace(f"{len(runs)} models", f"{models} model{'s' if models > 1 else ''}", 1)
        table = replace(table, title=title)
    return table


def _named(run: _Run, name: str) -> RunRecord:
    """Return the record under the name of its row; one that cannot be a name leaves it as it is."""
    try:
        return replace(run.record, model=replace(run.record.model, id=check_identifier(name)))
    except UsageError:
        return run.record


def _with_missing(table: Table, missing: Sequence[str]) -> Table:
    if not missing:
        return table
    return replace(table, facts=(*table.facts, f"Not measured: {'; '.join(missing)}."))


def score_rows(cells: Sequence[Cell], records: Mapping[str, RunRecord]) -> list[dict[str, Scalar]]:
    """Return one mapping for each cell and metric, in the order of the file: the tidy form of everything."""
    return [
        {
            "model": cell.row,
            "family": record.model.family,
            "protocol": cell.protocol,
            "fingerprint": record.protocol.fingerprint,
            "seed": cell.seed,
            "metric": result.metric,
            "variant": result.variant,
            "value": result.value,
            "unit": result.unit,
            "direction": result.direction,
            "se": result.se,
            "ci_low": result.ci.low if result.ci else None,
            "ci_high": result.ci.high if result.ci else None,
            "n_gen": result.n_gen,
            "n_ref": result.n_ref,
            "run_id": record.run_id,
        }
        for cell in cells
        if (record := records.get(cell.key)) is not None
        for result in record.results
    ]
