"""A lease: one object beside the shards that says who works on them, renewed while it does. No torch.

    with held(store, ["state/1a2b"], scratch=folder, part="whole") as lease:
        …
        lease.check()

A holder that is killed leaves its object behind. On the machine where it ran the next run knows at once, by a
lock that the operating system freed; elsewhere one older than :data:`STALE` seconds is watched for a while,
and taken over if it does not beat: clocks of machines differ, so that age alone is no proof.

Accepted trade-offs: an object store has no lock. Two runs that find the same stale lease may both take it
over; the one that wrote last keeps it, the other finds out at its next beat and stops. Nothing is lost by
that: shards are named by their content, so that working twice costs time alone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from evalkit.atomic import write_atomically
from evalkit.errors import BusyError, TemporaryError
from evalkit.mirror import WHOLE, Waiting
from evalkit.object_stores.store import ObjectStore

BEAT: Final = 15.0
"""Seconds between two renewals."""
STALE: Final = 90.0
"""Seconds without a renewal after which a lease may be taken over."""
Notify = Callable[[str], None]
_PREFIX, _SUFFIX, _OF = "lease-", ".json", "-of-"
_LOOK: Final = 1.0
"""Seconds between two looks at a lease that is waited for."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, and waiting: replaced in tests."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class _Busy(Exception):  # noqa: N818 - told as an error, or waited for, by whoever catches it
    """``who`` holds it."""

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self.who = who


@dataclass(frozen=True, slots=True)
class _Found:
    """What a lease says; ``token`` tells the folders of machines apart."""

    holder: str
    token: str
    time: float


@dataclass(slots=True)
class Lease:
    """Leases of some folders for one part of a run, in the name of this machine's ``scratch`` folder."""

    store: ObjectStore
    scratch: Path
    part: str
    token: str
    clock: Clock
    notify: Notify
    waiting: Waiting | None = None
    names: tuple[str, ...] = ()
    lost: str | None = None

    def check(self) -> None:
        """Go on only while nobody else has taken over.

        Raises:
            TemporaryError: somebody has.
        """
        if self.lost is not None:
            raise TemporaryError(
                f"another run took over {self.store.url} ({self.lost})",
                hint="wait for it, or choose another --out; whole shards are kept",
            )

    def beat(self) -> None:
        """Renew every lease that is still ours; a store that cannot be reached now is asked again later."""
        for name in self.names:
            with suppress(TemporaryError):
                found = _read(self.store, name)
                if found is not None and found.token != self.token:
                    self.lost = found.holder
                    return
                self.store.write(name, self._content())

    def take(self, folder: str) -> FileLock:
        """Take ``folder``, and the lock that tells other processes of this machine; return the lock.

        Raises:
            BusyError: another run holds it, or a part of it that does not go with ours.
        """
        while True:
            try:
                return self._taken(folder)
            except _Busy as error:
                if self.waiting is None:
                    raise BusyError(
                        f"another evalkit run works on {self.store.url} ({error.who})",
                        hint="wait for it, or choose another --out; if it died, its lease ends after "
                        f"{STALE:.0f} seconds",
                    ) from None
                self.waiting(error.who)
                self.clock.sleep(_LOOK)

    def _taken(self, folder: str) -> FileLock:
        own = _name(self.part)
        lock = _locked(_lock_path(self.scratch, folder, own))
        try:
            while not self.store.create(f"{folder}/{own}", self._content()):
                self._free(folder, own)
            self.names = (*self.names, f"{folder}/{own}")
            # After ours is there: of two runs that begin at once at least one sees the other.
            for name in sorted(self.store.names(folder)):
                if _is_lease(name) and not _together(name, own):
                    self._free(folder, name)
        except BaseException:
            self.give_back(folder)
            lock.release()
            raise
        return lock

    def give_back(self, folder: str) -> None:
        """Remove the lease of ``folder``, if it is still ours."""
        name = f"{folder}/{_name(self.part)}"
        if name in self.names:
            self.names = tuple(other for other in self.names if other != name)
            with suppress(TemporaryError):
                if (found := _read(self.store, name)) is not None and found.token == self.token:
                    self.store.remove(name)

    def _free(self, folder: str, name: str) -> None:
        """Remove a lease that nobody renews any more.

        Raises:
            _Busy: somebody does.
        """
        path = f"{folder}/{name}"
        found = _read(self.store, path)
        if found is None:
            return
        if found.token == self.token and self._is_over_here(folder, name):
            self.store.remove(path)
            return
        if abs(self.clock.now() - found.time) > STALE:
            self.notify(
                f"{found.holder} left {self.store.url} in the middle of a run: it is taken over if nothing "
                f"is heard of it for {2 * BEAT:.0f} more seconds"
            )
            self.clock.sleep(2 * BEAT)
            if _read(self.store, path) in {None, found}:
                self.store.remove(path)
                return
        raise _Busy(found.holder)

    def _is_over_here(self, folder: str, name: str) -> bool:
        """Whether no process of this machine holds a lease that this machine took."""
        if name == _name(self.part):
            return True
        try:
            _locked(_lock_path(self.scratch, folder, name)).release()
        except _Busy:
            return False
        return True

    def _content(self) -> bytes:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        return json.dumps({"holder": holder, "token": self.token, "time": self.clock.now()}).encode()


@contextmanager
def held(
    store: ObjectStore,
    folders: Sequence[str],
    *,
    scratch: Path,
    part: str = WHOLE,
    waiting: Waiting | None = None,
    notify: Notify = lambda _text: None,
    clock: Clock | None = None,
) -> Iterator[Lease]:
    """Hold ``folders`` of ``store`` for one part of a run; ``scratch`` is this machine's copy of them.

    ``part`` and ``waiting`` are those of :meth:`evalkit.mirror.Mirror.holding`.

    Raises:
        BusyError: another run holds one of them.
    """
    lease = Lease(store, scratch, part, _token(scratch), clock or Clock(), notify, waiting)
    ended = threading.Event()
    heart = threading.Thread(target=_beating, args=(lease, ended), name="evalkit-lease", daemon=True)
    with ExitStack() as stack:
        for folder in sorted(set(folders)):
            stack.callback(lease.take(folder).release)
            stack.callback(lease.give_back, folder)
        heart.start()
        try:
            yield lease
        finally:
            ended.set()
            heart.join()


def _beating(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(BEAT) and lease.lost is None:
        lease.beat()


def _name(part: str) -> str:
    return f"{_PREFIX}{part}{_SUFFIX}"


def _is_lease(name: str) -> bool:
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def _together(name: str, other: str) -> bool:
    """Whether two leases may be held at once: parts of one division; the same part is told apart later."""
    return name == other or (_OF in name and name.partition(_OF)[2] == other.partition(_OF)[2])


def _token(scratch: Path) -> str:
    """Return what tells this folder of this machine from those of others; made once."""
    path = scratch / ".token"
    with FileLock(scratch / ".token.lock"):
        if not path.is_file():
            write_atomically(path, secrets.token_hex(16))
        return path.read_text(encoding="ascii")


def _lock_path(scratch: Path, folder: str, name: str) -> Path:
    return scratch / folder / f".{name}.lock"


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise _Busy("on this machine") from None
    return lock


def _read(store: ObjectStore, name: str) -> _Found | None:
    """Return what a lease says; None where there is none. One that makes no sense counts as very old."""
    content = store.read(name)
    if content is None:
        return None
    try:
        data = json.loads(content)
        return _Found(str(data["holder"])[:200], str(data["token"]), float(data["time"]))
    except (ValueError, KeyError, TypeError):
        return _Found("unknown", "", 0.0)
