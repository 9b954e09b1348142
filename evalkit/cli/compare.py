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
from evalkit.reporting.comparability import differing_fields
from evalkit.reporting.formatting import style_for
from evalkit.reporting.rendering import DEFAULT_WIDTH, FORMATS, Format
from evalkit.reporting.table import comparison_table, render

_Found = tuple[RunRecord, Path]
_HINT = "evalkit score writes records below --out (default evalkit-runs/)"
# Models that a note names before it says "and others".
_NAMED = 4
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
    Checkpoints of one name but different weights are different models.

    Only scores of one protocol fingerprint compare. Records named by file are always kept. Of the folders,
    those with the fingerprint of the files count; without files, those with the one that most models have.
    """
    chosen = _complete(_found(records))
    if not chosen:
        raise NothingMeasuredError(
            "no complete record to compare",
            hint="name records or their folder: evalkit compare evalkit-runs/",
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


def _found(paths: Iterable[Path]) -> list[_Found]:
    """Read the records named, and of the folders those that compare with them."""
    named: list[_Found] = []
    folders: list[list[_Found]] = []
    for path in paths:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*.json")) if _claims(file)]
            folders.append([(RunRecord.read(file), file) for file in files])
        elif path.is_file():
            named.append((RunRecord.read(path), path))
        else:
            raise NothingMeasuredError(f"no record or folder at {path}", hint=_HINT)
    # A record named twice, or by its file and its folder, is one row.
    return list(_by_run([*_of_folders(folders, named), *named]).values())


def _by_run(found: Iterable[_Found]) -> dict[str, _Found]:
    return {record.run_id: (record, file) for record, file in found}


def _claims(file: Path) -> bool:
    """Whether a JSON file in a folder says that it is a record; others may lie beside it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        click.echo(f"warning: {file} is not JSON; skipped", err=True)
        return False
    return isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/")


def _of_folders(folders: Sequence[Sequence[_Found]], named: Sequence[_Found]) -> list[_Found]:
    """Return the latest complete record of each subject of a folder under the fingerprint to compare.

    Incomplete records are returned too, so that they are reported.
    """
    everything = [pair for folder in folders for pair in folder]
    complete = [record for record, _ in everything if record.status == "complete"]
    wanted = {record.protocol.fingerprint for record, _ in named if record.status == "complete"}
    wanted = wanted or _most_covering(complete)
    latest = [pair for folder in folders for pair in _latest(folder, wanted)]
    incomplete = [pair for pair in everything if pair[0].status != "complete"]

    unshown = {record.run_id: record for record in complete}
    for run_id in _by_run([*latest, *named]):
        unshown.pop(run_id, None)
    others = [record for record in unshown.values() if record.protocol.fingerprint not in wanted]
    if older := len(unshown) - len(others):
        click.echo(
            f"note: {older} older record{'s' if older > 1 else ''} of the same models not shown", err=True
        )
    if others:
        kept = [record for record, _ in [*latest, *named] if record.protocol.fingerprint in wanted]
        _note_other_protocols(others, kept[0])
    return [*latest, *incomplete]


def _most_covering(records: Iterable[RunRecord]) -> set[str]:
    """Return the fingerprint that most subjects have, the one of the newest record where several tie."""
    groups = _by_fingerprint(records)
    if not groups:
        return set()
    return {max(groups, key=lambda key: (len(set(map(_subject, groups[key]))), max(map(_age, groups[key]))))}


def _by_fingerprint(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.protocol.fingerprint, []).append(record)
    return groups


def _latest(found: Iterable[_Found], fingerprints: set[str]) -> list[_Found]:
    """Keep the newest complete record of each subject under each of these fingerprints."""
    newest: dict[tuple[object, ...], _Found] = {}
    for record, file in sorted(found, key=lambda pair: _age(pair[0])):
        if record.status == "complete" and record.protocol.fingerprint in fingerprints:
            newest[record.protocol.fingerprint, *_subject(record)] = (record, file)
    return list(newest.values())


def _age(record: RunRecord) -> tuple[str, str]:
    return record.created_utc, record.run_id


def _subject(record: RunRecord) -> tuple[object, ...]:
    """What a row is about: one model under two samplers is two rows, and so are other weights of its name."""
    sampling = record.sampling
    sampler = (sampling.sampler, sampling.steps, sampling.guidance, sampling.truncation) if sampling else ()
    return (record.model.id, record.model.sha256, record.model.revision, *sampler)


def _note_other_protocols(others: Sequence[RunRecord], shown: RunRecord) -> None:
    """Say what was left out because its scores do not compare with the one shown."""
    groups = _by_fingerprint(others)
    parts = []
    for group in groups.values():
        models = sorted({record.model.id for record in group})
        more = ["and others"] if len(models) > _NAMED else []
        parts.append(f"{_protocol(group[0], shown)}: {', '.join([*models[:_NAMED], *more])}")
    count = f"{len(others)} record{'s' if len(others) > 1 else ''}"
    kind = "another protocol" if len(groups) == 1 else "other protocols"
    one, several = "is left out; name its file to see it", "are left out; name their files to see them"
    click.echo(
        f"note: {count} of {kind} ({'; '.join(parts)}) {several if len(others) > 1 else one}", err=True
    )


def _protocol(record: RunRecord, shown: RunRecord) -> str:
    """Name a protocol by preset and N; where the one shown has the same, by the fields that differ too."""
    name, other = (f"{r.protocol.name}, N = {r.protocol.fields.get('num_images')}" for r in (record, shown))
    if name != other:
        return name
    differing = differing_fields(record.protocol.fields, shown.protocol.fields)
    topics = {field.partition(".")[0].partition("[")[0] for field in differing}
    return f"{name}, other {' and '.join(sorted(topics)) or 'fingerprint'}"


def _complete(found: Iterable[tuple[RunRecord, Path]]) -> list[RunRecord]:
    kept = []
    for record, file in found:
        if record.status == "complete":
            kept.append(record)
        else:
            click.echo(f"warning: {file} is {record.status}, not complete; skipped", err=True)
    return kept
