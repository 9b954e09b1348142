"""A run folder in an object store, and the folder of this machine that is kept equal to it. No torch.

The folder of this machine lies in the per-user cache, one for each URL; it stays, so that a run continues
without bringing its shards again. Whole shards go up as they are made; a store that does not answer is asked
again after each shard and at the end, and the run computes on meanwhile. A shard is known whole by its name,
which holds the digest of its content. Records go up at the end, and those of a run that could not send its
own go with the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock

from evalkit.assets import cache_folder
from evalkit.atomic import write_atomically
from evalkit.errors import TemporaryError
from evalkit.mirror import WHOLE, Waiting
from evalkit.object_stores import shard_names
from evalkit.object_stores.lease import Clock, Lease, Notify, held
from evalkit.object_stores.store import ObjectStore

_STATE: Final = "state"
_SMALL: Final = ("parts", "progress")
"""Folders of small files that go up as they change."""
_TRIES: Final = (0.0, 1.0, 4.0, 15.0)
"""Seconds before each attempt of the last push."""


def scratch_folder(url: str) -> Path:
    """Return the folder of this machine for a URL (shown without credentials), made where it is missing."""
    folder = cache_folder() / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / "url.txt", f"{url}\n")
    return folder


@dataclass(slots=True)
class RemoteFolder:
    """The working copy of one URL; a :class:`~evalkit.mirror.Mirror`.

    Attributes:
        known: names of shards that the store has, as far as we saw, by folder.
        parts: which part of each folder is computed here; the shards of others are others' to send.
        sent: small files as the store has them.
    """

    store: ObjectStore
    path: Path
    notify: Notify
    clock: Clock
    known: dict[Path, set[str]] = field(default_factory=dict)
    parts: dict[Path, str] = field(default_factory=dict)
    sent: dict[Path, bytes] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str, *, notify: Notify = lambda _text: None, clock: Clock | None = None) -> RemoteFolder:
        """Return the working copy of ``url``.

        Raises:
            UsageError: a URL of a kind that is not known or not installed.
        """
        store = ObjectStore.of_url(url)
        remote = cls(store, scratch_folder(store.url), notify, clock or Clock())
        # What earlier runs left was theirs to send: another machine may have told more since.
        remote.sent = {path: path.read_bytes() for path in remote.small_files()}
        return remote

    def small_files(self) -> list[Path]:
        """Return what parts and dashboards read."""
        return sorted(path for folder in _SMALL for path in (self.path / folder).glob("*.json"))

    @contextmanager
    def holding(
        self,
        folders: Sequence[Path],
        *,
        part: str = WHOLE,
        fresh: bool = False,
        waiting: Waiting | None = None,
    ) -> Iterator[Callable[[], None]]:
        """Hold folders of shards for one pass; see :class:`~evalkit.mirror.Mirror`."""
        with held(
            self.store,
            [self._name(folder) for folder in folders],
            scratch=self.path,
            part=part,
            waiting=waiting,
            notify=self.notify,
            clock=self.clock,
        ) as lease:
            for folder in folders:
                self.parts[folder] = part
                if fresh:
                    self.forget(folder, part)
                else:
                    self.pull(folder)
            try:
                yield lambda: self._push_softly(folders, lease)
            except BaseException:
                with suppress(TemporaryError):
                    self._push_softly(folders, lease)
                raise
            self._push_softly(folders, lease)

    def pull(self, folder: Path) -> None:
        """Make ``folder`` what the store has, and what was computed here and never sent.

        Whole shards that it lacks are brought; damaged ones are removed there, to be computed again. Removed
        here is what another machine has replaced or removed there.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        name, stored = self._name(folder), shard_names.stored_in(folder)  # read first: others push meanwhile
        changes = shard_names.compared(
            there=self._shards(folder), here=shard_names.shards_in(folder), stored=stored
        )
        for found in changes.old:
            (folder / found).unlink(missing_ok=True)
        known = set(changes.known)
        for path, content in self.store.read_all([f"{name}/{found}" for found in sorted(changes.missing)]):
            found = path.rpartition("/")[2]
            if shard_names.is_whole(found, content):
                write_atomically(folder / found, content)
                known.add(found)
            else:
                self.notify(f"state file {self.store.url}/{path} was damaged and is computed again")
                self.store.remove(path)
        shard_names.note_stored(folder, known - stored)
        self.known[folder] = known

    def forget(self, folder: Path, part: str) -> None:
        """Remove the shards of a part from the store; those of this machine are its run's to remove.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        for found in sorted(self._shards(folder)):
            if shard_names.owns(part, found):
                self.store.remove(f"{self._name(folder)}/{found}")
        self.known[folder] = set()

    def pull_everything(self) -> None:
        """Bring every shard, and the small files that say what they are of.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        for name in sorted(self.store.folders(_STATE)):
            self.pull(self.path / _STATE / name)
        for folder in _SMALL:
            names = [
                f"{folder}/{name}" for name in sorted(self.store.names(folder)) if name.endswith(".json")
            ]
            for name, content in self.store.read_all(names):
                write_atomically(self.path / name, content)
                self.sent[self.path / name] = content

    def push(self, folder: Path) -> None:
        """Send the shards of the part at hand that the store lacks; remove there what this machine replaced.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        name, part = self._name(folder), self.parts.get(folder, WHOLE)
        known = self.known.setdefault(folder, set())
        here = {shard for shard in shard_names.shards_in(folder) if shard_names.owns(part, shard)}
        for missing in sorted(here - known):
            with suppress(FileNotFoundError):  # another part of this machine replaced it meanwhile
                self.store.write(f"{name}/{missing}", (folder / missing).read_bytes())
                known.add(missing)
                shard_names.note_stored(folder, [missing])
        for replaced in sorted(shard for shard in known - here if shard_names.owns(part, shard)):
            self.store.remove(f"{name}/{replaced}")
            known.discard(replaced)

    def push_small(self) -> None:
        """Send the small files that changed.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        for path in self.small_files():
            with suppress(FileNotFoundError):  # its run ended meanwhile
                content = path.read_bytes()
                if self.sent.get(path) != content:
                    self.store.write(self._name(path), content)
                    self.sent[path] = content

    def finish(self, *, tries: int | None = None) -> None:
        """Send what is still here alone: shards, then records.

        Raises:
            TemporaryError: the store does not take it; everything is kept here.
        """
        pauses = _TRIES[:tries]
        for attempt, pause in enumerate(pauses, start=1):
            self.clock.sleep(pause)
            try:
                for folder in self.known:
                    self.push(folder)
                self.push_small()
                self._push_records()
            except TemporaryError as error:
                if attempt == len(pauses):
                    raise TemporaryError(
                        f"{error.message}; what it lacks is kept in {self.path}",
                        hint="run the same command again when the store answers: nothing is computed twice",
                    ) from error
            else:
                return

    def _push_softly(self, folders: Sequence[Path], lease: Lease) -> None:
        """Send what is new; a store that does not take it now is asked again later."""
        lease.check()
        try:
            for folder in folders:
                self.push(folder)
            self.push_small()
        except TemporaryError as error:
            self.notify(f"warning: {error.message}; tried again later")

    def _push_records(self) -> None:
        """Send records and take them off this machine: what is here has not been sent."""
        sending = self.path / ".sending"
        sending.mkdir(exist_ok=True)
        with FileLock(self.path / ".sending.lock"):
            # Taken by a rename: whoever still writes this record makes a new file, and sends it after us.
            for path in sorted(self.path.glob("*.json")):
                path.replace(sending / path.name)
            for path in sorted(sending.glob("*.json")):
                self.store.write(path.name, path.read_bytes())
                path.unlink()

    def _shards(self, folder: Path) -> set[str]:
        return {name for name in self.store.names(self._name(folder)) if shard_names.is_shard(name)}

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.path).as_posix()
