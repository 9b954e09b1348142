"""Where a run works: the folder that ``--out`` names, or this machine's folder for a URL. No torch.

with opened("s3://bucket/runs", notify=console.note) as folder:
    run(replace(request, out=folder.path, mirror=folder.mirror), …)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import TemporaryError
from evalkit.mirror import NO_MIRROR, Mirror
from evalkit.object_stores.lease import Clock, Notify
from evalkit.object_stores.remote_folder import RemoteFolder
from evalkit.object_stores.store import is_url


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run works.

    Attributes:
        path: the folder to write to.
        remote: whose working copy it is, where it is one.
    """

    path: Path
    remote: RemoteFolder | None = None

    @property
    def mirror(self) -> Mirror:
        """What keeps the state equal to that of the store."""
        return self.remote or NO_MIRROR

    def place(self, name: str) -> str:
        """Return where people find a file of the run; a URL is shown without credentials."""
        return f"{self.remote.store.url}/{name}" if self.remote else str(self.path / name)

    def read(self, name: str) -> str | None:
        """Return the text of a file of the run, or None where there is none.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        path = self.path / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
        content = self.remote.store.read(name) if self.remote else None
        return None if content is None else content.decode()

    def fetch(self) -> Path:
        """Bring all shards, and what the parts of a run say of themselves; return the folder.

        Raises:
            TemporaryError: the store cannot be reached.
        """
        if self.remote is not None:
            self.remote.pull_everything()
        return self.path


@contextmanager
def opened(
    out: str | Path, *, notify: Notify = lambda _text: None, clock: Clock | None = None
) -> Iterator[RunFolder]:
    """Give the folder that ``out`` names: a local one as it is, or the working copy of a URL.

    Raises:
        UsageError: a URL of a kind that is not known or not installed.
        TemporaryError: on leaving, what the run made could not be sent; it is kept here.
    """
    if not is_url(str(out)):
        yield RunFolder(Path(out))
        return
    remote = RemoteFolder.at(str(out), notify=notify, clock=clock)
    try:
        yield RunFolder(remote.path, remote)
    except BaseException:
        with suppress(TemporaryError):
            remote.finish(tries=1)
        raise
    remote.finish()
