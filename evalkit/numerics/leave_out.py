"""Leave-one-block-out Fréchet distances in one batch: only the eigenvalues are found anew for each block.

Without some rows, the centred second moment of the others is that of all, less that of the rows about the
common mean, less a term of rank one (Chan, Golub & LeVeque 1979, eq. 2.1, solved for one part)::

    M2_rest = M2 - sum_rows (x - m)(x - m)^T - s s^T / n_rest        s = sum_rows (x - m)

With ``S_reference = F F^T`` the nuclear norm needs the eigenvalues of ``F^T M2_rest F``. ``F^T M2 F`` is
formed once, ``(x - m)^T F`` once for each row, so that a block costs a thin symmetric update and its
eigenvalues. With no more rows than dimensions the Gram matrix of the rows takes the place of ``F^T M2 F``.

Accepted trade-offs: what is subtracted cancels where one block holds most of the variance. The error is
bounded by the largest eigenvalue of all rows, and a block that it does not prove good to
``LEAVE_OUT_ERROR`` is measured by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, checked_features
from evalkit.numerics.frechet import (
    GRADED_ERROR,
    LEAVE_OUT_ERROR,
    ROUNDING,
    SMALL,
    GaussianFactor,
    frechet_distance_between,
    gaussian_factor_from_features,
)
from evalkit.numerics.linalg import lower_gram, root_sum, symmetric_eigenvalues


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
        blocks: finite float ``[n_b, d]`` arrays, of which some may be empty.
        left_out: numbers of the blocks to leave out together, each with at least two rows left.
        reference: the other side.
        whole: moments of all blocks.
        measure: the distance without these blocks by the plain way, for where the update is not proven good.

    Raises:
        InvalidInputError: the dimensions differ, or fewer than two rows are left.
    """
    if len(whole.mean) != len(reference.mean):
        raise InvalidInputError(f"{len(whole.mean)} features against {len(reference.mean)} of the reference")
    freedom = whole.count - 1
    projected = reference.project(reference.project(whole.covariance).T) * freedom
    projected = np.asfortranarray(projected)
    total = float(np.trace(whole.covariance)) * freedom
    largest = float(np.linalg.norm(projected))  # Frobenius: a bound of the largest eigenvalue
    offset = whole.mean - reference.mean
    for group in left_out:
        rows, moved = _left_rows([blocks[block] for block in group], whole)
        left = freedom - len(rows) + 1  # the last of the rows is the sum
        spectrum = (
            symmetric_eigenvalues(_downdated(projected, reference.project(rows)), overwrite=True) / left
        )
        nuclear, error = root_sum(spectrum, scale=largest / left)
        if reference.graded and len(spectrum) > SMALL:
            cancelled = max(1.0, largest / left / max(float(spectrum[-1]), np.finfo(np.float64).tiny))
            error = min(error, GRADED_ERROR * nuclear * cancelled)
        trace = (total - float(np.vdot(rows, rows))) / left
        at = offset - moved
        distance = float(at @ at) + trace + reference.trace - 2 * nuclear
        rounding = ROUNDING * (total / left + reference.trace)
        if not 2 * error + rounding <= LEAVE_OUT_ERROR * distance:
            distance = measure(group)
        yield Rest(left + 1, distance, trace, spectrum)


def _left_rows(blocks: Sequence[FloatArray], whole: Whole) -> tuple[Float64Array, Float64Array]:
    """Rows ``[m + 1, d]`` whose Gram matrix is to be subtracted, and how far the mean moves down."""
    count = sum(map(len, blocks))
    left = whole.count - count
    if left < 2:
        raise InvalidInputError(f"{left} rows are left without a block; at least 2 are needed")
    rows = np.empty((count + 1, len(whole.mean)))
    if count:
        np.subtract(np.concatenate(blocks), whole.mean, out=rows[:-1])
    total = rows[:-1].sum(axis=0)
    rows[-1] = total / np.sqrt(left)
    return rows, total / left


def _downdated(matrix: Float64Array, rows: Float64Array) -> Float64Array:
    """Lower triangle of ``matrix - rows^T rows``."""
    if not matrix.size:
        return matrix
    updated = blas.dsyrk(-1.0, np.ascontiguousarray(rows).T, beta=1.0, c=matrix, lower=1)
    return np.asarray(updated, dtype=np.float64)


def frechet_without_blocks(
    features: NDArray[np.generic], edges: Sequence[int], reference: GaussianFactor
) -> Float64Array:
    """Leave-one-block-out Fréchet distances of features with ``n <= d`` (right for any n, fast for those).

    The Gram matrix ``G = X S_reference X^T`` is formed once; without a block, the nuclear norm needs only the
    re-centred submatrix of ``G`` (the reflector of :func:`gaussian_factor_from_features` on both sides).

    Args:
        features: float ``[n, d]``.
        edges: ``[blocks + 1]`` increasing row numbers from 0 to n.
        reference: the other side.

    Returns:
        float64 ``[blocks]``.

    Raises:
        InvalidInputError: wrong shapes, non-finite values, or fewer than 2 rows left without a block.
    """
    checked = checked_features(features, "features", minimum=2)
    if checked.shape[1] != len(reference.mean):
        raise InvalidInputError(f"{checked.shape[1]} features against {len(reference.mean)} of the reference")
    mean = checked.mean(axis=0, dtype=np.float64)
    centred = checked - mean
    lower = np.tril(lower_gram(reference.project(centred)))
    gram = lower + np.tril(lower, -1).T
    squares = np.einsum("ij,ij->i", centred, centred)
    other = reference.trace
    distances = np.empty(len(edges) - 1)
    for block, (start, stop) in enumerate(pairwise(edges)):
        keep = np.r_[0:start, stop : len(checked)]
        if len(keep) < 2:
            raise InvalidInputError(f"features without a block has {len(keep)} rows; at least 2 are needed")
        nuclear, error = root_sum(symmetric_eigenvalues(_reflected(gram[np.ix_(keep, keep)]), overwrite=True))
        moved = centred[start:stop].sum(axis=0) / len(keep)
        spread = float(squares[keep].sum()) - len(keep) * float(moved @ moved)
        traces = spread / (len(keep) - 1) + other
        scale = 2 / np.sqrt(len(keep) - 1)
        at = mean - moved - reference.mean
        distance = float(at @ at) + traces - scale * nuclear
        if scale * error + ROUNDING * traces > LEAVE_OUT_ERROR * distance:
            distance = frechet_distance_between(gaussian_factor_from_features(checked[keep]), reference)
        distances[block] = distance
    return distances


def _reflected(gram: Float64Array) -> Float64Array:
    """Gram matrix of the n - 1 centred, rotated rows, from that of the n rows themselves."""
    count = len(gram)
    weights = np.full(count, 1 / np.sqrt(count))
    weights[0] += 1
    weights /= np.sqrt(count) + 1
    shift = gram @ weights
    moved = gram - shift[:, None] - shift[None, :] + float(weights @ shift)
    return np.asarray(moved[1:, 1:], dtype=np.float64)
