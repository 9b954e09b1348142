"""Sums of the cubic kernel from float32 products, with a measured bound of what rounding does to their means.

Products of float32 features are rounded as float32; kernel values and sums are float64. The rounding errors
of entries are unbiased and nearly independent, so that of a mean over N pairs falls like ``1 / sqrt(N)``.
That is not taken on trust: of every tile one row in 32 is multiplied again in float64, and
:class:`Rounding` keeps the errors found: their mean, their spread, and how far those of one row or column go
together.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeGuard

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.gram import Members, Sums
from evalkit.numerics.products import cube, multiplier, product, products_of
from evalkit.numerics.tiles import column_panels, panels, row_panels

# Of fewer pairs the bound would rarely be small enough; in fewer dimensions products are not what takes time.
FEWEST_PAIRS = 1e8
FEWEST_DIMENSIONS = 256
# One row in so many is taken again in float64.
SAMPLED = 32
# Products beyond this would leave float32's range.
LARGEST_PRODUCT = 1e36
TOGETHER = 16  # tiles whose samples are multiplied at once
PIECE = 256  # rows of a tile that stay in the cores' caches, in float32 and float64


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
    # By pieces, because einsum converts what it is given.
    parts = (np.einsum("ij,ij->i", x[rows], x[rows], dtype=np.float64) for rows in row_panels(len(x)))
    largest: float = max(float(part.max()) for part in parts)
    return largest < LARGEST_PRODUCT


def single_sums_within(x: Float32Array, members: Members) -> tuple[Sums, Rounding]:
    """Sum the kernel over ordered pairs of distinct rows, with its rounding.

    Args:
        x: ``[n, d]``.
        members: blocks and subsets of the rows.
    """
    sums, products = Sums.empty(members, members), products_of(x)
    errors = _Errors(len(x) * (len(x) - 1) // 2)
    kernel = _Kernel(x.shape[1])
    for columns in column_panels(len(x)):
        other, theirs = x[columns], members.indicators(columns)
        above = list(row_panels(columns.start))
        samples = errors.samples(x, [columns, *above], other, kernel)
        tile = kernel.of(products.tile(columns, other))
        errors.measure(tile, next(samples), distinct=False)
        np.fill_diagonal(tile, 0.0)
        sums.add(tile, theirs, theirs, twice=False)
        for rows, sample in zip(above, samples, strict=True):
            tile = kernel.of(products.tile(rows, other))
            errors.measure(tile, sample)
            sums.add(tile, members.indicators(rows), theirs, twice=True)
    return sums, errors.rounding()


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
    sums, products, errors = Sums.empty(members, others), products_of(x), _Errors(len(x) * len(y))
    kernel, down = _Kernel(x.shape[1]), list(row_panels(len(x)))
    for columns in column_panels(len(y)):
        other, theirs = y[columns], others.indicators(columns)
        for rows, sample in zip(down, errors.samples(x, down, other, kernel), strict=True):
            tile = kernel.of(products.tile(rows, other))
            errors.measure(tile, sample)
            sums.add(tile, members.indicators(rows), theirs, twice=False)
    return sums, errors.rounding()


class _Kernel:
    """Kernel values of float32 products, in a buffer that is used again."""

    def __init__(self, width: int) -> None:
        self._scale = 1 / width
        self._buffer, self._room = np.empty(0), np.empty(0)

    def of(self, tile: Float32Array) -> Float64Array:
        if self._buffer.size < tile.size:
            self._buffer = np.empty(tile.size)
        out = self._buffer[: tile.size].reshape(tile.shape)
        for piece in panels(len(tile), PIECE):
            self.fill(tile[piece], out[piece])
        return out

    def fill(self, products: FloatArray, out: Float64Array) -> None:
        """Write the kernel values of ``products`` to ``out``, which may be they."""
        if self._room.size < out.size:
            self._room = np.empty(out.size)
        cube(products, scale=self._scale, out=out, room=self._room[: out.size].reshape(out.shape))


class _Sample(NamedTuple):
    """Rows within a tile ``[s]``, and their exact kernel values, float64 ``[s, m]``."""

    rows: IndexArray
    values: Float64Array


class _Errors:
    """Collects the errors of sampled rows of tiles."""

    def __init__(self, pairs: int) -> None:
        self._pairs, self._rng = pairs, np.random.default_rng(0)
        self._count, self._total, self._squares, self._rows, self._columns = 0, 0.0, 0.0, 0.0, 0.0

    def samples(
        self, x: Float32Array, cuts: Sequence[slice], y: Float32Array, kernel: _Kernel
    ) -> Iterator[_Sample]:
        """Yield exact kernel values of some rows of each of ``cuts`` of ``x`` with all of ``y``.

        One product for many cuts: of the few rows of one it would be half as fast.
        """
        exact_y = y.astype(np.float64).T
        for several in panels(len(cuts), TOGETHER):
            counts = [cut.stop - cut.start for cut in cuts[several]]
            chosen = [self._rng.choice(count, math.ceil(count / SAMPLED), replace=False) for count in counts]
            rows = [cut.start + part for cut, part in zip(cuts[several], chosen, strict=True)]
            exact = product(x[np.concatenate(rows)].astype(np.float64), exact_y)
            kernel.fill(exact, exact)
            edges = np.cumsum([len(part) for part in chosen])[:-1]
            yield from map(_Sample, chosen, np.split(exact, edges))

    def measure(self, tile: Float64Array, sample: _Sample, *, distinct: bool = True) -> None:
        """Compare a tile of kernel values with its sample; of one set with itself if not ``distinct``."""
        rows, exact = sample
        errors = tile[rows] - exact
        if not distinct:
            errors[np.arange(len(rows)), rows] = 0.0
        self._count += errors.size - (0 if distinct else len(rows))
        self._total += float(errors.sum())
        # No BLAS: numpy's threads would wait for more of it, busily, while torch multiplies.
        self._squares += float(np.einsum("ij,ij->", errors, errors))
        self._rows += float(np.square(errors.sum(axis=1)).sum())
        self._columns += float(np.square(errors.sum(axis=0)).sum())

    def rounding(self) -> Rounding:
        """What was found."""
        count = max(self._count, 1)
        together = max(1.0, max(self._rows, self._columns) / self._squares) if self._squares else 1.0
        return Rounding(self._pairs, count, self._total, self._squares, together)
