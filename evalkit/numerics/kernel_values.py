"""What a kernel distance is made of: sums over blocks, and the values of subsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array


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
