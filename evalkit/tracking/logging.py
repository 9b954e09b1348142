"""Logs one record to several trackers: nothing that a tracker does can lose the record or spoil stdout."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from evalkit.record import RunRecord
from evalkit.redaction import redact_command
from evalkit.tracking.trackers import Named

_LONGEST = 240
_STDOUT, _STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class Failure:
    """A tracker that did not take a record, and why in one line without secrets."""

    tracker: str
    reason: str


def log_record(
    record: RunRecord,
    trackers: Sequence[Named],
    *,
    path: Path,
    notify: Callable[[str], None],
    step: int | None = None,
) -> tuple[Failure, ...]:
    """Send a record that is on disk to each tracker; a failure is told, returned, and changes nothing else.

    Args:
        record: what was measured.
        trackers: from :func:`~evalkit.tracking.trackers.parse_trackers`.
        path: the record's file, which trackers that keep files get too.
        notify: called with one sentence for each tracker.
        step: of a training run, where records follow its checkpoints.
    """
    failures = []
    for named in trackers:
        try:
            with _aside():
                done = named.tracker.log(record, path, step=step)
        # SystemExit too: a library that gives up must not end a run whose record is complete.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a tracker raises
            failure = Failure(named.name, _reason(error))
            failures.append(failure)
            notify(f"warning: {failure.tracker} did not take the record ({failure.reason}); it is in {path}")
        else:
            notify(redact_command((f"{named.name}: {done}",))[0])
    return tuple(failures)


def _reason(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return redact_command((text,))[0][:_LONGEST]


@contextmanager
def _aside() -> Iterator[None]:
    """Send to stderr what a tracker, or a program that it starts, prints: stdout holds the scores."""
    sys.stdout.flush()
    with warnings.catch_warnings(), redirect_stdout(sys.stderr), _descriptor_aside():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _descriptor_aside() -> Iterator[None]:
    try:
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # a process without these descriptors prints nowhere
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
