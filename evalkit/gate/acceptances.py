"""The log of a folder's baselines, ``accepted.jsonl``: which runs were accepted, and which of them stand."""

from __future__ import annotations

from pathlib import Path

from evalkit import strict_json
from evalkit.errors import InvalidInputError, NothingMeasuredError

ACCEPTED = "accepted.jsonl"
"""In a folder of records: a JSON object a line, with the ``run_id`` of an accepted baseline, and with
``old_run_id`` of the one that it took the place of."""


def standing(folder: Path) -> tuple[str, ...]:
    """Return the runs that ``folder``'s log of acceptances says are baselines, the last accepted last.

    There are several where each was accepted by itself, and none since replaced by another.

    Raises:
        NothingMeasuredError: the log cannot be read, or is empty.
        InvalidInputError: a line does not say which run was accepted.
    """
    return tuple(run_id for run_id, heir in heirs_of(folder / ACCEPTED).items() if run_id == heir)


def heirs_of(log: Path) -> dict[str, str]:
    """Return every run of a log, the last accepted last, with the run that is now in its place.

    Raises:
        NothingMeasuredError: the log cannot be read, or is empty.
        InvalidInputError: a line does not say which run was accepted.
    """
    heirs: dict[str, str] = {}
    for run_id, replaced in _acceptances(log):
        if replaced is not None:
            heirs.setdefault(replaced, replaced)
            heirs = {run: run_id if heir == replaced else heir for run, heir in heirs.items()}
        heirs.pop(run_id, None)
        heirs[run_id] = run_id
    return heirs


def read_text(file: Path) -> str:
    """Return the text of a file; what cannot be read is nothing measured, what is no text invalid input."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise NothingMeasuredError(f"cannot read {file}: {error.strerror}", hint="check its owner") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file}: not UTF-8 text", hint="this is not a record of evalkit") from error


def _acceptances(path: Path) -> list[tuple[str, str | None]]:
    """Return of each line of the log the run that was accepted and the one it took the place of."""
    pairs: list[tuple[str, str | None]] = []
    try:
        pairs.extend(_acceptance(line) for line in read_text(path).split("\n") if line.strip())
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
