"""Sums of the cubic kernel from float32 products, with a measured bound of what rounding does to their means.

Products of float32 features are rounded as float32; kernel values and sums are float64. The rounding errors
of entries are unbiased and nearly independent, so that of a mean over N pairs falls like ``1 / sqrt(N)``.
That is not taken on trust: of every tile one row in 32, the longest among them, is multiplied again in
float64, and :class:`Rounding` keeps the errors found: their mean, their spread, and how far those of one row
or column go together. So long rows count for more than they are, which makes the bound no smaller.

Measured on 2 x 2000 rows (KID about 4e-4, mean kernel value 1.6): with features of 64, 320 and 2048
dimensions as a pooling makes them, errors have a spread of 3 to 6e-8 of the kernel, a mean of less than
5e-11, no correlation, and move KID by 4e-8 to 5e-7 of itself. On 2 x 10 000 rows of 2048 dimensions KID moves
by 4e-8 of itself (bound: 5e-7) and the spread of its leave-one-block-out values by 1e-7. Heavy tails move it
by 2e-8 to 2e-5, an offset of 100 by 3e-2 with errors that go together: there the bound is as large, and the
caller multiplies in float64. Products of centred rows have a fifth of the spread but correlated errors, and
gain nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.gram import PIECE, Members, Sums
from evalkit.numerics.products import Products, cube, multiplier, product, products_of, side_by_side
from evalkit.numerics.tiles import Part, panels, parts_across, parts_within, row_panels

# Of fewer pairs the bound would rarely be small enough; in fewer dimensions products are not what takes time.
FEWEST_PAIRS = 1e8
FEWEST_DIMENSIONS = 256
# One row in so many is taken again in float64.
SAMPLED = 32
# Products beyond this would leave float32's range.
LARGEST_PRODUCT = 1e36


@dataclass(frozen=True, slots=True)
class Rounding:
    """Errors of kernel values, measured on a sample of pairs.

    Attributes:
        pairs: number of distinct pairs whose mean is wanted.
        sampled: how many of them were measured.
        total: sum of their errors.
        squares: sum of the squares of their errors.
        together: how much larger the variance of a mean is than of independent errors, 1 or more.
    """

    pairs: int
    sampled: int
    total: float
    squares: float
    together: float

    @property
    def mean(self) -> float:
        """Mean error found."""
        return self.total / self.sampled

    def of_subsets(self, subsets: int, size: int) -> Rounding:
        """Of the mean over subsets of ``size`` rows a side: they hold fewer pairs, or the same ones again.

        A pair that is drawn r times counts r^2: with ``p`` pairs drawn out of N the variance is that of about
        ``1 / (1/p + 1/N)`` independent ones.
        """
        drawn = subsets * size * (size - 1) // 2
        return replace(self, pairs=max(1, int(1 / (1 / drawn + 1 / self.pairs))))

    @property
    def variance(self) -> float:
        """Of one error, raised by how far they go together."""
        return self.squares / self.sampled * self.together


def rounding_bound(terms: Sequence[tuple[Rounding, float]]) -> float:
    """Bound of the error of a weighted sum of means: the bias found, 3 sigma of it, and 4 of the means.

    Args:
        terms: the rounding of each mean and its weight.
    """
    bias = abs(sum(weight * rounding.mean for rounding, weight in terms))
    unseen = math.sqrt(sum(weight**2 * each.variance / each.sampled for each, weight in terms))
    spread = math.sqrt(sum(weight**2 * each.variance / each.pairs for each, weight in terms))
    return bias + 3 * unseen + 4 * spread


def pays(x: FloatArray, y: FloatArray) -> bool:
    """Whether two sets are so large that float32 products are worth their check."""
    return (len(x) + len(y)) ** 2 // 2 >= FEWEST_PAIRS and x.shape[1] >= FEWEST_DIMENSIONS


def is_single(x: FloatArray) -> TypeGuard[Float32Array]:
    """Whether products of the rows of ``x`` can be computed in float32, by this machine's processor."""
    if x.dtype != np.float32 or multiplier() is None:
        return False
    return float(_squared_norms(x).max()) < LARGEST_PRODUCT


def _squared_norms(x: FloatArray) -> Float64Array:
    """Of each row, float64 ``[n]``."""
    # By pieces, because einsum converts what it is given.
    parts = [np.einsum("ij,ij->i", x[rows], x[rows], dtype=np.float64) for rows in row_panels(len(x))]
    return np.concatenate(parts)


def single_sums_within(x: Float32Array, members: Members) -> tuple[Sums, Rounding]:
    """Sum the kernel over ordered pairs of distinct rows, with its rounding.

    Args:
        x: ``[n, d]``.
        members: blocks and subsets of the rows.
    """
    work = _Pass(x, x, members, members, products_of(x), _squared_norms(x), within=True)
    return work.run(parts_within(len(x)), pairs=len(x) * (len(x) - 1) // 2)


def single_sums_across(
    x: Float32Array, y: Float32Array, members: Members, others: Members
) -> tuple[Sums, Rounding]:
    """Sum the kernel over pairs of a row of ``x`` and one of ``y``, with its rounding.

    Args:
        x: ``[n, d]``.
        y: ``[m, d]``.
        members: blocks and subsets of the rows of ``x``.
        others: of those of ``y``.
    """
    work = _Pass(x, y, members, others, products_of(x), _squared_norms(x), within=False)
    return work.run(parts_across(len(x), len(y)), pairs=len(x) * len(y))


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """Sums over pairs of a row of ``x`` and one of ``y``.

    Attributes:
        x: ``[n, d]``.
        y: ``[m, d]``.
        members: blocks and subsets of the rows of ``x``.
        others: of those of ``y``.
        products: of ``x``.
        norms: of the rows of ``x``, float64 ``[n]``.
        within: whether the sides are the same set, and a row's pair with itself counts for nothing.
    """

    x: Float32Array
    y: Float32Array
    members: Members
    others: Members
    products: Products[np.float32]
    norms: Float64Array
    within: bool

    def run(self, parts: Sequence[Part], *, pairs: int) -> tuple[Sums, Rounding]:
        """Sum over ``parts``, which hold so many distinct ``pairs``."""
        sums, errors = Sums.empty(self.members, self.others), _Errors()
        for some, found in side_by_side(self._sum, parts):
            sums.include(some)
            errors.include(found)
        return sums, errors.rounding(pairs)

    def _sum(self, part: Part) -> tuple[Sums, _Errors]:
        sums, errors = Sums.empty(self.members, self.others), _Errors()
        kernel, theirs = _Kernel(self.x.shape[1]), self.others.indicators(part.columns)
        other = self.y[part.columns]
        for rows, sample in zip(part.rows, self._samples(part, kernel), strict=True):
            tile, ours = self.products.tile(rows, other), self.members.indicators(rows)
            square = self.within and rows == part.columns
            for piece in panels(len(tile), PIECE):
                values = kernel.of(tile[piece])
                if square:
                    np.fill_diagonal(values[:, piece.start :], 0.0)
                # What lies above the diagonal stands for its mirror image as well.
                sums.add(values, ours.part(piece), theirs, twice=self.within and not square)
                sample.look(values, piece)
            errors.add(sample, distinct=not square)
        return sums, errors

    def _samples(self, part: Part, kernel: _Kernel) -> list[_Sample]:
        """Exact kernel values of some rows of every tile of a part.

        One product for them all: of the few rows of one tile it would be half as fast.
        """
        rng = np.random.default_rng([part.columns.start, part.rows[0].start])
        chosen = [_chosen(rng, self.norms[rows]) for rows in part.rows]
        rows = np.concatenate([each + all_.start for each, all_ in zip(chosen, part.rows, strict=True)])
        exact = product(self.x[rows].astype(np.float64), self.y[part.columns].astype(np.float64).T)
        kernel.fill(exact, exact)
        edges = np.cumsum([len(each) for each in chosen])[:-1]
        return [_Sample(*each) for each in zip(chosen, np.split(exact, edges), strict=True)]


def _chosen(rng: np.random.Generator, norms: Float64Array) -> IndexArray:
    """Rows to look at, ascending, of those with these norms."""
    rows = rng.choice(len(norms), math.ceil(len(norms) / SAMPLED), replace=False)
    # One long row can make most of the error, and chance would rarely find it.
    longest = int(norms.argmax())
    if longest not in rows:
        rows[0] = longest
    return np.asarray(np.sort(rows), dtype=np.int64)


class _Kernel:
    """Kernel values of float32 products, in a buffer that is used again."""

    def __init__(self, width: int) -> None:
        self._scale = 1 / width
        self._buffer, self._room = np.empty(0), np.empty(0)

    def of(self, products: Float32Array) -> Float64Array:
        """Return the kernel values of ``products``, valid until the next call."""
        if self._buffer.size < products.size:
            self._buffer = np.empty(products.size)
        out = self._buffer[: products.size].reshape(products.shape)
        self.fill(products, out)
        return out

    def fill(self, products: FloatArray, out: Float64Array) -> None:
        """Write the kernel values of ``products`` to ``out``, which may be they."""
        if self._room.size < out.size:
            self._room = np.empty(out.size)
        cube(products, scale=self._scale, out=out, room=self._room[: out.size].reshape(out.shape))


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Some rows of a tile.

    Attributes:
        rows: ``[s]`` within the tile, ascending.
        errors: float64 ``[s, m]``, of their kernel values; until :meth:`look` saw a row, its exact ones.
    """

    rows: IndexArray
    errors: Float64Array

    def look(self, values: Float64Array, piece: slice) -> None:
        """Take the errors of those rows that lie in a piece of the tile with these kernel values."""
        here = slice(*np.searchsorted(self.rows, (piece.start, piece.stop)))
        np.subtract(values[self.rows[here] - piece.start], self.errors[here], out=self.errors[here])


class _Errors:
    """Sums of the errors of sampled rows."""

    def __init__(self) -> None:
        self._count, self._total, self._squares, self._rows, self._columns = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, sample: _Sample, *, distinct: bool) -> None:
        """Add the errors of a tile's sample; of one set with itself if not ``distinct``."""
        errors = sample.errors
        if not distinct:
            errors[np.arange(len(errors)), sample.rows] = 0.0
        self._count += errors.size - (0 if distinct else len(errors))
        self._total += float(errors.sum())
        self._squares += float(np.einsum("ij,ij->", errors, errors))
        self._rows += float(np.square(errors.sum(axis=1)).sum())
        self._columns += float(np.square(errors.sum(axis=0)).sum())

    def include(self, other: _Errors) -> None:
        """Add errors found elsewhere."""
        self._count += other._count
        self._total += other._total
        self._squares += other._squares
        self._rows += other._rows
        self._columns += other._columns

    def rounding(self, pairs: int) -> Rounding:
        """What was found, of which so many distinct ``pairs`` are wanted."""
        count = max(self._count, 1)
        together = max(1.0, max(self._rows, self._columns) / self._squares) if self._squares else 1.0
        return Rounding(pairs, count, self._total, self._squares, together)
