"""An engine that runs every call in this process, as another would get it: pickled, and out of order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.executors import worker
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

loads = ForkingPickler.loads
TOY = "evalkit.generators.toy:make"


def dumps(value: object) -> bytes:
    return bytes(ForkingPickler.dumps(value))


class Here:
    """An :class:`evalkit.executors.engine.Engine`; the call that was submitted last ends first."""

    def __init__(self, *, room: int = 2) -> None:
        self.room = room
        self.kept: dict[str, bytes] = {}
        self.calls: dict[int, bytes] = {}
        self.asked: list[Any] = []
        self.most_waiting = 0
        self.cancelled: list[Hashable] = []
        self.before: Callable[[], None] = lambda: None
        self._numbers = itertools.count()

    @property
    def fetch(self) -> Callable[[Any], Any]:
        return _Fetch(dict(self.kept))

    def submit(self, function: Callable[..., Any], *arguments: object) -> Hashable:
        resolved = [self._value(argument) for argument in arguments]
        number = next(self._numbers)
        self.asked.append(resolved)
        self.calls[number] = dumps((function, resolved))
        self.most_waiting = max(self.most_waiting, len(self.calls))
        return number

    def put(self, value: object) -> object:
        key = f"kept-{len(self.kept)}"
        self.kept[key] = dumps(value)
        return key

    def _value(self, argument: object) -> object:
        return loads(self.kept[argument]) if isinstance(argument, str) and argument in self.kept else argument

    def ready(self, calls: Iterable[Hashable], seconds: float) -> list[Hashable]:
        return sorted(calls, reverse=True)[:1]

    def result(self, call: Hashable) -> Any:
        self.before()
        function, arguments = loads(self.calls.pop(call))
        return loads(dumps(function(*arguments)))

    def cancel(self, call: Hashable) -> None:
        self.cancelled.append(call)

    def slots(self) -> int:
        return self.room


class _Fetch:
    """Gives what was kept, in the process of a call."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self.kept = kept

    def __call__(self, key: str) -> Any:
        return loads(self.kept[key])


@pytest.fixture(autouse=True)
def _nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each test is a new worker, on a machine with an empty cache."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    worker._open.clear()
    yield
    worker._open.clear()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    images = GaussianTiles().generate(image_seeds(7, np.arange(500))).numpy()
    write_samples(path, images, labels=None)
    return path
