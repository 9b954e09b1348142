"""The local file: one flat JSON object a record, appended under a lock. No package needed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.errors import TemporaryError, UsageError
from evalkit.record import RunRecord
from evalkit.tracking.entry import entry_of

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Appends to the file ``where``; a run that it holds already is not added again.

    Raises:
        UsageError: there is a folder.
    """

    where: str

    def __post_init__(self) -> None:
        if Path(self.where).is_dir():
            raise UsageError(f"{self.where} is a folder", hint="jsonl:runs.jsonl")

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:
        """Append one line, whole and synced.

        Raises:
            TemporaryError: another process keeps the file for a minute.
        """
        entry, file = entry_of(record), Path(self.where)
        at = {} if step is None else {"step": step}
        row = {**entry.tags, **at, **entry.params, **entry.metrics, "record": str(path)}
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock", timeout=_PATIENCE):
                if self._holds(entry.run_id):
                    return f"{entry.name} ({entry.run_id}) is there already"
                _append(file, line)
        except Timeout as error:
            raise TemporaryError(f"{file} is held by another process", hint="try again") from error
        return f"added {entry.name} ({entry.run_id})"

    def _holds(self, run_id: str) -> bool:
        try:
            lines = Path(self.where).read_bytes().splitlines()
        except FileNotFoundError:
            return False
        return any(_run_id(line) == run_id for line in lines)


def _append(file: Path, line: bytes) -> None:
    with file.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                # A crash cut the last line short: it stays what it is, and the next begins on its own.
                line = b"\n" + line
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _run_id(line: bytes) -> object:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data.get("run_id") if isinstance(data, dict) else None
