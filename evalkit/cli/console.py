"""What a running command shows on stderr: notes, progress bars, events, and a polite answer to signals."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType
from typing import Self

import click
from tqdm import tqdm

from evalkit.cli.event_log import EventLog
from evalkit.errors import EvalkitError
from evalkit.events import Event, Note
from evalkit.extraction import Progress


class StderrConsole:
    """Notes and bars on stderr; bars on a terminal only. Warnings of libraries are kept off the screen.

    With a ``log`` every event goes there, and where that is stderr itself nothing else does: an error that
    ends the command is its last event then, and not text.
    """

    def __init__(self, log: EventLog | None = None) -> None:
        self._filters = ExitStack()
        self._told: set[str] = set()
        self._log = log
        self._alone = log is not None and log.on_stderr

    def __enter__(self) -> Self:
        self._filters.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._filters.close()
        if self._log is None:
            return
        if isinstance(error, EvalkitError | KeyboardInterrupt):
            self._log.failed(error)
        self._log.close()
        if self._alone and isinstance(error, EvalkitError):
            raise click.exceptions.Exit(error.exit_code) from error

    def note(self, text: str) -> None:
        """Print one sentence, once."""
        if text not in self._told:
            self._told.add(text)
            self.tell(Note(level="warning" if text.startswith("warning") else "info", text=text))
            if not self._alone:
                click.echo(f"evalkit: {text}", err=True)

    def tell(self, event: Event) -> None:
        """Write an event to the log, where there is one."""
        if self._log is not None and (problem := self._log.write(event)):
            click.echo(f"evalkit: warning: {problem}; the run goes on without its log", err=True)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """Show a bar of images with the rate and the time left."""
        with tqdm(
            total=total, desc=title, unit="img", file=sys.stderr, disable=self._alone or None,
            dynamic_ncols=True,
        ) as bar:  # fmt: skip

            def advance(done: int) -> None:
                bar.update(done)

            yield advance


@contextmanager
def signals(*, silent: bool = False) -> Iterator[Callable[[], int]]:
    """Give a function that returns the first SIGINT or SIGTERM that arrived, or 0; a second one kills.

    ``silent`` where text has no place on stderr.
    """
    arrived: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)
        if not silent:
            click.echo("\nevalkit: stopping after this batch (once more to stop now)", err=True)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: arrived[0] if arrived else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
