"""Where the two sides of a gate come from: a record, a folder of records, or a row of a leaderboard's CSV.

    candidate = find_candidate(Path("evalkit-runs"))
    baseline = find_baseline("leaderboards/cifar10-jpeg/scores.csv#ddpm", candidate)

Accepted trade-offs: of a folder with several models only the records of the candidate's own model count,
since a board's newest row is seldom what a model was before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit import strict_json
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.gate.board_rows import BoardRow, read_board_row
from evalkit.gate.facts import Quantity, Side
from evalkit.gate.quantities import quantities
from evalkit.gate.subjects import Identity, age, identity, seeds_text, subject
from evalkit.record import RunRecord

ACCEPTED = "accepted.jsonl"
"""In a folder of records: a JSON object a line, with the ``run_id`` of an accepted baseline, and with
``old_run_id`` of the one that it took the place of."""

# Models that an error names before it says that there are more.
_NAMED = 8
_HINT = "evalkit score writes records below --out (default evalkit-runs/)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a candidate is compared with.

    Attributes:
        records: of the baseline's model and protocol, the one that counts first; none where it is a CSV row.
        quantities: of the first record, or of the row.
        identity: what decides its images, where that is known.
        notes: what a reader must know of how it was chosen.
    """

    side: Side
    records: tuple[RunRecord, ...]
    quantities: tuple[Quantity, ...]
    identity: Identity | None = None
    notes: tuple[str, ...] = ()


def side_of(record: RunRecord, source: str) -> Side:
    """Return what a reader must know of a record that was found at ``source``."""
    return Side(
        model=record.model.id,
        run_id=record.run_id,
        fingerprint=record.protocol.fingerprint,
        source=source,
        seeds=seeds_text(record),
    )


def find_candidate(path: Path) -> tuple[RunRecord, ...]:
    """Return the record at ``path``; of a folder the newest one, then older ones of the same model alike.

    Raises:
        NothingMeasuredError: nothing is there, or the (newest) record is not complete.
        InvalidInputError: a file is no record, or holds NaN.
    """
    if path.is_dir():
        found = _records_below(path)
        if not found:
            raise NothingMeasuredError(f"no record in {path}", hint=_HINT)
        newest, file = found[0]
        _require_complete(newest, file)
        return _with_replicates(newest, [record for record, _ in found])
    if not path.is_file():
        raise NothingMeasuredError(f"no record or folder at {path}", hint=_HINT)
    record = _read(path)
    _require_complete(record, path)
    return (record,)


def find_baseline(ref: str | Path, candidate: Sequence[RunRecord]) -> Baseline:
    """Return the baseline that ``ref`` names: a record, a folder of records, or ``scores.csv#model``.

    Of a folder that holds :data:`ACCEPTED` it is the run accepted last. Else it is the newest complete record
    with the candidate's fingerprint, of the candidate's own model where there are several; without any of
    that fingerprint, the newest complete record, so that a gate can say what differs. The candidate itself
    does not count.

    Raises:
        NothingMeasuredError: nothing is there, or nothing but the candidate, or several other models.
        UsageError: a CSV file without ``#model``.
        InvalidInputError: a file is no record or no leaderboard, or holds NaN.
    """
    path = Path(ref)
    if path.is_dir():
        return _of_folder(path, candidate)
    if path.is_file() and path.suffix.lower() != ".csv":
        return _of_file(path, candidate)
    file, mark, model = str(ref).rpartition("#")
    if path.is_file():
        raise UsageError(f"{ref} holds many models", hint=f"name one: {ref}#MODEL")
    if mark and Path(file).is_file():
        return _of_row(read_board_row(Path(file), model, candidate[0].protocol.fingerprint), str(ref))
    hint = f"{_HINT}; a row of a leaderboard is leaderboards/x/scores.csv#model"
    raise NothingMeasuredError(f"no baseline at {ref}", hint=hint)


def _of_file(path: Path, candidate: Sequence[RunRecord]) -> Baseline:
    record = _read(path)
    notes = [f"the baseline is {record.status}, not complete"] if record.status != "complete" else []
    if record.run_id in _run_ids(candidate):
        notes.append("the candidate is compared with itself")
    return _of_records((record,), str(path), notes)


def _of_folder(folder: Path, candidate: Sequence[RunRecord]) -> Baseline:
    found = _records_below(folder)
    if (folder / ACCEPTED).is_file():
        chosen, file = _accepted(folder, found, candidate)
        notes = [f"the baseline is {chosen.status}, not complete"] if chosen.status != "complete" else []
        if chosen.run_id in _run_ids(candidate):
            return _of_records(
                (chosen,), str(file), [*notes, "the candidate is itself the accepted baseline"]
            )
    else:
        (chosen, file), notes = _newest(folder, found, candidate)
    others = [record for record, _ in found if record.run_id not in _run_ids(candidate)]
    return _of_records(_with_replicates(chosen, others), str(file), notes)


def _of_records(records: tuple[RunRecord, ...], source: str, notes: Iterable[str]) -> Baseline:
    chosen = records[0]
    return Baseline(
        side=side_of(chosen, source),
        records=records,
        quantities=quantities(chosen),
        identity=identity(chosen),
        notes=tuple(notes),
    )


def _of_row(row: BoardRow, source: str) -> Baseline:
    side = Side(
        model=row.model, run_id=row.run_id, fingerprint=row.fingerprint, source=source, seeds=row.seeds
    )
    return Baseline(side=side, records=(), quantities=row.quantities, identity=row.identity, notes=row.notes)


def _newest(
    folder: Path, found: Sequence[tuple[RunRecord, Path]], candidate: Sequence[RunRecord]
) -> tuple[tuple[RunRecord, Path], list[str]]:
    """Return the record to compare with, and what to say of the choice."""
    own = _run_ids(candidate)
    complete = [pair for pair in found if pair[0].status == "complete" and pair[0].run_id not in own]
    if not complete:
        less = (
            "no complete record but the candidate's"
            if any(r.run_id in own for r, _ in found)
            else ("no complete record")
        )
        raise NothingMeasuredError(f"{less} in {folder}: there is no baseline yet", hint=_HINT)
    fingerprint, model = candidate[0].protocol.fingerprint, candidate[0].model.id
    comparable = [pair for pair in complete if pair[0].protocol.fingerprint == fingerprint] or complete
    models = sorted({record.model.id for record, _ in comparable})
    if len(models) == 1:
        return comparable[0], []
    chosen = next((pair for pair in comparable if pair[0].model.id == model), None)
    if chosen is None:
        known = ", ".join(models[:_NAMED]) + (" …" if len(models) > _NAMED else "")
        raise NothingMeasuredError(
            f"{folder} holds {len(models)} models ({known}), and none of them is {model}",
            hint="name the record to compare with, or a folder of one model's records",
        )
    which = "its newest record of the candidate's model"
    return chosen, [f"{folder} holds {len(models)} models; the baseline is {which}: {chosen[0].run_id}"]


def _accepted(
    folder: Path, found: Sequence[tuple[RunRecord, Path]], candidate: Sequence[RunRecord]
) -> tuple[RunRecord, Path]:
    """Return the record that was accepted last.

    Where baselines of several models stand side by side, each of them accepted by itself and none since
    replaced by another, it is the last one of the candidate's model, if there is one.
    """
    standing: dict[str, None] = {}
    for run_id, replaced in _acceptances(folder / ACCEPTED):
        standing.pop(replaced or run_id, None)
        standing.pop(run_id, None)
        standing[run_id] = None
    by_run = {record.run_id: (record, file) for record, file in found}
    last = next(reversed(standing))
    own = (r for r in reversed(standing) if r in by_run and by_run[r][0].model.id == candidate[0].model.id)
    run_id = next(own, last)
    if run_id not in by_run:
        hint = "put its record back, or accept another run"
        raise NothingMeasuredError(f"the accepted baseline {run_id} is not in {folder}", hint=hint)
    return by_run[run_id]


def _acceptances(path: Path) -> list[tuple[str, str | None]]:
    """Return of each line of the log the run that was accepted and the one it took the place of."""
    pairs: list[tuple[str, str | None]] = []
    try:
        pairs.extend(_acceptance(line) for line in _text(path).split("\n") if line.strip())
    except InvalidInputError as error:
        hint = "evalkit gate --accept writes it, a line of JSON for each baseline; was it cut short?"
        raise InvalidInputError(f"{path}, line {len(pairs) + 1}: {error}", hint=hint) from error
    if not pairs:
        raise NothingMeasuredError(f"{path} is empty: no baseline was accepted", hint="evalkit gate --accept")
    return pairs


def _acceptance(line: str) -> tuple[str, str | None]:
    told = strict_json.loads(line)
    run_id, old = (told.get("run_id"), told.get("old_run_id")) if isinstance(told, dict) else (None, None)
    if not isinstance(run_id, str) or not isinstance(old, str | None):
        raise InvalidInputError("it does not say which run was accepted")
    return run_id, old


def _records_below(folder: Path) -> list[tuple[RunRecord, Path]]:
    """Return the records anywhere below ``folder``, newest first, each run once."""
    found = {record.run_id: (record, file) for file in _claiming(folder) for record in (_read(file),)}
    return sorted(found.values(), key=lambda pair: age(pair[0]), reverse=True)


def _claiming(folder: Path) -> Iterator[Path]:
    """Yield the JSON files that say they are records; others may lie beside them.

    A file that is no JSON at all is refused: it may be the record that was meant.
    """
    for file in sorted(folder.rglob("*.json")):
        if not file.is_file():
            continue
        try:
            data = json.loads(_text(file))
        except (ValueError, RecursionError) as error:
            hint = "was it cut short? remove it, or name the record itself"
            raise InvalidInputError(f"{file} is not JSON", hint=hint) from error
        if isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/"):
            yield file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise NothingMeasuredError(f"cannot read {file}: {error.strerror}", hint="check its owner") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file}: not UTF-8 text", hint="this is not a record of evalkit") from error


def _read(file: Path) -> RunRecord:
    _text(file)
    return RunRecord.read(file)


def _with_replicates(chosen: RunRecord, others: Iterable[RunRecord]) -> tuple[RunRecord, ...]:
    """Return ``chosen``, then the complete runs of the same subject under the same protocol."""
    alike = [
        record
        for record in others
        if record.run_id != chosen.run_id
        and record.status == "complete"
        and record.protocol.fingerprint == chosen.protocol.fingerprint
        and subject(record) == subject(chosen)
    ]
    return (chosen, *alike)


def _require_complete(record: RunRecord, file: Path) -> None:
    if record.status != "complete":
        hint = "finish it (the same evalkit score command resumes), or name the record to judge"
        raise NothingMeasuredError(f"{file} is {record.status}, not complete", hint=hint)


def _run_ids(records: Iterable[RunRecord]) -> set[str]:
    return {record.run_id for record in records}
