"""Features that stay in the file of their shard, and are read from it head by head and row by row. No torch.

The offsets of a safetensors file are read by hand: the library gives runs of rows alone, and the blocks of
files take every 20th row or so of each shard.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import TemporaryError

_FLOAT = 4  # bytes
_SEEK = 16 << 10  # so many bytes are read, from the page cache, in the time that it takes to go elsewhere


class StoredFeatures(Mapping[str, NDArray[np.float32]]):
    """Head -> float32 ``[n, d]``, read when it is asked for, and not kept.

    The content was verified when the file was written or read, and is not again: a file that is named by its
    content is replaced, and never written to.

    Args:
        path: of a shard's file.

    Raises:
        TemporaryError: the file is gone, then or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                length = file.read(8)
                header = json.loads(file.read(int.from_bytes(length, "little")))
        except (OSError, ValueError) as error:
            raise _gone(path) from error
        header.pop("__metadata__", None)
        start = len(length) + int.from_bytes(length, "little")
        self._places = {head: (start + x["data_offsets"][0], tuple(x["shape"])) for head, x in header.items()}

    def shape(self, head: str) -> tuple[int, int]:
        """Return ``(n, d)`` of a head."""
        n, d = self._places[head][1]
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
        offset, (_, width) = self._places[head]
        found = np.empty((sum(map(len, runs)), width), dtype=np.float32)
        start = 0
        try:
            with self._path.open("rb", buffering=0) as file:
                for run in runs:
                    part = found[start : start + len(run)]
                    file.seek(offset + run.start * width * _FLOAT)
                    if file.readinto(part.data) != part.nbytes:
                        raise _gone(self._path)
                    start += len(run)
        except OSError as error:
            raise _gone(self._path) from error
        return found

    def __getitem__(self, head: str) -> NDArray[np.float32]:
        return self._read(head, [range(self.shape(head)[0])])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _gone(path: Path) -> TemporaryError:
    return TemporaryError(
        f"the features in {path.name} are gone: another run has replaced or removed them meanwhile",
        hint="run the same command again: whole shards are kept",
    )
