"""``evalkit compare``: several records side by side. Reads JSON only; starts without torch."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from evalkit.atomic import write_atomically
from evalkit.errors import NothingMeasuredError
from evalkit.record import RunRecord
from evalkit.reporting.formatting import style_for
from evalkit.reporting.rendering import DEFAULT_WIDTH, FORMATS, Format
from evalkit.reporting.table import comparison_table, render

_FORMAT_OF_SUFFIX: dict[str, Format] = {".md": "md", ".csv": "csv", ".json": "json"}


@click.command()
@click.argument("records", nargs=-1, type=click.Path(path_type=Path), metavar="RECORD...")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to write it (default: by the suffix of --out, else table).",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead.")
def compare(records: Sequence[Path], form: Format | None, out: Path | None) -> None:
    """Show the records of several models side by side, best first.

    RECORD is a record or a folder of records; of a folder, the latest complete record of each model counts.
    Only scores of one protocol fingerprint compare.
    """
    chosen = _complete(_found(records))
    if not chosen:
        raise NothingMeasuredError(
            "no complete record to compare", hint="name records or their folder: evalkit compare runs/"
        )
    table = comparison_table(chosen)
    form = form or _FORMAT_OF_SUFFIX.get(out.suffix.lower() if out else "", "table")
    if out is not None:
        write_atomically(out, render(table, form))
        click.echo(f"wrote {out}", err=True)
        return
    stream = sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else DEFAULT_WIDTH
    click.echo(render(table, form, style=style_for(stream), width=width), nl=False)


def _found(paths: Iterable[Path]) -> list[tuple[RunRecord, Path]]:
    """Read the records named; of a folder, the latest complete one of each subject, and the unfinished."""
    found: dict[str, tuple[RunRecord, Path]] = {}
    for path in paths:
        if path.is_dir():
            batch = _latest(
                [(RunRecord.read(file), file) for file in sorted(path.rglob("*.json")) if _claims(file)]
            )
        elif path.is_file():
            batch = [(RunRecord.read(path), path)]
        else:
            raise NothingMeasuredError(
                f"no record or folder at {path}", hint="evalkit run writes record.json"
            )
        # A record named twice, or by its file and its folder, is one row.
        found |= {record.run_id: (record, file) for record, file in batch}
    return list(found.values())


def _claims(file: Path) -> bool:
    """Whether a JSON file in a folder says that it is a record; others may lie beside it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        click.echo(f"warning: {file} is not JSON; skipped", err=True)
        return False
    return isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/")


def _latest(found: Sequence[tuple[RunRecord, Path]]) -> list[tuple[RunRecord, Path]]:
    """Keep the newest complete record of each subject, and every incomplete one so that it is reported."""
    newest: dict[tuple[object, ...], tuple[RunRecord, Path]] = {}
    incomplete = [pair for pair in found if pair[0].status != "complete"]
    complete = [pair for pair in found if pair[0].status == "complete"]
    for record, file in sorted(complete, key=lambda pair: (pair[0].created_utc, pair[0].run_id)):
        newest[_subject(record)] = (record, file)
    if older := len(complete) - len(newest):
        click.echo(
            f"note: {older} older record{'s' if older > 1 else ''} of the same models not shown", err=True
        )
    return [*newest.values(), *incomplete]


def _subject(record: RunRecord) -> tuple[object, ...]:
    """What a row is about: one model under two samplers is two rows, a retrained one replaces the old."""
    sampling = record.sampling
    sampler = (sampling.sampler, sampling.steps, sampling.guidance) if sampling else ()
    return (record.model.id, record.model.revision, *sampler)


def _complete(found: Iterable[tuple[RunRecord, Path]]) -> list[RunRecord]:
    kept = []
    for record, file in found:
        if record.status == "complete":
            kept.append(record)
        else:
            click.echo(f"warning: {file} is {record.status}, not complete; skipped", err=True)
    return kept
