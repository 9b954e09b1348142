"""Mean and covariance of features, merged by Chan's formula."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from evalkit.accumulators import ACCUMULATORS
from evalkit.core import Accumulator, Float64Array, FloatArray, IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.numerics.arrays import checked_features
from evalkit.numerics.blocks import chunks_of

EMPTY_WIDTH = 0  # of a state that has seen nothing and so does not know its dimension
# Rows of one symmetric update: enough to hide the traffic of the d x d sum, few enough to stay in the cache.
CHUNK = 1024
# Rows that stay in a core's cache while they are centred and summed.
_PIECE = 32
_TILE = 256


@ACCUMULATORS.register("moments")
class MomentsAccumulator(Accumulator):
    """Count, mean and centred second moment ``M2 = sum (x - mean)(x - mean)^T`` in float64.

    Merge (Chan, Golub & LeVeque 1979, eq. 2.1), with ``delta = mean_b - mean_a``::

        mean = mean_a + delta n_b / n
        M2   = M2_a + M2_b + delta delta^T n_a n_b / n

    The relative error is about eps for centred features and grows like the offset over the spread; with sums
    of raw products it grows like the square of that.

    A chunk of m rows, no more than the n seen, is centred by their mean, which saves a pass; with ``s`` the
    sum of the centred rows ``y``, and N = n + m::

        mean = mean_a + s / N
        M2   = M2_a + sum y y^T - s s^T / N

    of which the last term is at most m / N of the one before, so that no more than a factor of 2 cancels.
    Cost: n d^2 operations in symmetric updates (BLAS dsyrk) of one triangle in place; the other is filled
    when it is read. Memory: d^2 and one chunk in float64, whatever n.
    """

    name: ClassVar[str] = "moments"

    def __init__(self) -> None:
        self._count = 0
        self._mean: Float64Array = np.zeros(EMPTY_WIDTH)
        # Fortran order; what lies above the diagonal means nothing until it is filled.
        self._m2: Float64Array = np.zeros((EMPTY_WIDTH, EMPTY_WIDTH), order="F")
        self._room: Float64Array = np.empty((0, EMPTY_WIDTH))

    @property
    def count(self) -> int:
        """Number of vectors seen."""
        return self._count

    @property
    def mean(self) -> Float64Array:
        """Mean float64 ``[d]``.

        Raises:
            NothingMeasuredError: nothing was seen yet.
        """
        if self._count == 0:
            raise NothingMeasuredError("there are no features to take moments of")
        return self._mean

    @property
    def covariance(self) -> Float64Array:
        """Covariance float64 ``[d, d]`` with divisor n - 1.

        Raises:
            NothingMeasuredError: nothing was seen yet.
            InvalidInputError: only one vector was seen.
        """
        if self._count == 0:
            raise NothingMeasuredError("there are no features to take moments of")
        if self._count < 2:
            raise InvalidInputError("a covariance needs at least 2 feature vectors, not 1")
        _fill(self._m2)
        return self._m2.T / (self._count - 1)  # symmetric, and so C-ordered

    def update(self, x: FloatArray, index: IndexArray) -> None:
        """Add feature vectors ``x`` ``[n, d]``; their ``index`` ``[n]`` does not matter here.

        Raises:
            InvalidInputError: shapes disagree, or a value is not finite.
        """
        if len(x) != len(index):
            raise InvalidInputError(f"{len(x)} feature vectors came with {len(index)} indices")
        if len(x) == 0:
            return
        rows = checked_features(x, "features", minimum=1)
        if self._count and rows.shape[1] != len(self._mean):
            raise InvalidInputError(
                f"features have {rows.shape[1]} dimensions, not {len(self._mean)} as before"
            )
        for start in range(0, len(rows), CHUNK):
            self._fold(rows[start : start + CHUNK])

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed.

        Raises:
            InvalidInputError: the feature dimensions differ.
        """
        if other._count:
            self._add(other._count, other._mean, other._m2)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return count int64 ``[]``, mean float64 ``[d]`` and m2 float64 ``[d, d]``."""
        _fill(self._m2)
        return {"count": np.asarray(self._count), "mean": self._mean.copy(), "m2": self._m2.T.copy()}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            InvalidInputError: an array is missing, of the wrong shape or not finite.
        """
        try:
            count, mean, m2 = int(state["count"]), np.array(state["mean"]), np.array(state["m2"])
        except KeyError as error:
            raise InvalidInputError(f"moments state lacks {error}") from error
        if mean.dtype != np.float64 or m2.dtype != np.float64 or m2.shape != (*mean.shape, *mean.shape):
            raise InvalidInputError("moments state must be float64 mean [d] and m2 [d, d]")
        if count < 0 or not (np.isfinite(mean).all() and np.isfinite(m2).all()):
            raise InvalidInputError("moments state is not finite")
        rebuilt = cls()
        rebuilt._count, rebuilt._mean, rebuilt._m2 = count, mean, np.asfortranarray(m2)
        return rebuilt

    def _fold(self, chunk: FloatArray) -> None:
        """Add a few rows ``[m, d]``."""
        if self._count < len(chunk):
            mean = chunk.mean(axis=0, dtype=np.float64)
            self._add(len(chunk), mean, _updated(None, chunk - mean))
            return
        centred, moved = self._centred(chunk)
        total = self._count + len(chunk)
        self._m2 = _updated(self._m2, centred)
        self._m2 = _updated(self._m2, moved[None] / np.sqrt(total), sign=-1.0)
        self._mean = self._mean + moved / total
        self._count = total

    def _centred(self, chunk: FloatArray) -> tuple[Float64Array, Float64Array]:
        """Return ``chunk - mean``, valid until the next call, and its sum over the rows."""
        if len(self._room) < len(chunk):
            self._room = np.empty(chunk.shape)
        moved, centred = np.zeros(chunk.shape[1]), self._room[: len(chunk)]
        for start in range(0, len(chunk), _PIECE):
            piece = centred[start : start + _PIECE]
            piece[:] = chunk[start : start + _PIECE]
            piece -= self._mean
            moved += piece.sum(axis=0)
        return centred, moved

    def _add(self, count: int, mean: Float64Array, m2: Float64Array) -> None:
        if self._count == 0:
            self._count, self._mean, self._m2 = count, mean.copy(), m2.copy(order="F")
            return
        if mean.shape != self._mean.shape:
            raise InvalidInputError(f"features have {len(mean)} dimensions, not {len(self._mean)} as before")
        total = self._count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._m2 += m2
        self._m2 = _updated(self._m2, delta[None] * np.sqrt(self._count * count / total))
        self._count = total


def _updated(m2: Float64Array | None, rows: Float64Array, *, sign: float = 1.0) -> Float64Array:
    """Add ``sign * rows^T rows`` to the lower triangle of ``m2`` in place; of None, start from zero."""
    across = np.ascontiguousarray(rows, dtype=np.float64).T
    if m2 is None:
        return np.asarray(blas.dsyrk(sign, across, lower=1))
    return np.asarray(blas.dsyrk(sign, across, beta=1.0, c=m2, lower=1, overwrite_c=1))


def _fill(m2: Float64Array) -> None:
    """Copy what lies below the diagonal to above it."""
    for start in range(0, len(m2), _TILE):
        stop = start + _TILE
        square = m2[start:stop, start:stop]
        square[...] = np.tril(square) + np.tril(square, -1).T
        m2[start:stop, stop:] = m2[stop:, start:stop].T


def moments_of(blocks: Sequence[FloatArray], *, without: Container[int] = ()) -> MomentsAccumulator:
    """Return the moments of all rows of ``blocks`` but those ``without``, folded in order, chunk by chunk."""
    moments = MomentsAccumulator()
    for block in range(len(blocks)):
        if block not in without:
            for chunk in chunks_of(blocks, [block], rows=CHUNK):
                moments.update(chunk, np.arange(len(chunk), dtype=np.int64))
    return moments


def moments_without_blocks(blocks: Sequence[FloatArray]) -> Iterator[MomentsAccumulator]:
    """Yield the moments without each block, in block order.

    By halving: what lies outside one half is merged once for all blocks in it. Nothing is subtracted, so
    nothing cancels; ``log2(blocks)`` accumulators are alive at a time and each row is read as many times.
    """
    yield from _without(blocks, MomentsAccumulator())


def _without(blocks: Sequence[FloatArray], outside: MomentsAccumulator) -> Iterator[MomentsAccumulator]:
    if len(blocks) == 1:
        yield outside
        return
    middle = len(blocks) // 2
    for inner, outer in ((blocks[:middle], blocks[middle:]), (blocks[middle:], blocks[:middle])):
        rest = moments_of(outer)
        rest.merge(outside)
        yield from _without(inner, rest)
