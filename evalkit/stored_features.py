"""Features that stay in the file of their shard, and are read from it head by head and row by row. No torch.

The offsets of a safetensors file are read by hand: the library gives runs of rows alone, and the blocks of
files take every 20th row or so of each shard.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import TemporaryError

HASH_LENGTH: Final = 32
"""Digits of a SHA-256 in the name of a file."""
_FLOAT = 4  # bytes
_SEEK = 16 << 10  # so many bytes are read, from the page cache, in the time that it takes to go elsewhere


class _File(NamedTuple):
    """A shard's file, and of each head where it begins there and its shape."""

    path: Path
    places: Mapping[str, tuple[int, tuple[int, ...]]]


class StoredFeatures(Mapping[str, NDArray[np.float32]]):
    """Head -> float32 ``[n, d]``, read when it is asked for, and not kept.

    The content was verified when the file was written or read, and is not again: a file that is named by its
    content is replaced, and never written to. One that another run replaces meanwhile, for more heads of the
    same images, is followed.

    Args:
        path: of a shard's file.

    Raises:
        TemporaryError: the file is gone, then or later.
    """

    def __init__(self, path: Path) -> None:
        try:
            # One attribute: a thread that follows must not give another one places of another file.
            self._file = _File(path, _places(path))
        except (OSError, ValueError) as error:
            raise _gone(path) from error

    def shape(self, head: str) -> tuple[int, int]:
        """Return ``(n, d)`` of a head."""
        n, d = self._file.places[head][1]
        return n, d

    def rows(self, head: str, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the ``chosen`` rows of a head, in ascending order, float32 ``[m, d]``.

        Raises:
            TemporaryError: the file is gone.
        """
        width = self.shape(head)[1]
        if not len(chosen):
            return np.empty((0, width), dtype=np.float32)
        edges = [0, *(np.flatnonzero(np.diff(chosen) != 1) + 1).tolist(), len(chosen)]
        first, last = int(chosen[0]), int(chosen[-1])
        if (last + 1 - first) * width * _FLOAT <= (len(edges) - 1) * _SEEK:
            return self._read(head, [range(first, last + 1)])[chosen - first]
        runs = itertools.pairwise(edges)
        return self._read(head, [range(int(chosen[a]), int(chosen[b - 1]) + 1) for a, b in runs])

    def _read(self, head: str, runs: Sequence[range]) -> NDArray[np.float32]:
        """Return runs of neighbouring rows, one after the other."""
        ours = self._file
        try:
            try:
                file = ours.path.open("rb", buffering=0)
            except FileNotFoundError:
                self._follow(head)
                ours = self._file
                file = ours.path.open("rb", buffering=0)
            offset, (_, width) = ours.places[head]
            found = np.empty((sum(map(len, runs)), width), dtype=np.float32)
            start = 0
            with file:
                for run in runs:
                    file.seek(offset + run.start * width * _FLOAT)
                    _fill(file, found[start : start + len(run)], path=ours.path)
                    start += len(run)
        except OSError as error:
            raise _gone(ours.path) from error
        return found

    def _follow(self, head: str) -> None:
        """Go on with the file of the same shard that another run put in the place of ours, for more heads."""
        ours, shape = self._file.path, self.shape(head)
        number = ours.name.partition("-")[0]
        for path in sorted(ours.parent.glob(f"{number}-*{ours.suffix}")):
            with suppress(OSError, ValueError):
                places = _places(path)
                if head in places and places[head][1] == shape and is_named_by(path.read_bytes(), path):
                    self._file = _File(path, places)
                    return

    def __getitem__(self, head: str) -> NDArray[np.float32]:
        return self._read(head, [range(self.shape(head)[0])])

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.places)

    def __len__(self) -> int:
        return len(self._file.places)


def _fill(file: RawIOBase, rows: NDArray[np.float32], *, path: Path) -> None:
    """Read ``rows`` from where the file stands; a system may give less at once than is asked for."""
    view = rows.reshape(-1).view(np.uint8).data
    while len(view):
        count = file.readinto(view)
        if not count:
            raise _gone(path)
        view = view[count:]


def is_named_by(content: bytes, path: Path) -> bool:
    """Whether the digest in the name of a shard's file is that of its content."""
    return hashlib.sha256(content).hexdigest()[:HASH_LENGTH] == path.stem.partition("-")[2]


def _places(path: Path) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where each head begins in a file, and its shape."""
    with path.open("rb") as file:
        length = file.read(8)
        header = json.loads(file.read(int.from_bytes(length, "little")))
    header.pop("__metadata__", None)
    start = len(length) + int.from_bytes(length, "little")
    return {head: (start + x["data_offsets"][0], tuple(x["shape"])) for head, x in header.items()}


def _gone(path: Path) -> TemporaryError:
    return TemporaryError(
        f"the features in {path.name} are gone: another run has replaced or removed them meanwhile",
        hint="run the same command again: whole shards are kept",
    )
