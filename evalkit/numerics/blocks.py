"""Blocks of rows that need not all be in memory: read piece by piece, or all at once for who needs that.

Every function takes plain arrays as well. Sums are taken over :func:`chunks_of`, whose cuts depend on nothing
but the numbers of rows, so that a value is the same to the last bit wherever the rows lie.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.arrays import Float32Array, FloatArray


class LazyBlocks(Sequence[Float32Array]):
    """Blocks of float32 rows ``[n_b, d]`` that are read when they are asked for, and not kept.

    Only what :meth:`stacked` gives is kept: one copy for all who need every row at the same time, and from
    then on whatever is read is a view of it.

    Args:
        sizes: number of rows of each block.
        width: number of columns.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        self.sizes = tuple(sizes)
        self.width = width
        self._stacked: Float32Array | None = None

    @abstractmethod
    def read(self, block: int) -> Iterator[Float32Array]:
        """Yield the rows of a block in their order, piece by piece."""

    def pieces(self, block: int) -> Iterator[Float32Array]:
        """Yield the rows of a block in their order, in pieces that are no larger than need be."""
        if self._stacked is None:
            yield from self.read(block)
        else:
            yield self[block]

    def stacked(self) -> Float32Array:
        """Return all rows, float32 ``[n, d]``, block after block; kept, and not to be written to."""
        if self._stacked is None:
            self._stacked = self._filled(range(len(self)))
        return self._stacked

    @cached_property
    def different(self) -> int:
        """Number of rows that equal no earlier row bit for bit."""
        return _different(piece for block in range(len(self)) for piece in self.pieces(block))

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, block: int) -> Float32Array: ...
    @overload
    def __getitem__(self, block: slice) -> tuple[Float32Array, ...]: ...
    def __getitem__(self, block: int | slice) -> Float32Array | tuple[Float32Array, ...]:
        numbers = range(len(self))[block]
        if not isinstance(numbers, int):
            return tuple(self[number] for number in numbers)
        if self._stacked is None:
            return self._filled([numbers])
        start = sum(self.sizes[:numbers])
        return self._stacked[start : start + self.sizes[numbers]]

    def _filled(self, blocks: Sequence[int]) -> Float32Array:
        rows = np.empty((sum(self.sizes[block] for block in blocks), self.width), dtype=np.float32)
        start = 0
        for block in blocks:
            for piece in self.read(block):
                rows[start : start + len(piece)] = piece
                start += len(piece)
        if start != len(rows):
            raise ValueError(f"{start} of {len(rows)} rows are there: not all shards have come yet")
        return rows


def sizes_of(blocks: Sequence[FloatArray]) -> tuple[int, ...]:
    """Return the number of rows of each block."""
    return blocks.sizes if isinstance(blocks, LazyBlocks) else tuple(map(len, blocks))


def widths_of(blocks: Sequence[FloatArray]) -> set[int]:
    """Return the numbers of columns that there are; -1 for what has no columns."""
    if isinstance(blocks, LazyBlocks):
        return {blocks.width}
    return {block.shape[1] if block.ndim == 2 else -1 for block in blocks}


def pieces_of(blocks: Sequence[FloatArray], block: int) -> Iterator[FloatArray]:
    """Yield the rows of one block in their order, piece by piece; an array is one piece."""
    if isinstance(blocks, LazyBlocks):
        yield from blocks.pieces(block)
    else:
        yield blocks[block]


def chunks_of(blocks: Sequence[FloatArray], chosen: Iterable[int], *, rows: int) -> Iterator[FloatArray]:
    """Yield the rows of the ``chosen`` blocks, block after block, ``rows`` at a time, the rest last."""
    kept: list[FloatArray] = []
    held = 0
    for block in chosen:
        for piece in pieces_of(blocks, block):
            start = 0
            while start < len(piece):
                part = piece[start : start + rows - held]
                kept.append(part)
                start, held = start + len(part), held + len(part)
                if held == rows:
                    yield joined(kept)
                    kept, held = [], 0
    if kept:
        yield joined(kept)


def different_rows(blocks: Sequence[FloatArray]) -> int:
    """Return the number of rows that equal no earlier row bit for bit (-0.0 and 0.0 are one number)."""
    return blocks.different if isinstance(blocks, LazyBlocks) else _different(blocks)


def _different(pieces: Iterable[FloatArray]) -> int:
    found = [_digests(piece) for piece in pieces]
    return len(np.unique(np.concatenate(found))) if found else 0


def _digests(rows: FloatArray) -> NDArray[np.uint64]:
    """8 bytes a row: of a million rows that differ, two have the same with a probability below 10^-7."""
    plain = np.add(rows, np.float32(0), order="C")
    each = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in plain)
    return np.frombuffer(b"".join(each), dtype=np.uint64)


def joined(parts: Sequence[FloatArray]) -> FloatArray:
    """Return the rows of all ``parts``; of one alone, and of one array cut into its rows, no copy is made."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].base if parts else None
    if isinstance(whole, np.ndarray) and _is_cut_into(whole, parts):
        return cast("FloatArray", whole)
    return cast("FloatArray", np.concatenate(parts))


def _is_cut_into(whole: NDArray[np.generic], parts: Sequence[FloatArray]) -> bool:
    start = whole.ctypes.data
    for part in parts:
        same = part.base is whole and part.dtype == whole.dtype and part.strides == whole.strides
        if not same or part.shape[1:] != whole.shape[1:] or (len(part) and part.ctypes.data != start):
            return False
        start += part.nbytes
    return whole.flags.c_contiguous and start == whole.ctypes.data + whole.nbytes
