"""What an executor needs of an engine that runs functions elsewhere, and the loop that keeps it busy.

Tasks are pulled: only some more than there is room for are handed over, so that a fast worker takes more of
them, a worker that joins takes some, and what came back never piles up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

Item = TypeVar("Item")
_LOOK_S: Final = 0.2
_AHEAD: Final = 2


class Engine(Protocol):
    """Runs functions of this package on other processes."""

    @property
    def fetch(self) -> Callable[[Any], Any]:
        """What gives, in a call, the value of something that was :meth:`put`."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: object) -> Hashable:
        """Start a call; it begins again where its worker or its node dies."""
        ...

    def put(self, value: object) -> object:
        """Keep a value that many calls are given; one that is an argument by itself arrives as the value."""
        ...

    def ready(self, calls: Iterable[Hashable], seconds: float) -> list[Hashable]:
        """Return the calls that ended, having waited for one of them up to ``seconds``."""
        ...

    def result(self, call: Hashable) -> Any:  # noqa: ANN401 - whatever the function returned
        """Return what a call that ended gave.

        Raises:
            TemporaryError: its workers kept dying.
            EvalkitError: the function raised it.
        """
        ...

    def cancel(self, call: Hashable) -> None:
        """Interrupt a call as SIGINT does."""
        ...

    def slots(self) -> int:
        """Return how many calls run at once, as the engine is now."""
        ...


def in_turn(
    engine: Engine, waiting: deque[Item], submit: Callable[[Item], Hashable], *, stop: Callable[[], int]
) -> Iterator[tuple[Item, Any]]:
    """Call ``submit`` for every item, and yield each with its result as it comes.

    Whoever iterates may append to ``waiting`` meanwhile. Where ``stop`` gives the number of a signal, what
    has come is still yielded, and the rest is cancelled.

    Raises:
        EvalkitError: a call raised it; the others are cancelled.
    """
    running: dict[Hashable, Item] = {}
    try:
        while waiting or running:
            stopped = stop() != 0
            room = _AHEAD * max(engine.slots(), 1) if waiting and not stopped else 0
            while waiting and len(running) < room:
                item = waiting.popleft()
                running[submit(item)] = item
            for call in engine.ready(running, 0.0 if stopped else _LOOK_S):
                yield running.pop(call), engine.result(call)
            if stopped:
                return
    finally:
        for call in running:
            engine.cancel(call)
