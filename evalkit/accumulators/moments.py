"""Mean and covariance of features, merged by Chan's formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from evalkit.accumulators import ACCUMULATORS
from evalkit.core import Accumulator, Float64Array, FloatArray, IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.numerics.arrays import checked_features

EMPTY_WIDTH = 0  # of a state that has seen nothing and so does not know its dimension


@ACCUMULATORS.register("moments")
class MomentsAccumulator(Accumulator):
    """Count, mean and centred second moment ``M2 = sum (x - mean)(x - mean)^T`` in float64.

    Merge (Chan, Golub & LeVeque 1979, eq. 2.1), with ``delta = mean_b - mean_a``::

        mean = mean_a + delta n_b / n
        M2   = M2_a + M2_b + delta delta^T n_a n_b / n

    The relative error is about eps for centred features and grows like the offset over the spread; with sums
    of raw products it grows like the square of that.
    """

    name: ClassVar[str] = "moments"

    def __init__(self) -> None:
        self._count = 0
        self._mean: Float64Array = np.zeros(EMPTY_WIDTH)
        self._m2: Float64Array = np.zeros((EMPTY_WIDTH, EMPTY_WIDTH))

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
        return self._m2 / (self._count - 1)

    def update(self, x: FloatArray, index: IndexArray) -> None:
        """Add feature vectors ``x`` ``[n, d]``; their ``index`` ``[n]`` does not matter here.

        Raises:
            InvalidInputError: shapes disagree, or a value is not finite.
        """
        if len(x) != len(index):
            raise InvalidInputError(f"{len(x)} feature vectors came with {len(index)} indices")
        if len(x) == 0:
            return
        wide = checked_features(x, "features", minimum=1).astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        self._add(len(wide), mean, wide.T @ wide)

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed.

        Raises:
            InvalidInputError: the feature dimensions differ.
        """
        if other._count:
            self._add(other._count, other._mean, other._m2)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return count int64 ``[]``, mean float64 ``[d]`` and m2 float64 ``[d, d]``."""
        return {"count": np.asarray(self._count), "mean": self._mean.copy(), "m2": self._m2.copy()}

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
        rebuilt._count, rebuilt._mean, rebuilt._m2 = count, mean, m2
        return rebuilt

    def _add(self, count: int, mean: Float64Array, m2: Float64Array) -> None:
        if self._count == 0:
            self._count, self._mean, self._m2 = count, mean.copy(), m2.copy()
            return
        if mean.shape != self._mean.shape:
            raise InvalidInputError(f"features have {len(mean)} dimensions, not {len(self._mean)} as before")
        total = self._count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._m2 = self._m2 + m2 + np.outer(delta, delta) * (self._count * count / total)
        self._count = total


def moments_of(blocks: Sequence[FloatArray]) -> MomentsAccumulator:
    """Return the moments of all rows of ``blocks``, folded in order."""
    moments = MomentsAccumulator()
    for block in blocks:
        moments.update(block, np.arange(len(block), dtype=np.int64))
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
