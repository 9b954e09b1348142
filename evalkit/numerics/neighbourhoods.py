"""The nearest other rows of each row of a set, with every distance computed once.

The product of a set with itself is symmetric: a tile above the diagonal serves the rows of both its sides.
A tile is compared with the farthest distance that could still matter to each row, which falls quickly, so
that a handful of entries a row are ever looked at. Rows are taken in an order that spreads every block over
all tiles. Products are float32, and what they leave open is decided by differences in float64
(:mod:`evalkit.numerics.screen`); where that is too much, or on an accelerator, they are float64.

Memory: one centred copy of the set (float32, or float64 where the products are) and a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.products import Products, on_accelerator, products_of
from evalkit.numerics.screen import (
    Entries,
    distances_of_pairs,
    entries_within,
    farthest,
    highest,
    in_range,
    keeps_the_bound,
    rounded_up,
    rounding,
)
from evalkit.numerics.tiles import (
    Candidates,
    bound_of_less_than,
    candidates,
    column_panels,
    left_form,
    right_form,
    row_panels,
    single_form,
)

# Pairs a row that are kept until the last tile; where more are near, float32 tells rows apart too badly.
MOST_KEPT = 256
PROBED = 16  # rows whose products are looked at before all others are believed


@dataclass(frozen=True, eq=False)
class Rows:
    """A set of rows, ready for products.

    Attributes:
        x: float ``[n, d]``, the set.
        centre: float64 ``[d]``, subtracted from every row before it is multiplied.
        number: int64 ``[n]``, which row of the set each is.
        block: int64 ``[n]``, which block of the set each lies in.
        blocks: how many blocks there are.
    """

    x: FloatArray
    centre: Float64Array
    number: IndexArray
    block: IndexArray
    blocks: int

    @classmethod
    def of(cls, x: FloatArray, sizes: Sequence[int], centre: Float64Array) -> Rows:
        """Take ``x`` ``[n, d]``, of blocks of these ``sizes``, and spread the blocks."""
        panels = len(list(column_panels(len(x))))
        spread = np.argsort(np.arange(len(x)) % panels, kind="stable").astype(np.int64)
        block = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)[spread]
        return cls(x, centre, spread, block, len(sizes))

    @cached_property
    def single(self) -> tuple[Float32Array, Float64Array]:
        """The rows in the left form, float32 ``[n, d + 2]``, and their squared norms, float64 ``[n]``."""
        return single_form(self.x, self.number, self.centre)

    @cached_property
    def double(self) -> Float64Array:
        """The rows in the left form, float64 ``[n, d + 2]``."""
        form = np.empty((len(self.x), self.x.shape[1] + 2))
        for part in column_panels(len(self.x)):
            form[part] = left_form(self.x[self.number[part]], self.centre)
        return form

    @cached_property
    def products(self) -> Products[np.float64]:
        """Products of :attr:`double`."""
        return products_of(self.double)

    @cached_property
    def screened(self) -> Products[np.float32] | None:
        """Products of :attr:`single`; None where their error is not known, and on an accelerator."""
        if on_accelerator() or not in_range(self.single[1], self.x.shape[1]):
            return None
        form, norms = self.single
        products, probe = products_of(form), slice(0, min(PROBED, len(form)))
        tile = products.tile(probe, right_form(form[probe]))
        return products if keeps_the_bound(tile, form[probe], norms[probe]) else None


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
    found = _by_screen(rows, k, rows.screened) if rows.screened else None
    return found or _by_products(rows, k)


def _by_products(rows: Rows, k: int) -> Neighbourhoods:
    lists = _Lists.empty(rows, k)
    form = rows.double
    norms = form[:, -2]
    for columns in column_panels(len(form)):
        own = form[columns]
        right = right_form(own)
        tile = rows.products.tile(columns, right)
        np.fill_diagonal(tile, np.inf)
        nothing = np.full(len(own), -np.inf)
        bounds = bound_of_less_than(lists.limit[columns], norms[columns])
        lists.add(candidates(tile, own, own, rows=bounds, columns=nothing), columns, columns, both=False)
        for above in row_panels(columns.start):
            found = candidates(
                rows.products.tile(above, right),
                form[above],
                own,
                rows=bound_of_less_than(lists.limit[above], norms[above]),
                columns=bound_of_less_than(lists.limit[columns], norms[columns]),
            )
            lists.add(found, above, columns, both=True)
    return lists.result(rows.number)


def _by_screen(rows: Rows, k: int, products: Products[np.float32]) -> Neighbourhoods | None:
    """Keep every pair that may be near until all tiles were seen; None where these are too many."""
    screened = _Screened(rows, _Lists.empty(rows, k))
    for columns in column_panels(len(rows.x)):
        right = right_form(rows.single[0][columns])
        screened.begin(products.tile(columns, right), columns)
        for above in row_panels(columns.start):
            screened.add(products.tile(above, right), above, columns)
        if screened.count > MOST_KEPT * len(rows.x):
            return None
    i, j = screened.open_pairs()
    exact, everything = _Lists.empty(rows, k), slice(0, len(rows.x))
    distances = distances_of_pairs(rows.x, rows.x, rows.number[i], rows.number[j])
    exact.add(Candidates(i, j, distances), everything, everything, both=True)
    return exact.result(rows.number)


@dataclass(slots=True, eq=False)
class _Screened:
    """Pairs that may be near, and lists of their squared distances, as float32 products have them."""

    rows: Rows
    lists: _Lists
    kept: list[Entries] = field(default_factory=list)
    count: int = 0

    def bounds(self, part: slice) -> Float32Array:
        """Return what no entry of these rows exceeds that can still matter to them."""
        norms, gamma = self.rows.single[1][part], rounding(self.rows.x.shape[1])
        limit = farthest(self.lists.limit[part].astype(np.float64), norms, gamma)
        return rounded_up(highest(limit, norms, gamma))

    def begin(self, tile: Float32Array, columns: slice) -> None:
        """Begin the lists of ``columns`` with their distances to each other."""
        np.fill_diagonal(tile, np.inf)
        self.lists.begin(np.maximum(tile, 0), columns)
        # Each pair once.
        tile[np.tril_indices(len(tile))] = np.inf
        bounds = self.bounds(columns)
        self._keep(entries_within(tile, rows=bounds, columns=bounds), columns, columns)

    def add(self, tile: Float32Array, above: slice, columns: slice) -> None:
        """Add the distances of rows ``above`` to ``columns``."""
        found = entries_within(tile, rows=self.bounds(above), columns=self.bounds(columns))
        self.lists.add(
            Candidates(found.rows, found.columns, np.maximum(found.squared, 0)), above, columns, both=True
        )
        self._keep(found, above, columns)

    def _keep(self, found: Entries, rows: slice, columns: slice) -> None:
        self.kept.append(Entries(found.rows + rows.start, found.columns + columns.start, found.squared))
        self.count += len(found.rows)

    def open_pairs(self) -> tuple[IndexArray, IndexArray]:
        """Return the pairs that the last bounds leave open."""
        i, j, squared = (np.concatenate(part) for part in zip(*self.kept, strict=True))
        bounds = self.bounds(slice(None))
        open_ = np.flatnonzero((squared <= bounds[i]) | (squared <= bounds[j]))
        return i[open_], j[open_]


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

    def begin(self, tile: Float32Array, columns: slice) -> None:
        """Begin the lists of ``columns`` with their distances to each other, a square ``tile``."""
        _, b, k = self.nearest.shape
        order = np.argsort(self.block[columns], kind="stable")
        edges = np.searchsorted(self.block[columns][order], np.arange(b + 1))
        for block, (start, stop) in enumerate(pairwise(edges)):
            if count := min(k, stop - start):
                nearest = np.partition(tile[:, order[start:stop]], count - 1, axis=1)[:, :count]
                self.nearest[columns, block, :count] = nearest
        self._lower(np.arange(columns.start, columns.stop))

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
