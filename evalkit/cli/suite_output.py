"""What ``evalkit suite`` shows: a line for each cell as it ends, and the tables at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import NothingMeasuredError
from evalkit.record import RunRecord
from evalkit.reporting.formatting import Style, measured, style_for
from evalkit.reporting.rendering import DEFAULT_WIDTH, Format, Table, render, to_csv
from evalkit.reporting.table import score_table
from evalkit.suites import Cell, Finished, Orders, Outcome, Suite, SuiteTable, score_rows, suite_tables


@contextmanager
def progress(total: int) -> Iterator[Callable[[Finished], None]]:
    """One line for each cell that ends, and on a terminal a bar of cells below them."""
    count = 0
    with tqdm(total=total, desc="runs", unit="run", file=sys.stderr, disable=None, dynamic_ncols=True) as bar:

        def tell(finished: Finished) -> None:
            nonlocal count
            count += 1
            for line in _lines(finished, f"[{count}/{total}]"):
                bar.write(line, file=sys.stderr)
            bar.update(1)

        yield tell


def _lines(finished: Finished, number: str) -> Iterator[str]:
    state, record = finished.state, finished.record
    took = f"({state.seconds:.0f} s)"
    if record is not None:
        yield f"{number} {finished.cell.label}: {_headline(record)} {took}"
        return
    yield f"{number} {finished.cell.label}: {state.status}, exit {state.exit_code} {took}; see {finished.log}"
    if state.status == "failed":
        for line in finished.last_words:
            yield f"      {Style().plain(line)}"


def _headline(record: RunRecord) -> str:
    if not record.results:
        return "no score"
    first = score_table(record).data[0]
    value, error = first["value"], first["se"]
    if not isinstance(value, int | float) or not isinstance(error, int | float | None):
        return str(value)
    return f"{first['metric']} {measured(value, error)}"


def report(found: Suite, outcome: Outcome, orders: Orders, output_format: Format) -> int:
    """Write and print the tables; return the exit code of the suite."""
    tables = suite_tables(outcome.cells, outcome.records)
    for made in tables:
        for form in ("md", "csv"):
            write_atomically(orders.folder / f"{made.stem}.{form}", render(made.table, form))
    click.echo(_rendered(found, outcome, tables, output_format), nl=False)
    chosen = orders.chosen(outcome.cells)
    if undone := [cell for cell in chosen if cell.key not in outcome.records]:
        click.echo(
            f"evalkit: {len(undone)} of {len(chosen)} runs are not done; the same command tries again",
            err=True,
        )
    if tables:
        stems = ", ".join(made.stem for made in tables)
        click.echo(f"evalkit: wrote {stems} (.md and .csv) in {orders.folder}", err=True)
    elif not outcome.exit_code:
        raise NothingMeasuredError("no run has a record")
    return outcome.exit_code


def _rendered(found: Suite, outcome: Outcome, tables: Iterable[SuiteTable], output_format: Format) -> str:
    if output_format == "csv":  # one file cannot hold tables of different columns: the tidy form of all
        return to_csv(
            Table(title="", columns=(), rows=(), data=tuple(score_rows(outcome.cells, outcome.records)))
        )
    if output_format == "json":
        return strict_json.dumps(strict_json.encode_object(_as_json(found, outcome, tables)))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    style = style_for(sys.stdout)
    return "\n".join(render(made.table, output_format, style=style, width=width) for made in tables)


def _as_json(found: Suite, outcome: Outcome, tables: Iterable[SuiteTable]) -> dict[str, Any]:
    def cell_facts(cell: Cell) -> dict[str, Any]:
        record, state = outcome.records.get(cell.key), outcome.states.get(cell.key)
        return {
            "model": cell.row,
            "protocol": cell.protocol,
            "seed": cell.seed,
            "status": "done" if record else state.status if state else "not-started",
            "exit_code": 0 if record else state.exit_code if state else None,
            "run_id": record.run_id if record else None,
        }

    return {
        "suite": found.name,
        "exit_code": outcome.exit_code,
        "cells": [cell_facts(cell) for cell in outcome.cells],
        "tables": [
            {"kind": made.kind, "protocol": made.protocol, "fingerprint": made.fingerprint,
             "rows": [dict(row) for row in made.table.data]}
            for made in tables
        ],
    }  # fmt: skip
