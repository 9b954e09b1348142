"""Who may write to a folder of shards: one whole run, or parts of one run side by side.

A whole run holds ``.lock``, a part its own ``.part-NAME.lock``; both look at the others' while they hold
``.gate``, for a moment: parts of another division (``0-of-2`` and ``0-of-3``) would write the
same shards. The operating system frees the locks of a process that dies. The file of a part is
removed by itself, or by the next whole run, so that their number stays that of the parts at work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from evalkit.atomic import remove_orphans
from evalkit.errors import BusyError, TemporaryError

Waiting = Callable[[str], None]
_GATE_TIMEOUT_S = 60.0
_OF = "-of-"


class _HeldError(Exception):
    """Somebody else holds the folder, or the part: ``who``."""

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self.who = who


@contextmanager
def held(folder: Path, *, part: str | None = None, waiting: Waiting | None = None) -> Iterator[None]:
    """Hold ``folder``, made where it is missing: the whole of it, or the part of that name.

    Args:
        folder: of shards.
        part: ``i-of-n`` as :attr:`evalkit.shards.Part.key` has it: the others of the ``n`` parts may hold the
            folder at the same time. None for a whole run.
        waiting: called with the name of the holder while somebody else has the folder: it waits a while, or
            raises to give up. Without it a folder that is held is an error at once.

    Raises:
        BusyError: another process holds it.
        TemporaryError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder, part, waiting)
    except _HeldError as error:
        raise BusyError(
            f"another evalkit run works on {folder} ({error.who})",
            hint="wait for it, or choose another --out",
        ) from None
    except OSError as error:
        raise TemporaryError(
            f"cannot write to {folder}: {error.strerror}", hint="choose another --out"
        ) from error
    try:
        remove_orphans(folder)
        yield
    finally:
        if part is not None:
            _forget(folder, part)
        lock.release()


@contextmanager
def alone(path: Path, *, waiting: Waiting) -> Iterator[None]:
    """Hold the lock at ``path`` among the processes of this machine; ``waiting`` is called while it is taken.

    Raises:
        TemporaryError: it cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        while True:
            with suppress(Timeout):
                lock.acquire()
                break
            waiting(str(path))
    except OSError as error:
        raise TemporaryError(
            f"cannot write to {path.parent}: {error.strerror}", hint="may this user write there?"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquired(folder: Path, part: str | None, waiting: Waiting | None) -> FileLock:
    while True:
        try:
            with FileLock(folder / ".gate", timeout=_GATE_TIMEOUT_S):
                return _whole(folder) if part is None else _part(folder, part)
        except Timeout:
            raise _HeldError("a process that does not open the gate") from None
        except _HeldError as error:
            if waiting is None:
                raise
            waiting(error.who)


def _whole(folder: Path) -> FileLock:
    """Take the folder, where no part is at work; files of parts that died are removed."""
    lock = _taken(folder / ".lock", folder / ".holder")
    try:
        _clear(folder)
    except BaseException:
        lock.release()
        raise
    _sign(folder / ".holder")
    return lock


def _part(folder: Path, part: str) -> FileLock:
    """Take a part, where neither a whole run nor a part of another division is at work."""
    _taken(folder / ".lock", folder / ".holder").release()
    _clear(folder, but_of=part.partition(_OF)[2])
    path = _part_file(folder, part)
    lock = _taken(path, _holder(path))
    _sign(_holder(path))
    return lock


def _clear(folder: Path, *, but_of: str = "") -> None:
    """Remove the files of parts that died; those of the division of so many parts are left alone.

    Raises:
        _HeldError: one of the others is at work.
    """
    for path in folder.glob(".part-*.lock"):
        if not but_of or path.stem.partition(_OF)[2] != but_of:
            _taken(path, _holder(path)).release()
            _remove(path)


def _forget(folder: Path, part: str) -> None:
    """Remove the files of a part while nobody can be opening them; else the next whole run does."""
    with suppress(OSError, Timeout), FileLock(folder / ".gate", timeout=_GATE_TIMEOUT_S):
        _remove(_part_file(folder, part))


def _taken(path: Path, holder: Path) -> FileLock:
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise _HeldError(holder.read_text().strip() if holder.is_file() else "unknown") from None
    return lock


def _part_file(folder: Path, part: str) -> Path:
    return folder / f".part-{part}.lock"


def _holder(path: Path) -> Path:
    return path.with_suffix(".holder")


def _remove(path: Path) -> None:
    _holder(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _sign(holder: Path) -> None:
    holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
