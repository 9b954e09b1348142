"""Every error that evalkit raises on purpose: what went wrong, a hint, and the exit code.

    EvalkitError                    70  internal: nothing below fits
    ├── UsageError                   2  unknown name, flag or key; impossible combination
    ├── NotComparableError           3  protocol fingerprints differ
    ├── InconclusiveError            4  the statistics cannot decide
    ├── NothingMeasuredError         5  no data, no baseline, a missing metric or shard
    ├── InvalidInputError            6  corrupt, non-finite or too few images; bad statistics file
    │   └── CheckpointError          6  a checkpoint that does not fit
    │       └── UnsafeCheckpointError  6  a checkpoint whose pickle wants to run code
    └── TemporaryError              75  try again: network, lock, disk full
        ├── BusyError               75  another run has the folder: nothing was begun
        └── OfflineError            75  a download is needed and not possible now

The command line prints ``message``, then ``hint``, and leaves with ``exit_code``; any other exception
is mapped to 70. Code 1 is kept for a regression found by the gate and a stale board found by
``leaderboard check``.
"""

from __future__ import annotations

from typing import ClassVar


class EvalkitError(Exception):
    """Base of all deliberate errors; ``hint`` says what the user can do about it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EvalkitError):
    """An unknown name, flag or key, or a combination that cannot work."""

    exit_code = 2


class NotComparableError(EvalkitError):
    """Two scores were measured under different protocol fingerprints."""

    exit_code = 3


class InconclusiveError(EvalkitError):
    """The statistics cannot decide at this sample size."""

    exit_code = 4


class NothingMeasuredError(EvalkitError):
    """There is nothing to score: no data, no baseline, a missing metric or shard."""

    exit_code = 5


class InvalidInputError(EvalkitError):
    """Input data is corrupt, non-finite, too small or of the wrong shape."""

    exit_code = 6


class CheckpointError(InvalidInputError):
    """A checkpoint does not fit the network, or holds non-finite weights."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint's pickle asks for something other than tensors and plain containers."""


class TemporaryError(EvalkitError):
    """Running the same command again later can succeed, and resumes."""

    exit_code = 75


class BusyError(TemporaryError):
    """Another run works on the same folder: this one was refused, and has done nothing."""


class OfflineError(TemporaryError):
    """A file must be downloaded and cannot be now."""
