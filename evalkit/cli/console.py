"""What a running command shows on stderr: notes, progress bars, and a polite answer to signals."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Self

import click
from tqdm import tqdm

from evalkit.extraction import Progress


class StderrConsole:
    """Notes and bars on stderr; bars on a terminal only. Warnings of libraries are kept off the screen."""

    def __init__(self) -> None:
        self._filters = ExitStack()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._filters.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        return self

    def __exit__(self, *_details: object) -> None:
        self._filters.close()

    def note(self, text: str) -> None:
        """Print one sentence, once."""
        if text not in self._told:
            click.echo(f"evalkit: {text}", err=True)
        self._told.add(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """Show a bar of images with the rate and the time left."""
        with tqdm(
            total=total, desc=title, unit="img", file=sys.stderr, disable=None, dynamic_ncols=True
        ) as bar:

            def advance(done: int) -> None:
                bar.update(done)

            yield advance


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Give a function that returns the first SIGINT or SIGTERM that arrived, or 0; a second one kills."""
    arrived: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)
        click.echo("\nevalkit: stopping after this batch (once more to stop now)", err=True)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: arrived[0] if arrived else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
