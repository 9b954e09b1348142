"""Leave-one-block-out Fréchet distances in one batch, from one projection of all rows.

Without some rows, the centred second moment of the others is that of all, less that of the rows about the
common mean, less a term of rank one (Chan, Golub & LeVeque 1979, eq. 2.1, solved for one part)::

    M2_rest = M2 - sum_rows (x - m)(x - m)^T - s s^T / n_rest        s = sum_rows (x - m)

With ``S_reference = F F^T`` the nuclear norm needs the eigenvalues of ``F^T M2_rest F``. ``F^T M2 F`` is
formed once, ``(x - m)^T F`` once for each row, so that a block costs a thin symmetric update and its
eigenvalues. Where the spectrum of the rest is not asked for, its eigenvalues are not found either: the
nuclear norm follows from determinants (:mod:`evalkit.numerics.downdates`). With no more rows than dimensions
see :mod:`evalkit.numerics.leave_out_few`.

Accepted trade-offs: what is subtracted cancels where one block holds most of the variance. The error is
bounded by the largest eigenvalue of all rows, and a block that it does not prove good to
``LEAVE_OUT_ERROR`` is measured by itself.

Memory: a few matrices ``[d, d]`` and a few MB, whatever the number of rows: large blocks are taken away a
chunk at a time. By determinants each core holds a group's rows, which are fewer than d / 4, three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.linalg import blas

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray
from evalkit.numerics.blocks import chunks_of, sizes_of
from evalkit.numerics.downdates import RULE_SHARE, Spectrum, without_rows, worth_it
from evalkit.numerics.frechet import (
    GRADED_ERROR,
    LEAVE_OUT_ERROR,
    ROUNDING,
    SMALL,
    GaussianFactor,
)
from evalkit.numerics.linalg import root_sum, symmetric_eigenvalues
from evalkit.numerics.products import side_by_side

# Numbers in the rows that are projected at a time; no fewer rows than dimensions.
_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """What is left without some blocks.

    Attributes:
        count: number of rows.
        distance: squared Fréchet distance to the reference.
        trace: trace of the covariance, divisor count - 1.
        eigenvalues: float64 ``[r]`` of ``F^T S F`` in ascending order, ``S`` the covariance.
    """

    count: int
    distance: float
    trace: float
    eigenvalues: Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """Moments of all rows, of which some are left out.

    Attributes:
        count: number of rows.
        mean: float64 ``[d]``.
        covariance: float64 ``[d, d]``, divisor count - 1.
    """

    count: int
    mean: Float64Array
    covariance: Float64Array


def rests_without(
    blocks: Sequence[FloatArray],
    left_out: Sequence[Sequence[int]],
    reference: GaussianFactor,
    *,
    whole: Whole,
    measure: Callable[[Sequence[int]], float],
) -> Iterator[Rest]:
    """Yield the distance and the spectrum without the blocks of each of ``left_out``; for ``n > d``.

    Args:
        blocks: finite float ``[n_b, d]`` arrays, of which some may be empty; each is read once a group.
        left_out: numbers of the blocks to leave out together, each with at least two rows left.
        reference: the other side.
        whole: moments of all blocks.
        measure: the distance without these blocks by the plain way, for where the update is not proven good.

    Raises:
        InvalidInputError: the dimensions differ, or fewer than two rows are left.
    """
    freedom = whole.count - 1
    projected = _projected(whole, reference)
    total = float(np.trace(whole.covariance)) * freedom
    largest = float(np.linalg.norm(projected))  # Frobenius: a bound of the largest eigenvalue
    theirs, offset = reference.trace, whole.mean - reference.mean
    for group in left_out:
        left = _left(blocks, group, whole) - 1
        rest, taken, moved = projected, 0.0, offset
        for rows, so_far in _left_rows(blocks, group, whole):
            rest = _downdated(rest, reference.project(rows), overwrite=rest is not projected)
            taken, moved = taken + _squared(rows), so_far
        spectrum = symmetric_eigenvalues(rest, overwrite=True) / left
        nuclear, error = root_sum(spectrum, scale=largest / left)
        if reference.graded and len(spectrum) > SMALL:
            cancelled = max(1.0, largest / left / max(float(spectrum[-1]), np.finfo(np.float64).tiny))
            error = min(error, GRADED_ERROR * nuclear * cancelled)
        trace = (total - taken) / left
        at = offset - moved
        distance = float(at @ at) + trace + theirs - 2 * nuclear
        rounding = ROUNDING * (total / left + theirs)
        if not 2 * error + rounding <= LEAVE_OUT_ERROR * distance:
            distance = measure(group)
        yield Rest(left + 1, distance, trace, spectrum)


def distances_without(
    blocks: Sequence[FloatArray],
    left_out: Sequence[Sequence[int]],
    reference: GaussianFactor,
    *,
    whole: Whole,
    measure: Callable[[Sequence[int]], float],
) -> Float64Array:
    """Distances of :func:`rests_without`, without the spectra; 2 to 3 times as fast for many small groups.

    Args and errors: as there.

    Returns:
        float64 ``[len(left_out)]``.
    """
    slow = partial(rests_without, blocks, reference=reference, whole=whole, measure=measure)
    sizes = sizes_of(blocks)
    largest = max((sum(sizes[block] for block in group) for group in left_out), default=0) + 1
    spectrum = None
    if worth_it(largest, rank=reference.rank, groups=len(left_out)):
        inner = _projected(whole, reference)
        spectrum = Spectrum.of(inner, relative_error=GRADED_ERROR if reference.graded else 1.0)
    if spectrum is None or not spectrum.serves(_allowed(whole, reference, spectrum)):
        return np.asarray([rest.distance for rest in slow(left_out=left_out)])
    found = list(_by_determinants(blocks, left_out, reference, whole, spectrum))
    again = [group for group, (_, proven) in zip(left_out, found, strict=True) if not proven]
    anew = (rest.distance for rest in slow(left_out=again))
    return np.array([distance if proven else next(anew) for distance, proven in found], dtype=np.float64)


def _allowed(whole: Whole, reference: GaussianFactor, spectrum: Spectrum) -> float:
    """How far the sum of roots may be off, in its units, in a distance like that of all rows."""
    offset, freedom = whole.mean - reference.mean, whole.count - 1
    traces = float(np.trace(whole.covariance)) + reference.trace
    distance = (float(offset @ offset) + traces) * np.sqrt(freedom) - 2 * spectrum.nuclear
    return float(LEAVE_OUT_ERROR * distance / 2)


def _by_determinants(
    blocks: Sequence[FloatArray],
    left_out: Sequence[Sequence[int]],
    reference: GaussianFactor,
    whole: Whole,
    spectrum: Spectrum,
) -> Iterator[tuple[float, bool]]:
    """Yield the distance without the rows of each group, and whether it is proven good enough.

    Groups go side by side, where that is asked for (:func:`evalkit.numerics.products.side_by_side`).
    """
    total = float(np.trace(whole.covariance)) * (whole.count - 1)
    theirs, offset = reference.trace, whole.mean - reference.mean
    turn = blas.dgemm(1.0, reference.factor, spectrum.vectors)
    rule = spectrum.rule(RULE_SHARE * _allowed(whole, reference, spectrum))

    def without(group: Sequence[int]) -> tuple[float, bool]:
        left = _left(blocks, group, whole) - 1
        ((rows, moved),) = _left_rows(blocks, group, whole)  # it pays for groups below the rank only
        nuclear, error = without_rows(spectrum, rows @ turn, rule)
        at = offset - moved
        traces = (total - _squared(rows)) / left + theirs
        distance = float(at @ at) + traces - 2 * nuclear / np.sqrt(left)
        rounding = ROUNDING * (total / left + theirs)
        return distance, bool(2 * error / np.sqrt(left) + rounding <= LEAVE_OUT_ERROR * distance)

    return side_by_side(without, left_out)


def _squared(rows: Float64Array) -> float:
    """Sum of squares; no BLAS of numpy's, whose threads would wait busily while those of scipy multiply."""
    return float(np.einsum("ij,ij->", rows, rows))


def _projected(whole: Whole, reference: GaussianFactor) -> Float64Array:
    """``F^T M2 F`` of all rows, float64 ``[r, r]`` in Fortran order."""
    if len(whole.mean) != len(reference.mean):
        raise InvalidInputError(f"{len(whole.mean)} features against {len(reference.mean)} of the reference")
    projected = reference.project(reference.project(whole.covariance).T) * (whole.count - 1)
    return np.asfortranarray(projected)


def _left(blocks: Sequence[FloatArray], group: Sequence[int], whole: Whole) -> int:
    """Number of rows without the blocks of ``group``."""
    sizes = sizes_of(blocks)
    left = whole.count - sum(sizes[block] for block in group)
    if left < 2:
        raise InvalidInputError(f"{left} rows are left without a block; at least 2 are needed")
    return left


def _left_rows(
    blocks: Sequence[FloatArray], group: Sequence[int], whole: Whole
) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Yield rows ``[m, d]`` whose Gram matrices are to be subtracted, and how far the mean moves down so far.

    They are the rows of the group about the common mean, a chunk at a time, and last of all their scaled sum.
    """
    left, dimension = _left(blocks, group, whole), len(whole.mean)
    count, total = whole.count - left, np.zeros(dimension)
    seen = 0
    for chunk in chunks_of(blocks, group, rows=max(_CHUNK // dimension, dimension)):
        seen += len(chunk)
        rows = np.empty((len(chunk) + (seen == count), dimension))
        np.subtract(chunk, whole.mean, out=rows[: len(chunk)])
        total += rows[: len(chunk)].sum(axis=0)
        if seen == count:
            rows[-1] = total / np.sqrt(left)
        yield rows, total / left
    if not count:
        yield np.zeros((1, dimension)), total


def _downdated(matrix: Float64Array, rows: Float64Array, *, overwrite: bool) -> Float64Array:
    """Lower triangle of ``matrix - rows^T rows``."""
    if not matrix.size:
        return matrix
    updated = blas.dsyrk(
        -1.0, np.ascontiguousarray(rows).T, beta=1.0, c=matrix, lower=1, overwrite_c=overwrite
    )
    return np.asarray(updated, dtype=np.float64)
