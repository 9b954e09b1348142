"""Where a run tells how it goes. The default says nothing; the command line has bars and notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from evalkit.events import Event
from evalkit.extraction import Progress


class Console(Protocol):
    """Where a run tells how it goes; the default says nothing."""

    def note(self, text: str) -> None:
        """Show a sentence that the user must see."""
        ...

    def progress(self, title: str, total: int) -> AbstractContextManager[Progress]:
        """Show a bar of ``total`` images while the context is open."""
        ...

    def tell(self, event: Event) -> None:
        """Take an event that programs follow; people are told by notes and bars."""
        ...


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Drop the sentence."""

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:  # noqa: ARG002 - part of the protocol
        """Count for nobody."""
        yield lambda _done: None

    def tell(self, event: Event) -> None:
        """Drop the event."""
