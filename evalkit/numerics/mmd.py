"""Kernel distance: unbiased squared maximum mean discrepancy with the cubic polynomial kernel (KID).

    k(x, y) = (x . y / d + 1)^3                                       (Binkowski et al. 2018, section 4)
    MMD^2   = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j)
                                                                      (Gretton et al. 2012, eq. 3)

Products and sums are float64; of large sets of float32 features the products are float32, where that is
measured to move the result by less than 1e-6 of itself (:mod:`evalkit.numerics.single_sums`). The estimate
may be negative, and then stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import (
    Float32Array,
    Float64Array,
    FloatArray,
    IndexArray,
    checked_features,
    same_width,
)
from evalkit.numerics.blocks import joined
from evalkit.numerics.gram import Members, Sums, sums_across, sums_within
from evalkit.numerics.kernel_values import KernelSums, SubsetEstimate
from evalkit.numerics.products import apart, multiplier, side_by_side
from evalkit.numerics.remembered import remembered
from evalkit.numerics.single_sums import (
    Rounding,
    is_single,
    pays,
    rounding_bound,
    single_sums_across,
    single_sums_within,
)

ALLOWED = 1e-6
"""Part of the result by which float32 products may move it."""


class IndexChooser(Protocol):
    """What drawing subsets needs; numpy's Generator has it, and so has the RandomState of older tools."""

    def choice(self, a: int, size: int, replace: bool = ...) -> ArrayLike:
        """Return ``size`` numbers below ``a``."""
        ...


def kernel_sums(blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic]) -> KernelSums:
    """Sum the cubic kernel over all pairs of blocks, tile by tile.

    Memory is a float64 copy of the larger set and a few tiles; every product is computed once.

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side, together at least 2 rows.
        reference: float ``[m, d]``, ``m >= 2``.

    Raises:
        InvalidInputError: wrong shapes, too few rows, or a value that is not finite.
    """
    ours, sizes, theirs = _checked(blocks, reference)
    members, others = Members.of(sizes), Members.of([len(theirs)])
    if pays(ours, theirs) and is_single(ours) and is_single(theirs):
        across, error_across = single_sums_across(ours, theirs, members, others)
        within, error_within = single_sums_within(ours, members)
        total, error = _single_sum_of_reference(theirs, multiplier(), apart())
        found = _kernel_sums(across, within, total, sizes, len(theirs))
        if _bound(error_across, error_within, error) <= ALLOWED * abs(found.value()):
            return found
    across, within = _sums_of_generated(ours, theirs, members, others)
    return _kernel_sums(across, within, _sum_of_reference(theirs), sizes, len(theirs))


def kernel_sums_and_subsets(
    blocks: Sequence[NDArray[np.generic]],
    reference: NDArray[np.generic],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    rng: IndexChooser,
) -> tuple[KernelSums, SubsetEstimate]:
    """Both :func:`kernel_sums` and :func:`kernel_distance_subsets`, from one pass over all pairs of rows.

    The sums over 100 subsets cost 5 % of the products at 2048 dimensions. Where the sets are so large that
    they would cost more than products of the subsets, these are made.

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side, together at least ``subset_size`` rows.
        reference: float ``[m, d]``.
        subsets: number of subsets.
        subset_size: rows drawn from each side, at least 2 and at most ``min(n, m)``.
        rng: draws the indices.

    Raises:
        InvalidInputError: wrong shapes, fewer rows than ``subset_size``, or a value that is not finite.
    """
    ours, sizes, theirs = _checked(blocks, reference)
    _check_subsets(ours, theirs, subsets, subset_size)
    if _pairs(len(ours), len(theirs)) > 2 * subset_size**2 * max(subsets, ours.shape[1]):
        sums = kernel_sums(blocks, reference)
        return sums, _of_subsets(ours, theirs, subsets=subsets, subset_size=subset_size, rng=rng)
    return _one_pass(ours, sizes, theirs, subsets=subsets, subset_size=subset_size, rng=rng)


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
    ours, _, theirs = _checked([generated], reference)
    _check_subsets(ours, theirs, subsets, subset_size)
    if _pairs(len(ours), len(theirs)) > 2 * subset_size**2 * subsets:
        return _of_subsets(ours, theirs, subsets=subsets, subset_size=subset_size, rng=rng)
    return _one_pass(ours, [len(ours)], theirs, subsets=subsets, subset_size=subset_size, rng=rng)[1]


def _checked(
    blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic]
) -> tuple[FloatArray, list[int], FloatArray]:
    parts = [checked_features(block, "generated features", minimum=1) for block in blocks]
    count = sum(len(part) for part in parts)
    if count < 2:
        raise InvalidInputError(f"generated features have {count} rows; at least 2 are needed")
    other = checked_features(reference, "reference features", minimum=2)
    for part in parts:
        same_width(part, other)
    return joined(parts), [len(part) for part in parts], other


def _check_subsets(x: FloatArray, y: FloatArray, subsets: int, subset_size: int) -> None:
    if subsets < 1 or subset_size < 2:
        raise InvalidInputError(f"{subsets} subsets of {subset_size}: at least 1 subset of 2 rows is needed")
    for rows, name in ((x, "generated"), (y, "reference")):
        if len(rows) < subset_size:
            raise InvalidInputError(
                f"{name} features has {len(rows)} rows; at least {subset_size} are needed"
            )


def _pairs(n: int, m: int) -> int:
    """Products of one pass, symmetric ones once."""
    return (n + m) ** 2 // 2


def _drawn(
    n: int, m: int, *, subsets: int, subset_size: int, rng: IndexChooser
) -> list[tuple[IndexArray, IndexArray]]:
    return [
        (
            np.asarray(rng.choice(n, subset_size, replace=False)),
            np.asarray(rng.choice(m, subset_size, replace=False)),
        )
        for _ in range(subsets)
    ]


def _of_subsets(
    x: FloatArray, y: FloatArray, *, subsets: int, subset_size: int, rng: IndexChooser
) -> SubsetEstimate:
    whole = Members.of([subset_size])

    def value(drawn: tuple[IndexArray, IndexArray]) -> float:
        ours, theirs = x[drawn[0]], y[drawn[1]]
        across, within = _sums_of_generated(ours, theirs, whole, whole)
        reference = float(_sums_of_set(theirs, whole).blocks[0, 0])
        return _kernel_sums(across, within, reference, [subset_size], subset_size).value()

    drawn = _drawn(len(x), len(y), subsets=subsets, subset_size=subset_size, rng=rng)
    values = np.asarray(list(side_by_side(value, drawn)))
    return SubsetEstimate(mean=float(values.mean()), std=float(values.std()))


def _one_pass(
    x: FloatArray, sizes: Sequence[int], y: FloatArray, *, subsets: int, subset_size: int, rng: IndexChooser
) -> tuple[KernelSums, SubsetEstimate]:
    drawn = _drawn(len(x), len(y), subsets=subsets, subset_size=subset_size, rng=rng)
    ours = Members.of(sizes, [chosen for chosen, _ in drawn])
    theirs = Members.of([len(y)], [against for _, against in drawn])
    if pays(x, y) and is_single(x) and is_single(y):
        across, error_across = single_sums_across(x, y, ours, theirs)
        within, error_within = single_sums_within(x, ours)
        reference, error = single_sums_within(y, theirs)
        found = _found(across, within, reference, sizes, len(y), subset_size=subset_size)
        errors = (error_across, error_within, error)
        of_subsets = [each.of_subsets(subsets, subset_size) for each in errors]
        good = _bound(*errors) <= ALLOWED * abs(found[0].value())
        if good and _bound(*of_subsets) <= ALLOWED * abs(found[1].mean):
            return found
    across, within = _sums_of_generated(x, y, ours, theirs)
    reference = _sums_of_set(y, theirs)
    return _found(across, within, reference, sizes, len(y), subset_size=subset_size)


def _found(
    across: Sums, within: Sums, reference: Sums, sizes: Sequence[int], m: int, *, subset_size: int
) -> tuple[KernelSums, SubsetEstimate]:
    values = (within.subsets + reference.subsets) / (subset_size * (subset_size - 1))
    values -= 2 * across.subsets / subset_size**2
    return (
        _kernel_sums(across, within, float(reference.blocks[0, 0]), sizes, m),
        SubsetEstimate(mean=float(values.mean()), std=float(values.std())),
    )


def _bound(across: Rounding, within: Rounding, reference: Rounding) -> float:
    """What float32 products may have moved the statistic by."""
    return rounding_bound([(within, 1.0), (reference, 1.0), (across, -2.0)])


def _kernel_sums(across: Sums, within: Sums, reference: float, sizes: Sequence[int], m: int) -> KernelSums:
    return KernelSums(
        within=within.blocks,
        across=across.blocks[:, 0],
        reference_mean=reference / (m * (m - 1)),
        sizes=np.asarray(sizes, dtype=np.int64),
        n_reference=m,
    )


def _sums_of_generated(x: FloatArray, y: FloatArray, ours: Members, theirs: Members) -> tuple[Sums, Sums]:
    """Sums across the two sides, and within the generated one."""
    left = _left_form(x)
    across = sums_across(left, lambda part: _right_form(_left_form(y[part])), _cube, ours, theirs)
    return across, sums_within(left, _right_form, _cube, ours)


def _sums_of_set(x: FloatArray, members: Members) -> Sums:
    return sums_within(_left_form(x), _right_form, _cube, members)


@remembered
def _single_sum_of_reference(x: Float32Array, _by: str | None, _apart: bool) -> tuple[float, Rounding]:
    # What multiplies belongs to what is remembered: it shows in the seventh digit.
    sums, rounding = single_sums_within(x, Members.of([len(x)]))
    return float(sums.blocks[0, 0]), rounding


@remembered
def _sum_of_reference(x: FloatArray) -> float:
    return float(_sums_of_set(x, Members.of([len(x)])).blocks[0, 0])


def _left_form(x: FloatArray) -> Float64Array:
    """Return ``[x, 1]``, float64 ``[n, d + 1]``."""
    form = np.empty((len(x), x.shape[1] + 1))
    form[:, :-1] = x
    form[:, -1] = 1
    return form


def _right_form(left: Float64Array) -> Float64Array:
    """Return ``[y / d, 1]``, whose products with the left form are ``x . y / d + 1``."""
    form: Float64Array = left / (left.shape[1] - 1)
    form[:, -1] = 1
    return form


def _cube(tile: Float64Array) -> None:
    tile *= tile * tile
