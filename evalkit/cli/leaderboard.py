"""``evalkit leaderboard``: add, build, check, show, export. Reads JSON only; starts without torch."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import click

from evalkit.atomic import write_atomically
from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.leaderboard.board import create_board, read_board, read_info
from evalkit.leaderboard.build import build as built
from evalkit.leaderboard.check import check as findings_of
from evalkit.leaderboard.export import FORMS
from evalkit.leaderboard.export import export as exported
from evalkit.leaderboard.facts import BoardInfo, Trust
from evalkit.leaderboard.samples import sample_grid
from evalkit.leaderboard.storage import Wishes, add_runs, locked
from evalkit.leaderboard.wide import group_table
from evalkit.record import RunRecord
from evalkit.reporting.formatting import style_for
from evalkit.reporting.rendering import DEFAULT_WIDTH, render

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def leaderboard() -> None:
    """Publish records as a board: append-only in, tables and a page out.

    \b
    evalkit leaderboard new boards/cats --title "Cats at 64 x 64"
    evalkit leaderboard add runs/RUN.json --board boards/cats --samples samples/
    evalkit leaderboard check boards/cats          in CI: exit 1 where it is stale

    A board is a folder. board.toml is yours; records/, entries/ and samples/ only grow; scores.csv,
    table.csv, table.md, index.html and figures/ are built and never edited.
    """


@leaderboard.command(short_help="Make an empty board.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--title", required=True, help="Heading of its page and tables.")
@click.option("--description", default="", help="What it is about; paragraphs are parted by an empty line.")
@click.option("--headline", metavar="METRIC", help="Metric that ranks (default: the first of the records).")
@click.option("--name", help="Name in scores.csv (default: that of the folder).")
def new(folder: Path, title: str, description: str, headline: str | None, name: str | None) -> None:
    """Make an empty board in DIR."""
    name = name or folder.resolve().name
    create_board(folder, BoardInfo(name=name, title=title, description=description, headline=headline))
    click.echo(f"made {folder / 'board.toml'}", err=True)
    click.echo(f"   next: evalkit leaderboard add RECORD --board {folder}", err=True)


@leaderboard.command(short_help="Publish records, then build.")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD...")
@click.option("--board", "folder", required=True, type=_FOLDER, metavar="DIR", help="The board's folder.")
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Of one RECORD: a grid (.png, .webp), or a folder of samples, whose first 32 make one.",
)
@click.option("--name", help="Of one RECORD: name of its row (default: the model's id).")
@click.option(
    "--trust",
    type=click.Choice(get_args(Trust)),
    help="measured here (the default), reproduced by someone else, or reported only.",
)
@click.option("--source-url", metavar="URL", help="Where it comes from; https only.")
@click.option("--notes", metavar="TEXT", help="One line, at most 500 characters.")
@click.option("--build/--no-build", "then_build", default=True, help="Build tables and page (the default).")
def add(
    records: tuple[Path, ...],
    folder: Path,
    samples: Path | None,
    name: str | None,
    trust: Trust | None,
    source_url: str | None,
    notes: str | None,
    then_build: bool,
) -> None:
    """Publish complete records on a board that `leaderboard new` made; then build it.

    RECORD is a record, or a folder whose complete records are added. What is there stays as it is: the same
    record again changes nothing, another one under the same run id is refused. Samples can be added later.
    """
    read_info(folder)
    found = list(_records(records))
    if len({record.run_id for record in found}) > 1 and (samples or name):
        raise UsageError("--samples and --name go with one RECORD", hint="add the records one by one")
    grid = sample_grid(samples) if samples else None
    wishes = Wishes(name=name, trust=trust, source_url=source_url, notes=notes, grid=grid)
    with locked(folder):
        added = add_runs(folder, found, wishes)
        for run_id in dict.fromkeys(record.run_id for record in found):
            click.echo(f"{'added' if run_id in added else 'already there:'} {run_id}", err=True)
        if then_build:
            _build(folder)


@leaderboard.command(short_help="Write the tables, the page and the figures.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
def build(folder: Path) -> None:
    """Write the tables, the page and the figures of the board in DIR, those that changed."""
    read_info(folder)
    with locked(folder):
        _build(folder)


@leaderboard.command(short_help="Exit 1 where a board is stale, edited, or lost a record.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option(
    "--since",
    metavar="REVISION",
    help="Also fail where something published at this git revision was changed or removed; in CI the "
    "branch that a change goes to.",
)
def check(folder: Path, since: str | None) -> int:
    """Fail (exit 1) where the board in DIR is stale, edited by hand, or lost a record.

    Published files are compared with records.sha256, built ones with what `build` would write. Nothing is
    written.
    """
    findings = findings_of(folder, since=since)
    for finding in findings:
        click.echo(f"{folder / finding.path}: {finding.problem}")
    if not findings:
        click.echo(f"{folder} is up to date", err=True)
        return 0
    for remedy in dict.fromkeys(finding.remedy for finding in findings):
        click.echo(f"   mend: {remedy}", err=True)
    return 1


@leaderboard.command(short_help="Print the table.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
def show(folder: Path) -> None:
    """Print the board in DIR, best first; built files are not needed."""
    board = read_board(folder)
    if not board.groups:
        raise NothingMeasuredError(
            f"{folder} holds no runs", hint=f"evalkit leaderboard add RECORD --board {folder}"
        )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    style = style_for(sys.stdout)
    tables = [render(group_table(group), "table", style=style, width=width) for group in board.groups]
    click.echo("\n".join(tables), nl=False)


@leaderboard.command(short_help="Print it for spreadsheets, papers, programs, model cards.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    required=True,
    help="csv and json: a row a model; scores-csv: a row a number; latex: booktabs; model-card: the YAML "
    "front matter of a Hugging Face model card.",
)
@click.option("--model", metavar="NAME", help="Of model-card: a row's name, or a model's id.")
@click.option("--bom", is_flag=True, help="Of CSV: begin with a byte order mark, for Excel.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; printed by default."
)
def export(folder: Path, form: str, model: str | None, bom: bool, out: Path | None) -> None:
    """Print the board in DIR as another tool reads it."""
    text = exported(folder, form, model=model, bom=bom)
    if out is not None:
        write_atomically(out, text)
        click.echo(f"wrote {out}", err=True)
    else:
        # The bytes of the file itself: a terminal's encoding must not change them.
        click.echo(text.encode(), nl=False)


def _records(paths: Sequence[Path]) -> Iterator[RunRecord]:
    """Read the records named, and the complete ones of the folders named."""
    hint = "evalkit score writes records below --out (default evalkit-runs/)"
    for path in paths:
        if path.is_dir():
            found = [RunRecord.read(file) for file in sorted(path.rglob("*.json")) if _claims(file)]
            complete = [record for record in found if record.status == "complete"]
            if not complete:
                raise NothingMeasuredError(f"no complete record in {path}", hint=hint)
            if left := len(found) - len(complete):
                click.echo(
                    f"warning: {left} of {len(found)} records in {path} are not complete; skipped", err=True
                )
            yield from complete
        elif path.is_file():
            yield RunRecord.read(path)
        else:
            raise NothingMeasuredError(f"no record or folder at {path}", hint=hint)


def _claims(file: Path) -> bool:
    """Whether a JSON file in a folder says that it is a record; others may lie beside it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        click.echo(f"warning: {file} is not JSON; skipped", err=True)
        return False
    return isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/")


def _build(folder: Path) -> None:
    report = built(folder)
    for verb, paths in (("wrote", report.written), ("removed", report.removed)):
        for path in paths:
            click.echo(f"{verb} {folder / path}", err=True)
    if not report.written and not report.removed:
        click.echo(f"{folder} is up to date", err=True)
    if report.undrawn:
        click.echo(
            "note: no figures were drawn; they need matplotlib: pip install 'evalkit[plots]'", err=True
        )
