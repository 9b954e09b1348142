"""``suite.json``: which cells have run below a folder and how they ended. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import InvalidInputError
from evalkit.record import RunRecord
from evalkit.suites.facts import MANIFEST_SCHEMA, Cell, CellState, Manifest

MANIFEST = "suite.json"
RECORDS = "records"


def read_manifest(folder: Path, *, suite: str) -> Manifest:
    """Return what ``folder`` says has run; an empty manifest where there is none.

    Raises:
        InvalidInputError: the file is damaged, of another release, or another suite's.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return Manifest(suite=suite)
    hint = "give another --out, or --fresh to run everything again"
    try:
        manifest = _decoded(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}: not UTF-8 text", hint=hint) from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.message}", hint=hint) from error
    if manifest.suite != suite:
        raise InvalidInputError(
            f"{path} belongs to the suite {manifest.suite!r}, not to {suite!r}", hint=hint
        )
    return manifest


def _decoded(text: str) -> Manifest:
    data = strict_json.loads(text)
    found = data.get("schema") if isinstance(data, dict) else None
    if found != MANIFEST_SCHEMA:
        raise InvalidInputError(f"schema is {found!r}, not {MANIFEST_SCHEMA!r}")
    return strict_json.decode(data, Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of ``folder``."""
    write_atomically(folder / MANIFEST, strict_json.dumps(strict_json.encode_object(manifest)))


def with_state(manifest: Manifest, cell: Cell, state: CellState) -> Manifest:
    """Return the manifest with what became of one cell."""
    return replace(manifest, cells={**manifest.cells, cell.key: state})


def record_path(folder: Path, run_id: str) -> Path:
    """Where the record of a run lies."""
    return folder / RECORDS / f"{run_id}.json"


def records_of(folder: Path, manifest: Manifest, cells: Iterable[Cell]) -> dict[str, RunRecord]:
    """Return the complete records of the cells that are done, by key.

    A record that is gone, damaged or not complete does not count: its cell has to run again.
    """
    found = {}
    for cell in cells:
        state = manifest.cells.get(cell.key)
        if state is None or state.status != "done" or state.run_id is None:
            continue
        record = complete_record(record_path(folder, state.run_id))
        if record is not None:
            found[cell.key] = record
    return found


def complete_record(path: Path) -> RunRecord | None:
    """Return the record at ``path`` if it is whole and complete."""
    try:
        record = RunRecord.read(path)
    except (InvalidInputError, OSError):
        return None
    return record if record.status == "complete" else None
