"""The nearest other rows of each row of a set, with every distance computed once.

The product of a set with itself is symmetric: a tile above the diagonal serves the rows of both its sides.
A tile is compared with the farthest distance that could still matter to each row, which falls quickly, so
that a handful of entries a row are ever looked at. Rows are taken in an order that spreads every block over
all tiles.

Memory: one centred float64 copy of the set and a tile of 8 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.products import Products, products_of
from evalkit.numerics.tiles import (
    Candidates,
    bound_of_less_than,
    candidates,
    column_panels,
    left_form,
    right_form,
    row_panels,
)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A set of rows, ready for products.

    Attributes:
        form: float64 ``[n, d + 2]``, see :func:`~evalkit.numerics.tiles.left_form`.
        number: int64 ``[n]``, which row of the set each is.
        block: int64 ``[n]``, which block of the set each lies in.
        blocks: how many blocks there are.
        products: the products of ``form``.
    """

    form: Float64Array
    number: IndexArray
    block: IndexArray
    blocks: int
    products: Products

    @classmethod
    def of(cls, x: FloatArray, sizes: Sequence[int], centre: Float64Array) -> Rows:
        """Centre ``x`` ``[n, d]``, of blocks of these ``sizes``, and spread the blocks."""
        count = len(x)
        panels = len(list(column_panels(count)))
        spread = np.argsort(np.arange(count) % panels, kind="stable").astype(np.int64)
        form = np.empty((count, x.shape[1] + 2))
        for part in column_panels(count):
            form[part] = left_form(x[spread[part]], centre)
        block = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)[spread]
        return cls(form, spread, block, len(sizes), products_of(form))

    @property
    def norms(self) -> Float64Array:
        """Squared norms ``[n]``."""
        return self.form[:, -2]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhoods:
    """The nearest other rows of each row, nearest first: enough for k of them to stay without any block.

    Attributes:
        distance: float32 ``[n, p]``, infinite where there are fewer.
        block: int64 ``[n, p]``, the block that each lies in.
    """

    distance: Float32Array
    block: IndexArray

    def radii(self, k: int) -> Float32Array:
        """Distance to the k-th nearest other row, ``[n]``."""
        return np.ascontiguousarray(self.distance[:, k - 1])

    def radii_without(self, block: int, k: int) -> Float32Array:
        """Distance to the k-th nearest other row that is not in ``block``, ``[n]``."""
        left = np.where(self.block == block, np.float32(np.inf), self.distance)
        return np.ascontiguousarray(np.partition(left, k - 1, axis=1)[:, k - 1])


def neighbourhoods(rows: Rows, k: int) -> Neighbourhoods:
    """Find the k nearest other rows of each row, in its set without any one block; ``n > k``."""
    lists = _Lists.empty(rows, k)
    norms = rows.norms
    for columns in column_panels(len(rows.form)):
        own = rows.form[columns]
        right = right_form(own)
        tile = rows.products.tile(columns, right)
        np.fill_diagonal(tile, np.inf)
        nothing = np.full(len(own), -np.inf)
        bounds = bound_of_less_than(lists.limit[columns], norms[columns])
        lists.add(candidates(tile, own, own, rows=bounds, columns=nothing), columns, columns, both=False)
        for above in row_panels(columns.start):
            found = candidates(
                rows.products.tile(above, right),
                rows.form[above],
                own,
                rows=bound_of_less_than(lists.limit[above], norms[above]),
                columns=bound_of_less_than(lists.limit[columns], norms[columns]),
            )
            lists.add(found, above, columns, both=True)
    return lists.result(rows.number)


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """The k smallest distances of each row to each block.

    Without a block at most k of them go, so that k of the 2 k smallest stay: what is no nearer than the last
    of those cannot matter.
    """

    nearest: Float32Array  # [n, b, k]
    block: IndexArray  # [n] of each row
    place: IndexArray  # [n] which of a row's smallest distances is its limit
    limit: Float32Array  # [n] farther distances do not matter

    @classmethod
    def empty(cls, rows: Rows, k: int) -> _Lists:
        n, b = len(rows.block), rows.blocks
        sizes = np.bincount(rows.block, minlength=b)
        # A row is no neighbour of its own, and small blocks have no k rows to give.
        full = np.minimum(sizes, k).sum() - (sizes <= k)
        limit = np.full(n, np.inf, dtype=np.float32)
        nearest = np.full((n, b, k), np.inf, dtype=np.float32)
        place = np.minimum(full, k if b == 1 else 2 * k) - 1
        return cls(nearest, rows.block, place[rows.block].astype(np.int64), limit)

    def add(self, found: Candidates, rows: slice, columns: slice, *, both: bool) -> None:
        """Add distances of ``rows`` to ``columns``, and for ``both`` those of the columns to the rows too."""
        owner, other, distance = found.rows + rows.start, found.columns + columns.start, found.distances
        if both:
            owner, other = np.concatenate([owner, other]), np.concatenate([other, owner])
            distance = np.concatenate([distance, distance])
        useful = distance < self.limit[owner]
        if useful.any():
            self._merge(owner[useful] * self.nearest.shape[1] + self.block[other[useful]], distance[useful])

    def _merge(self, key: IndexArray, distance: Float32Array) -> None:
        """Merge distances into the lists ``key``, row times blocks plus block."""
        _, b, k = self.nearest.shape
        # Distances are not negative, so that their bits sort as they do; one sort of integers does it all.
        packed = (key.astype(np.uint64) << np.uint64(32)) | distance.view(np.uint32)
        packed.sort()
        key = (packed >> np.uint64(32)).astype(np.int64)
        distance = packed.astype(np.uint32).view(np.float32)
        first = np.flatnonzero(np.diff(key, prepend=-1))
        which = np.repeat(np.arange(len(first)), np.diff(first, append=len(key)))
        rank = np.arange(len(key)) - first[which]
        kept = rank < k
        lists = self.nearest.reshape(-1, k)
        merged = np.full((len(first), 2 * k), np.inf, dtype=np.float32)
        merged[:, :k] = lists[key[first]]
        merged[which[kept], k + rank[kept]] = distance[kept]
        merged.sort(axis=1)
        lists[key[first]] = merged[:, :k]
        self._lower(np.unique(key[first] // b))

    def _lower(self, rows: IndexArray) -> None:
        every = self.nearest[rows].reshape(len(rows), -1)
        place = self.place[rows]
        every.partition(np.unique(place), axis=1)
        self.limit[rows] = every[np.arange(len(rows)), place]

    def result(self, number: IndexArray) -> Neighbourhoods:
        """Return the lists of all blocks together, in the order of the set."""
        n, b, k = self.nearest.shape
        every = self.nearest.reshape(n, -1)
        count = min(2 * k, b * k)
        order = np.argsort(every, axis=1, kind="stable")[:, :count]
        distance = np.empty((n, count), dtype=np.float32)
        block = np.empty((n, count), dtype=np.int64)
        distance[number] = np.take_along_axis(every, order, axis=1)
        block[number] = order // k
        return Neighbourhoods(distance, block)
