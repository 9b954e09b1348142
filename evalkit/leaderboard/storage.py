"""The append-only part of a board's folder: records, entries and samples, one writer at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.leaderboard.entries import EntryFile, check_publishable
from evalkit.leaderboard.facts import Trust
from evalkit.leaderboard.manifest import extend_manifest, read_manifest
from evalkit.record import RunRecord

LOCK = ".lock"
_LOCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One published run: its record, what is said of it, and its grid of samples."""

    record: RunRecord
    entry: EntryFile
    grid: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What whoever adds a run says of it; None for what is not said."""

    name: str | None = None
    trust: Trust | None = None
    source_url: str | None = None
    notes: str | None = None
    grid: bytes | None = None


@contextmanager
def locked(folder: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Hold a board's folder; the operating system frees it when the holder dies.

    Raises:
        TemporaryError: another process held it for longer than two minutes, or it cannot be written to.
    """
    limit = _LOCK_SECONDS if seconds is None else seconds
    lock = FileLock(folder / LOCK, timeout=limit)
    try:
        lock.acquire()
    except Timeout as error:
        raise TemporaryError(
            f"another process has been writing to {folder} for {limit:g} s",
            hint="try again when it has ended",
        ) from error
    except OSError as error:
        raise TemporaryError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def read_stored(folder: Path) -> tuple[Stored, ...]:
    """Return every published run, by run id.

    Raises:
        InvalidInputError: a file cannot be read, or is not what its name says.
        UsageError: a record was put there without ``evalkit leaderboard add``.
    """
    try:
        # As in the list of published files, a hidden one is somebody else's.
        return tuple(_read(path) for path in sorted((folder / "records").glob("[!.]*.json")))
    except OSError as error:
        raise InvalidInputError(f"cannot read {error.filename}: {error.strerror}") from error


def add_runs(folder: Path, records: Sequence[RunRecord], wishes: Wishes) -> tuple[str, ...]:
    """Publish runs: all or, where one of them cannot be, none. The folder must be :func:`locked`.

    Returns:
        Run ids of those that were new or got a grid; those that were there already are left out.

    Raises:
        UsageError: a run id is taken by another record, or something else was said of the run before.
        EvalkitError: see :func:`evalkit.leaderboard.entries.check_publishable`.
    """
    listed = read_manifest(folder)
    planned: dict[str, bytes] = {}
    for record in _one_a_run(records):
        check_publishable(record)
        planned |= _planned(folder, record, wishes)
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in planned.items()}
    for path, digest in digests.items():
        if listed.get(path, digest) != digest:
            raise UsageError(
                f"{path} is not the file that was published", hint=f"restore it: git restore {folder / path}"
            )
    new = [path for path in planned if path not in listed or not (folder / path).exists()]
    for path in new:
        if not (folder / path).exists():
            write_atomically(folder / path, planned[path])
    # Last of all: a run whose adding was cut short is not listed, and adding it again completes it.
    extend_manifest(folder, digests)
    touched = {Path(path).stem for path in new}
    return tuple(record.run_id for record in _one_a_run(records) if record.run_id in touched)


def _one_a_run(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return records without repetitions; one run id with two contents is refused."""
    found: dict[str, RunRecord] = {}
    for record in records:
        if found.setdefault(record.run_id, record) != record:
            raise UsageError(f"two different records of run {record.run_id} were named")
    return tuple(found.values())


def _read(path: Path) -> Stored:
    record = RunRecord.read(path)
    if record.run_id != path.stem:
        raise InvalidInputError(f"{path} holds the record of run {record.run_id}, not {path.stem}")
    folder = path.parents[1]
    entry_path, grid_path = folder / f"entries/{path.name}", folder / f"samples/{path.stem}.webp"
    if not entry_path.is_file():
        raise UsageError(
            f"{path} was not added to the board",
            hint=f"evalkit leaderboard add {path} --board {folder}",
        )
    entry = EntryFile.read(entry_path)
    if entry.run_id != record.run_id:
        raise InvalidInputError(f"{entry_path} is about run {entry.run_id}, not {path.stem}")
    return Stored(record=record, entry=entry, grid=grid_path.read_bytes() if grid_path.is_file() else None)


def _planned(folder: Path, record: RunRecord, wishes: Wishes) -> dict[str, bytes]:
    """Return the files of a run by path on the board, what is there already as it is.

    Raises:
        UsageError: what is there differs.
    """
    run_id = record.run_id
    record_path, entry_path, grid_path = (
        f"records/{run_id}.json",
        f"entries/{run_id}.json",
        f"samples/{run_id}.webp",
    )
    files = {record_path: strict_json.dumps(record.to_json()).encode()}
    if (folder / record_path).exists():
        if RunRecord.read(folder / record_path) != record:
            raise UsageError(
                f"the board has another record of run {run_id}",
                hint="records are append-only: a new measurement is a new run",
            )
        files[record_path] = (folder / record_path).read_bytes()
    if (folder / entry_path).exists():
        _require_same_words(EntryFile.read(folder / entry_path), wishes)
        files[entry_path] = (folder / entry_path).read_bytes()
    else:
        files[entry_path] = strict_json.dumps(_entry(run_id, wishes).to_json()).encode()
    grid = (folder / grid_path).read_bytes() if (folder / grid_path).exists() else wishes.grid
    if grid is not None:
        if wishes.grid not in {None, grid}:
            raise UsageError(
                f"the board has another grid of samples of run {run_id}", hint="samples are append-only"
            )
        files[grid_path] = grid
    return files


def _entry(run_id: str, wishes: Wishes) -> EntryFile:
    return EntryFile(
        run_id=run_id,
        name=wishes.name,
        trust=wishes.trust or "measured",
        source_url=wishes.source_url or "",
        notes=wishes.notes or "",
    )


def _require_same_words(entry: EntryFile, wishes: Wishes) -> None:
    for field in ("name", "trust", "source_url", "notes"):
        before, wanted = getattr(entry, field), getattr(wishes, field)
        if wanted is not None and wanted != before:
            raise UsageError(
                f"run {entry.run_id} is there with {field.replace('_', ' ')} {before!r}, not {wanted!r}",
                hint="entries are append-only: undo the addition (git revert) and add the run again",
            )
