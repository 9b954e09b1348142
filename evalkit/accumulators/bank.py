"""The features themselves, with their global indices; capped without caring about order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from evalkit.accumulators import ACCUMULATORS
from evalkit.core import Accumulator, FloatArray, IndexArray
from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import checked_features

NO_CAPACITY = -1  # how "keep everything" is written in a state


def index_priority(index: IndexArray) -> NDArray[np.uint64]:
    """Hash global indices, uint64 ``[n]``: the finaliser of SplitMix64 (Steele, Lea & Flood 2014).

    A bijection of 64-bit words, so that distinct indices never tie.
    """
    z = index.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@ACCUMULATORS.register("bank")
class FeatureBank(Accumulator):
    """Feature vectors by global index; beyond ``capacity``, those of the lowest :func:`index_priority` stay.

    Which vectors stay so depends on nothing but the set of indices seen, not on order, shards or merges, and
    they are spread evenly over the indices (classes often come in index order). Vectors are kept sorted by
    index: equal sets give equal states, bit for bit.

    Args:
        capacity: most vectors to keep; None keeps all.
        dtype: float32, or float16 for half the memory (values beyond 65504 are refused).
    """

    name: ClassVar[str] = "bank"

    def __init__(self, capacity: int | None = None, dtype: DTypeLike = np.float32) -> None:
        if capacity is not None and capacity < 1:
            raise InvalidInputError(f"a feature bank needs a capacity of 1 or more, not {capacity}")
        self._dtype = np.dtype(dtype)
        if self._dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
            raise InvalidInputError(f"a feature bank keeps float16 or float32, not {self._dtype}")
        self._capacity = capacity
        self._count = 0
        self._kept = 0
        # Sorted into one part only when read or when twice over capacity: updates stay cheap.
        self._parts: list[tuple[IndexArray, NDArray[np.floating]]] = []

    @property
    def count(self) -> int:
        """Number of vectors seen, kept or not."""
        return self._count

    @property
    def capacity(self) -> int | None:
        """Most vectors that are kept, or None."""
        return self._capacity

    @property
    def index(self) -> IndexArray:
        """Global indices of the vectors kept, int64 ``[m]``, ascending."""
        return self._compact()[0]

    @property
    def features(self) -> NDArray[np.float32]:
        """Vectors kept, float32 ``[m, d]``, in the order of :attr:`index`."""
        return self._compact()[1].astype(np.float32)

    def update(self, x: FloatArray, index: IndexArray) -> None:
        """Add feature vectors ``x`` ``[n, d]`` of the images with global indices ``index`` ``[n]``.

        Raises:
            InvalidInputError: shapes disagree, a value is not finite in the bank's dtype, or an index came
                twice (as far as both are still kept).
        """
        if len(x) != len(index):
            raise InvalidInputError(f"{len(x)} feature vectors came with {len(index)} indices")
        if len(x) == 0:
            return
        checked = checked_features(x, "features", minimum=1)
        with np.errstate(over="ignore"):  # the overflow is refused with a better message just below
            narrow = checked.astype(self._dtype)
        if not np.isfinite(narrow).all():
            raise InvalidInputError(f"features overflow {self._dtype}", hint="use a float32 bank")
        self._add(len(x), np.array(index, dtype=np.int64), narrow)

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed.

        Raises:
            InvalidInputError: capacity, dtype or dimensions differ, or an index is in both.
        """
        if (other._capacity, other._dtype) != (self._capacity, self._dtype):
            raise InvalidInputError("feature banks of different capacity or dtype cannot be merged")
        if other._count:
            index, features = other._sorted()
            self._add(other._count, index, features)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return count and capacity int64 ``[]``, index int64 ``[m]`` and features ``[m, d]``."""
        index, features = self._compact()
        capacity = NO_CAPACITY if self._capacity is None else self._capacity
        return {
            "count": np.asarray(self._count),
            "capacity": np.asarray(capacity),
            "index": index.copy(),
            "features": features.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from :meth:`state`; capacity and dtype come back with it.

        Raises:
            InvalidInputError: an array is missing, or they do not fit one another.
        """
        try:
            index, features = np.array(state["index"], dtype=np.int64), np.array(state["features"])
            capacity, count = int(state["capacity"]), int(state["count"])
        except KeyError as error:
            raise InvalidInputError(f"feature bank state lacks {error}") from error
        rebuilt = cls(None if capacity == NO_CAPACITY else capacity, features.dtype)
        if len(index) != len(features) or count < len(index) or not np.isfinite(features).all():
            raise InvalidInputError("feature bank state is not consistent")
        if count:
            rebuilt._add(count, index, features)
        return rebuilt

    def _add(self, count: int, index: IndexArray, features: NDArray[np.floating]) -> None:
        if self._parts and features.shape[1] != self._parts[0][1].shape[1]:
            width = self._parts[0][1].shape[1]
            raise InvalidInputError(f"features have {features.shape[1]} dimensions, not {width} as before")
        self._parts.append((index, features))
        self._count += count
        self._kept += len(index)
        if self._capacity is not None and self._kept > 2 * self._capacity:
            self._compact()

    def _compact(self) -> tuple[IndexArray, NDArray[np.floating]]:
        index, features = self._sorted()
        if self._parts:
            self._parts = [(index, features)]
        self._kept = len(index)
        return index, features

    def _sorted(self) -> tuple[IndexArray, NDArray[np.floating]]:
        if not self._parts:
            return np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=self._dtype)
        if len(self._parts) == 1 and self._is_final(self._parts[0][0]):
            return self._parts[0]
        index = np.concatenate([part[0] for part in self._parts])
        kept = np.argsort(index_priority(index))[: self._capacity]
        order = kept[np.argsort(index[kept])]
        index = index[order]
        if (np.diff(index) == 0).any():
            raise InvalidInputError("an image index was added to a feature bank twice")
        return index, np.concatenate([part[1] for part in self._parts])[order]

    def _is_final(self, index: IndexArray) -> bool:
        fits = self._capacity is None or len(index) <= self._capacity
        return fits and bool((np.diff(index) > 0).all())
