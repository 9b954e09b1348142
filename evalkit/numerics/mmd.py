"""Kernel distance: unbiased squared maximum mean discrepancy with the cubic polynomial kernel (KID).

    k(x, y) = (x . y / d + 1)^3                                       (Binkowski et al. 2018, section 4)
    MMD^2   = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)
                                                                      (Gretton et al. 2012, eq. 3)

Products and sums are float64. The estimate may be negative, and then stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, checked_features, same_width
from evalkit.numerics.remembered import remembered

TILE = 1024  # rows of a Gram tile: 8 MiB in float64


class IndexChooser(Protocol):
    """What drawing subsets needs; numpy's Generator has it, and so has the RandomState of older tools."""

    def choice(self, a: int, size: int, replace: bool = ...) -> ArrayLike:
        """Return ``size`` numbers below ``a``."""
        ...


@dataclass(frozen=True, slots=True)
class SubsetEstimate:
    """Mean and spread (ddof 0) over subsets; the spread is not a standard error."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True, eq=False)
class KernelSums:
    """Sums of the kernel over blocks: all that the exact statistic and its leave-one-out values need.

    Attributes:
        within: float64 ``[b, b]`` sums over generated pairs, without the diagonal.
        across: float64 ``[b]`` sums over generated x reference pairs.
        reference_mean: mean over distinct reference pairs.
        sizes: int64 ``[b]`` generated rows in each block.
        n_reference: number of reference rows.
    """

    within: Float64Array
    across: Float64Array
    reference_mean: float
    sizes: NDArray[np.int64]
    n_reference: int

    def value(self) -> float:
        """Return the exact U-statistic over all blocks."""
        return self._combine(float(self.within.sum()), float(self.across.sum()), int(self.sizes.sum()))

    def without_blocks(self) -> Float64Array:
        """Return the exact U-statistics without each block, float64 ``[b]``.

        Raises:
            InvalidInputError: fewer than 2 generated rows are left without some block.
        """
        total = int(self.sizes.sum())
        if total - int(self.sizes.max()) < 2:
            raise InvalidInputError("fewer than 2 generated rows are left without a block")
        every = np.arange(len(self.sizes))
        return np.asarray([self._over(every != block) for block in every])

    def without_pairs(self) -> Float64Array:
        """Return the exact U-statistics without two blocks, float64 ``[b, b]`` above the diagonal, else 0.

        Raises:
            InvalidInputError: fewer than 2 generated rows are left without some two blocks.
        """
        blocks = len(self.sizes)
        if int(np.sort(self.sizes)[:-2].sum()) < 2:
            raise InvalidInputError("fewer than 2 generated rows are left without two blocks")
        values, every = np.zeros((blocks, blocks)), np.arange(blocks)
        for one, other in zip(*np.triu_indices(blocks, 1), strict=True):
            values[one, other] = self._over((every != one) & (every != other))
        return values

    def _over(self, kept: NDArray[np.bool_]) -> float:
        # Sums of what stays, not the total less what goes: nothing cancels.
        within = float(self.within[np.ix_(kept, kept)].sum())
        return self._combine(within, float(self.across[kept].sum()), int(self.sizes[kept].sum()))

    def _combine(self, within: float, across: float, count: int) -> float:
        return within / (count * (count - 1)) + self.reference_mean - 2 * across / (count * self.n_reference)


def kernel_sums(blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic]) -> KernelSums:
    """Sum the cubic kernel over all pairs of blocks, tile by tile (memory is a few tiles).

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side, together at least 2 rows.
        reference: float ``[m, d]``, ``m >= 2``.

    Raises:
        InvalidInputError: wrong shapes, too few rows, or a value that is not finite.
    """
    parts = [checked_features(block, "generated features", minimum=1) for block in blocks]
    count = sum(len(part) for part in parts)
    if count < 2:
        raise InvalidInputError(f"generated features have {count} rows; at least 2 are needed")
    other = checked_features(reference, "reference features", minimum=2)
    for part in parts:
        same_width(part, other)
    within = np.zeros((len(parts), len(parts)))
    for i, part in enumerate(parts):
        within[i, i] = _sum_distinct(part)
        for j in range(i):
            within[i, j] = within[j, i] = _sum_pairs(part, parts[j])
    return KernelSums(
        within=within,
        across=np.asarray([_sum_pairs(part, other) for part in parts]),
        reference_mean=_sum_of_reference(other) / (len(other) * (len(other) - 1)),
        sizes=np.asarray([len(part) for part in parts], dtype=np.int64),
        n_reference=len(other),
    )


def kernel_distance(generated: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Exact U-statistic of the squared MMD over all rows (formula in the module).

    Args:
        generated: float ``[n, d]``, ``n >= 2``.
        reference: float ``[m, d]``, ``m >= 2``.

    Raises:
        InvalidInputError: wrong shapes, too few rows, or a value that is not finite.
    """
    return kernel_sums([generated], reference).value()


def kernel_distance_subsets(
    generated: NDArray[np.generic],
    reference: NDArray[np.generic],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    rng: IndexChooser,
) -> SubsetEstimate:
    """Mean squared MMD over random subsets without replacement: the form that papers print.

    For each subset, indices of the generated side are drawn first, then those of the reference.

    Args:
        generated: float ``[n, d]``.
        reference: float ``[m, d]``.
        subsets: number of subsets.
        subset_size: rows drawn from each side, at least 2 and at most ``min(n, m)``.
        rng: draws the indices.

    Raises:
        InvalidInputError: wrong shapes, fewer rows than ``subset_size``, or a value that is not finite.
    """
    if subsets < 1 or subset_size < 2:
        raise InvalidInputError(f"{subsets} subsets of {subset_size}: at least 1 subset of 2 rows is needed")
    ours = checked_features(generated, "generated features", minimum=subset_size)
    theirs = checked_features(reference, "reference features", minimum=subset_size)
    same_width(ours, theirs)
    values = np.empty(subsets)
    for i in range(subsets):
        chosen = np.asarray(rng.choice(len(ours), subset_size, replace=False))
        against = np.asarray(rng.choice(len(theirs), subset_size, replace=False))
        values[i] = kernel_sums([ours[chosen]], theirs[against]).value()
    return SubsetEstimate(mean=float(values.mean()), std=float(values.std()))


def _sum_distinct(x: FloatArray) -> float:
    """Sum of the kernel over ordered pairs of distinct rows."""
    total = 0.0
    for start in range(0, len(x), TILE):
        tile = x[start : start + TILE]
        # The diagonal is cleared, not subtracted: a single huge row would cancel everything else.
        total += _tile_sum(tile, tile, distinct=True)
        total += 2 * _sum_pairs(tile, x[start + TILE :])
    return total


_sum_of_reference = remembered(_sum_distinct)


def _sum_pairs(x: FloatArray, y: FloatArray) -> float:
    """Sum of the kernel over all pairs of a row of ``x`` and a row of ``y``."""
    return sum(
        _tile_sum(x[i : i + TILE], y[j : j + TILE], distinct=False)
        for i in range(0, len(x), TILE)
        for j in range(0, len(y), TILE)
    )


def _tile_sum(x: FloatArray, y: FloatArray, *, distinct: bool) -> float:
    gram = x.astype(np.float64) @ y.astype(np.float64).T
    gram /= x.shape[1]
    gram += 1
    if distinct:
        np.fill_diagonal(gram, 0.0)
    return float(np.vdot(gram * gram, gram))
