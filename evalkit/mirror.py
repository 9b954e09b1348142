"""What a run folder does beside being a folder: nothing, or mirror itself in an object store. No torch.

run(replace(request, out=folder, mirror=mirror), …)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

Waiting = Callable[[str], None]
WHOLE: Final = "whole"
"""The part of a run that is all of it."""


class Mirror(Protocol):
    """Keeps folders of shards equal to their copies elsewhere."""

    def holding(
        self,
        folders: Sequence[Path],
        *,
        part: str = WHOLE,
        fresh: bool = False,
        waiting: Waiting | None = None,
    ) -> AbstractContextManager[Callable[[], None]]:
        """Hold ``folders`` of shards for one pass; the function that is given is called after each shard.

        On entry what the copies have and the folders have not is brought; on exit what is new goes there.

        Args:
            folders: below the run folder; they need not exist.
            part: ``whole``, or ``i-of-n``: the others of ``n`` parts may hold the folders at the same time.
            fresh: forget the copies of the shards of this part instead of bringing them.
            waiting: called with the name of the holder while another run holds a folder: it waits a while,
                or raises to give up. Without it that is an error at once.

        Raises:
            TemporaryError: another run holds a folder, or the copies cannot be reached.
        """
        ...


class _NoMirror:
    """A plain folder has no copy."""

    @contextmanager
    def holding(
        self,
        folders: Sequence[Path],  # noqa: ARG002 - part of the protocol
        *,
        part: str = WHOLE,  # noqa: ARG002
        fresh: bool = False,  # noqa: ARG002
        waiting: Waiting | None = None,  # noqa: ARG002
    ) -> Iterator[Callable[[], None]]:
        yield lambda: None


NO_MIRROR: Final[Mirror] = _NoMirror()
