"""``--log json[:FILE]``: the events of a run, one canonical JSON object a line. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from evalkit.errors import EvalkitError, UsageError
from evalkit.events import Event, RunFailed, RunFinished, RunInterrupted, RunStarted, line_of

FORM: Final = "json[:FILE]"
_KIND = "json"


def take_event_log(texts: Sequence[str]) -> tuple[EventLog | None, tuple[str, ...]]:
    """Take ``json`` or ``json:FILE`` out of the values of ``--log``; the others name trackers.

    Raises:
        UsageError: it is given twice, or the file cannot be written to.
    """
    asked = [text for text in dict.fromkeys(texts) if text.partition(":")[0] == _KIND]
    if len(asked) > 1:
        raise UsageError(
            f"--log {asked[0]} and --log {asked[1]}: one log of events is enough",
            hint="leave one of them out",
        )
    others = tuple(text for text in texts if text not in asked)
    if not asked:
        return None, others
    _, colon, where = asked[0].partition(":")
    if colon and not where:
        raise UsageError("--log json: needs a file", hint="--log json for stderr, or --log json:run.jsonl")
    return EventLog(Path(where) if where else None), others


class EventLog:
    """Lines on stderr where ``path`` is None, else at the end of a file.

    A line is one write: of several processes that write to one file, none cuts another's line in two.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._file, self._run, self._told = path, -1, "", False
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UsageError(
                f"cannot write to {path}: {error.strerror}", hint="choose another file after --log json:"
            ) from error

    @property
    def on_stderr(self) -> bool:
        """Whether the events are all that stderr is to show."""
        return self._path is None

    def write(self, event: Event) -> str:
        """Write one line; return what went wrong the first time that it cannot be written, else nothing."""
        if isinstance(event, RunStarted):
            self._run = event.run
        if isinstance(event, RunStarted | RunFinished):
            self._told = False
        elif isinstance(event, RunFailed | RunInterrupted):
            self._told = True
        line = line_of(event, run=self._run or None).encode() + b"\n"
        if self._path is None:
            click.echo(line, err=True, nl=False)
            return ""
        return self._append(line)

    def _append(self, line: bytes) -> str:
        if self._file < 0:
            return ""
        try:
            reason = "" if os.write(self._file, line) == len(line) else "no space left"
        except OSError as error:
            reason = str(error.strerror)
        if not reason:
            return ""
        self.close()
        return f"cannot write to {self._path}: {reason}"

    def failed(self, error: EvalkitError | KeyboardInterrupt) -> None:
        """Write what ended the command, unless the run that it ended has told so itself."""
        from evalkit.telling import ended_by  # noqa: PLC0415 - loads torch, which a run has done

        if not self._told:
            self.write(ended_by(error))

    def close(self) -> None:
        """Close the file; nothing is written any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
