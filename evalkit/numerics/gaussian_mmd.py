"""Squared maximum mean discrepancy with the Gaussian kernel on unit vectors: the statistic of CMMD.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)),  x and y divided by their lengths
    MMD^2   = mean_{ij} k(x_i, x_j) + mean_{ij} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)
                                           (Gretton et al. 2012, eq. 5; Jayasumana et al. 2024, section 4)

The means run over all pairs, the diagonal too: the biased V-statistic, which is never negative.

Accepted trade-offs: sums hold ``k - 1``, whose ones cancel in the statistic. At sigma 10 every kernel value
on unit vectors lies above 0.98, so that sums of ``k`` itself would lose digits to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, same_width
from evalkit.numerics.directions import unit_rows
from evalkit.numerics.gram import Members, Sums, sums_across, sums_within
from evalkit.numerics.remembered import remembered


@dataclass(frozen=True, slots=True, eq=False)
class GaussianSums:
    """Sums of ``k - 1`` over blocks: all that the statistic and its leave-one-block-out values need.

    Attributes:
        within: float64 ``[b, b]`` sums over generated pairs, the diagonal included.
        across: float64 ``[b]`` sums over generated x reference pairs.
        reference_mean: mean over all reference pairs.
        sizes: int64 ``[b]`` generated rows in each block.
        n_reference: number of reference rows.
    """

    within: Float64Array
    across: Float64Array
    reference_mean: float
    sizes: NDArray[np.int64]
    n_reference: int

    def value(self) -> float:
        """Return the squared discrepancy of all blocks; never negative."""
        return self._over(np.ones(len(self.sizes), dtype=np.bool_))

    def without_blocks(self) -> Float64Array:
        """Return the exact values without each block, float64 ``[b]``.

        Raises:
            InvalidInputError: no generated row is left without some block.
        """
        if len(self.sizes) < 2:
            raise InvalidInputError("no generated rows are left without the only block")
        every = np.arange(len(self.sizes))
        return np.asarray([self._over(every != block) for block in every])

    def without_pairs(self) -> Float64Array:
        """Return the exact values without two blocks, float64 ``[b, b]``, above the diagonal; 0 elsewhere.

        Raises:
            InvalidInputError: there are fewer than three blocks.
        """
        blocks = len(self.sizes)
        if blocks < 3:
            raise InvalidInputError("no generated rows are left without two blocks")
        values, every = np.zeros((blocks, blocks)), np.arange(blocks)
        for one, other in zip(*np.triu_indices(blocks, 1), strict=True):
            values[one, other] = self._over((every != one) & (every != other))
        return values

    def _over(self, kept: NDArray[np.bool_]) -> float:
        count = int(self.sizes[kept].sum())
        within = float(self.within[np.ix_(kept, kept)].sum()) / count**2
        across = float(self.across[kept].sum()) / (count * self.n_reference)
        # A squared norm: only rounding can take it below zero.
        return max(0.0, within + self.reference_mean - 2 * across)


def gaussian_sums(
    blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic], *, sigma: float
) -> GaussianSums:
    """Sum the Gaussian kernel over all pairs of blocks, tile by tile (memory is a few tiles).

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side, at least one row each.
        reference: float ``[m, d]``, ``m >= 1``.
        sigma: bandwidth of the kernel, in units of the unit vectors.

    Raises:
        InvalidInputError: wrong shapes, too few rows, rows of zeros, values that are not finite, or a
            bandwidth that is not positive.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InvalidInputError(f"the bandwidth must be positive, not {sigma}")
    if not blocks:
        raise InvalidInputError("there are no blocks of generated features")
    parts = [unit_rows(block, "generated features") for block in blocks]
    other = unit_rows(reference, "reference features")
    for part in parts:
        same_width(part, other)
    scale = -1 / (2 * sigma**2)
    sizes = [len(part) for part in parts]
    left, members = _left_form(np.concatenate(parts)), Members.of(sizes)
    across = sums_across(
        left,
        lambda part: _right_form(_left_form(other[part]), scale),
        _expm1,
        members,
        Members.of([len(other)]),
    )
    return GaussianSums(
        within=_sums_within(left, scale, members).blocks,
        across=across.blocks[:, 0],
        reference_mean=_sum_of_reference(other, scale) / len(other) ** 2,
        sizes=np.asarray(sizes, dtype=np.int64),
        n_reference=len(other),
    )


def gaussian_mmd(
    generated: NDArray[np.generic], reference: NDArray[np.generic], *, sigma: float = 10.0
) -> float:
    """Squared discrepancy of unit vectors, biased V-statistic (formula in the module).

    Args:
        generated: float ``[n, d]``.
        reference: float ``[m, d]``.
        sigma: bandwidth; 10 as published.

    Raises:
        InvalidInputError: as :func:`gaussian_sums`.
    """
    return gaussian_sums([generated], reference, sigma=sigma).value()


def _sums_within(left: Float64Array, scale: float, members: Members) -> Sums:
    """Sums over all ordered pairs of rows; a row with itself has ``k - 1 = 0`` exactly."""
    return sums_within(left, lambda part: _right_form(part, scale), _expm1, members)


@remembered
def _sum_of_reference(x: Float64Array, scale: float) -> float:
    return float(_sums_within(_left_form(x), scale, Members.of([len(x)])).blocks[0, 0])


def _left_form(x: Float64Array) -> Float64Array:
    """Return ``[x, 1]``, float64 ``[n, d + 1]``."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _right_form(left: Float64Array, scale: float) -> Float64Array:
    """Return what gives ``scale (2 - 2 x . y)``, the squared distance of unit vectors, with the left form."""
    form = left * (-2 * scale)
    form[:, -1] = 2 * scale
    return form


def _expm1(tile: Float64Array) -> None:
    np.minimum(tile, 0.0, out=tile)  # only rounding makes a squared distance negative
    np.expm1(tile, out=tile)
