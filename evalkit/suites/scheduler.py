"""Runs cells as processes in a few slots: waits, retries what was only busy, and stops politely. No torch.

Each cell is a process of its own: a crash, a leak or an out-of-memory kill of one loses nothing of the
others, and memory of a device is given back between them. A cell that ends with 75 beside others (two cells
that build the features of one reference want the same lock) waits until one of them is through, and at last
runs alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from evalkit.errors import TemporaryError
from evalkit.suites.facts import Cell

_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one cell runs at a time."""

    number: int
    device: str


class Process(Protocol):
    """A running cell, as :class:`subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def wait(self) -> int:
        """Wait for its end."""
        ...


Launch = Callable[[Cell, Slot], Process]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended: its exit code (negative: the signal that killed it) and its seconds.

    ``asked`` is true where the scheduler had told it to stop.
    """

    cell: Cell
    exit_code: int
    seconds: float
    asked: bool = False


@dataclass(slots=True)
class _Running:
    cell: Cell
    process: Process
    alone: bool
    began: float = field(default_factory=time.monotonic)

    def ended(self, exit_code: int, *, asked: bool = False) -> Ended:
        seconds = round(time.monotonic() - self.began, 3)
        return Ended(cell=self.cell, exit_code=exit_code, seconds=seconds, asked=asked)


@dataclass(slots=True)
class _Queue:
    """Cells that wait, and those that were busy and wait for another to end."""

    waiting: deque[Cell]
    parked: deque[Cell] = field(default_factory=deque)
    closed: bool = False

    def unpark(self) -> None:
        """Let those that were busy try again."""
        self.waiting.extend(self.parked)
        self.parked.clear()

    def next(self, *, idle: bool) -> tuple[Cell, bool] | None:
        """Return the next cell and whether it must run alone; None where there is none to start now."""
        if self.closed:
            return None
        if self.waiting:
            return self.waiting.popleft(), False
        if idle and self.parked:
            return self.parked.popleft(), True
        return None


def run_cells(
    cells: Sequence[Cell],
    *,
    slots: Sequence[Slot],
    launch: Launch,
    stop: Callable[[], int],
    fail_fast: bool = False,
    pause: float = _PAUSE,
) -> Generator[Ended]:
    """Run every cell, each in a free slot, and yield each as it ends.

    Args:
        cells: in the order to start them.
        slots: how many run at once, and where.
        launch: starts the process of a cell in a slot.
        stop: returns the number of a signal that arrived, or 0. It is passed on to the processes, which
            flush; they are yielded as ``asked``, and nothing more is started.
        fail_fast: start nothing more after a cell that failed.
        pause: seconds between two looks at the processes.
    """
    queue = _Queue(deque(cells))
    running: dict[Slot, _Running] = {}
    with _killed_at_last(running):
        while True:
            if number := stop():
                yield from _stopped(running, number, pause)
                return
            _fill(queue, running, slots, launch)
            if not running:
                return
            yield from _ended(queue, running, together=len(slots) > 1, fail_fast=fail_fast)
            time.sleep(pause)


def _fill(queue: _Queue, running: dict[Slot, _Running], slots: Sequence[Slot], launch: Launch) -> None:
    for slot in slots:
        if slot in running or any(run.alone for run in running.values()):
            continue
        chosen = queue.next(idle=not running)
        if chosen is None:
            return
        cell, alone = chosen
        running[slot] = _Running(cell, launch(cell, slot), alone)


def _ended(
    queue: _Queue, running: dict[Slot, _Running], *, together: bool, fail_fast: bool
) -> Iterator[Ended]:
    """Take away what has ended; what was only busy waits for another to end."""
    for slot, run in list(running.items()):
        code = run.process.poll()
        if code is None:
            continue
        del running[slot]
        busy = code == TemporaryError.exit_code
        if busy and together and not run.alone:
            queue.parked.append(run.cell)
            continue
        if not busy:
            queue.unpark()
        queue.closed = queue.closed or (fail_fast and code != 0)
        yield run.ended(code)


def _stopped(running: dict[Slot, _Running], number: int, pause: float) -> Iterator[Ended]:
    for run in running.values():
        run.process.send_signal(number)
    for slot, run in list(running.items()):
        # Polled, not waited for: a second signal must be able to break in.
        while (code := run.process.poll()) is None:
            time.sleep(pause)
        del running[slot]
        yield run.ended(code, asked=True)


@contextmanager
def _killed_at_last(running: dict[Slot, _Running]) -> Iterator[None]:
    """Leave no process behind, whatever ends the loop."""
    try:
        yield
    finally:
        for run in running.values():
            run.process.kill()
        for run in running.values():
            run.process.wait()
