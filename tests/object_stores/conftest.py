"""Machines that share one store in memory: each with a cache, and so a working copy, of its own."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from evalkit.object_stores import RemoteFolder
from evalkit.object_stores.lease import Clock


def shard(number: int, content: bytes) -> tuple[str, bytes]:
    """Return name and bytes of a file as shards are named."""
    return f"{number:06d}-{hashlib.sha256(content).hexdigest()[:32]}.safetensors", content


class Machine:
    """One machine: its folder for a URL, what it was told, and its clock, which stands still."""

    def __init__(self, cache: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.time = 1_000_000.0
        self.slept: list[float] = []
        self.while_asleep: Callable[[], None] = lambda: None
        self._cache, self._url, self._monkeypatch = cache, url, monkeypatch

    def folder(self) -> RemoteFolder:
        """As a new process of this machine has it."""
        self._monkeypatch.setenv("EVALKIT_CACHE", str(self._cache))
        return RemoteFolder.at(self._url, notify=self.told.append, clock=self.clock)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self.while_asleep()

    def put(self, folder: RemoteFolder, number: int, content: bytes, *, key: str = "key") -> Path:
        """Make a shard as a run does."""
        name, content = shard(number, content)
        path = folder.path / "state" / key / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'store'}"
        return
    root = f"memory://{uuid.uuid4().hex}/runs"
    yield root
    memory = fsspec.filesystem("memory")
    if memory.exists(root):
        memory.rm(root, recursive=True)


@pytest.fixture
def machine(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "cache-1", url, monkeypatch)


@pytest.fixture
def other(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "cache-2", url, monkeypatch)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, folder: RemoteFolder, message: str) -> Iterator[list[str]]:
    """Let every write to the store of ``folder`` fail; give the paths that were tried."""
    tried: list[str] = []

    def refuse(path: str, *_values: object, **_options: object) -> None:
        tried.append(path)
        raise OSError(message)

    with monkeypatch.context() as patch:
        patch.setattr(folder.store.filesystem, "pipe_file", refuse)
        yield tried
