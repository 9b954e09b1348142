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

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.gate.acceptances import ACCEPTED, heirs_of, read_text
from evalkit.gate.board_rows import BoardRow, read_board_row
from evalkit.gate.facts import Quantity, Side
from evalkit.gate.quantities import quantities
from evalkit.gate.subjects import Identity, age, identity, seeds_text, subject
from evalkit.record import RunRecord

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


def find_candidate(ref: str | Path) -> tuple[RunRecord, ...]:
    """Return the record at ``ref``; of a folder the newest one, then older ones of the same model alike.

    Raises:
        UsageError: ``ref`` is empty.
        NothingMeasuredError: nothing is there, or the (newest) record is not complete.
        InvalidInputError: a file is no record, or holds NaN.
    """
    path = _place(ref, "candidate")
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
        UsageError: ``ref`` is empty, or a CSV file without ``#model``.
        InvalidInputError: a file is no record or no leaderboard, or holds NaN.
    """
    path = _place(ref, "baseline")
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


def _place(ref: str | Path, what: str) -> Path:
    """Return ``ref`` as a path that the system can look up."""
    if not str(ref):  # an unset variable of a script, and as a path the folder that one is in
        raise UsageError(f"the {what} is empty", hint="name a record, or a folder of records")
    path = Path(ref)
    try:
        path.is_dir()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise NothingMeasuredError(f"no {what} at {str(ref)[:80]!r}: {why}", hint=_HINT) from error
    return path


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
        raise _of_others(f"{folder} holds", models, model)
    which = "its newest record of the candidate's model"
    return chosen, [f"{folder} holds {len(models)} models; the baseline is {which}: {chosen[0].run_id}"]


def _accepted(
    folder: Path, found: Sequence[tuple[RunRecord, Path]], candidate: Sequence[RunRecord]
) -> tuple[RunRecord, Path]:
    """Return the record that was accepted last.

    Where several stand side by side it is the last one of the candidate's model, else the one that took the
    place of a run of that model.
    """
    by_run = {record.run_id: (record, file) for record, file in found}
    heirs, model = heirs_of(folder / ACCEPTED), candidate[0].model.id
    stand = [run_id for run_id in heirs if heirs[run_id] == run_id]
    own = [run_id for run_id in heirs if run_id in by_run and by_run[run_id][0].model.id == model]
    own.sort(key=lambda run_id: heirs[run_id] == run_id)
    others = sorted({by_run[run_id][0].model.id for run_id in stand if run_id in by_run})
    if len(others) > 1 and not own:
        raise _of_others(f"the accepted baselines in {folder} are of", others, model)
    run_id = heirs[own[-1]] if own else stand[-1]
    if run_id not in by_run:
        hint = "put its record back, or accept another run"
        raise NothingMeasuredError(f"the accepted baseline {run_id} is not in {folder}", hint=hint)
    return by_run[run_id]


def _of_others(where: str, models: Sequence[str], model: str) -> NothingMeasuredError:
    known = ", ".join(models[:_NAMED]) + (" …" if len(models) > _NAMED else "")
    return NothingMeasuredError(
        f"{where} {len(models)} models ({known}), and none of them is {model}",
        hint="name the record to compare with, or a folder of one model's records",
    )


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
            data = json.loads(read_text(file))
        except (ValueError, RecursionError) as error:
            hint = "was it cut short? remove it, or name the record itself"
            raise InvalidInputError(f"{file} is not JSON", hint=hint) from error
        if isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/"):
            yield file


def _read(file: Path) -> RunRecord:
    read_text(file)
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
        hint = "finish it (score without --until-decided resumes it), or name the record to judge"
        raise NothingMeasuredError(f"{file} is {record.status}, not complete", hint=hint)


def _run_ids(records: Iterable[RunRecord]) -> set[str]:
    return {record.run_id for record in records}
