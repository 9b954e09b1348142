"""The trace of a matrix root without eigenvalues: from determinants of a band matrix that has the same.

Tridiagonal form, on the way to eigenvalues, reads the whole matrix for every column. A band of 32 needs only
products of thick panels (the first stage of Bischof, Lang & Sun 2000, algorithm 1), and its determinants with
30 shifts cost as much as one product of 400 columns (:mod:`evalkit.numerics.root_traces`).

Every product is scipy's BLAS, as its LAPACK is: the threads of numpy's own copy of that library would go on
waiting busily for more, and take the cores from this one (2.6 times the seconds on two cores).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import blas, lapack

from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.linalg import LOGARITHM_ERROR
from evalkit.numerics.root_traces import ROUNDING, root_rule

WIDTH = 32
# What is left is moved together after so many columns; until then, done rows are worked on for nothing.
TOGETHER = 128
# Rule and rounding: far below what the determinant tells of the matrix itself.
RULE_ERROR = 1e-13
# Squares of what is smaller or larger leave the range of numbers.
SMALLEST_SCALE = 1e-60


def band_of(matrix: Float64Array, *, width: int = WIDTH) -> Float64Array:
    """Return a band matrix with the eigenvalues of a symmetric one.

    Args:
        matrix: float64 ``[d, d]`` in Fortran order, of which the lower triangle is read; overwritten.
        width: of the band, at least 1.

    Returns:
        float64 ``[width + 1, d]``: the diagonal and those below it, as LAPACK stores them.
    """
    count = len(matrix)
    band, part, first = np.zeros((width + 1, count)), matrix, 0
    for start in range(0, count, width):
        stop = min(first + width, len(part))
        for column in range(stop - first):
            below = part[first + column : stop, first + column]
            band[: len(below), start + column] = below
        if stop == len(part):
            break
        vectors, upper, weights = _reflectors(part[stop:, first:stop])
        rows = len(upper)
        for column in range(stop - first):
            kept = min(column + 1, rows)
            top = width - column
            band[top : top + kept, start + column] = upper[:kept, column]
        _reflect(part, stop, vectors, weights)
        first = stop
        if first >= TOGETHER:
            part, first = np.asfortranarray(part[first:, first:]), 0
    return band


def _reflectors(panel: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """V, R and T of ``panel = (1 - V T V^T) [R; 0]``."""
    packed, factors, _, _ = lapack.dgeqrf(np.asfortranarray(panel))
    rank = len(factors)
    upper, vectors = np.triu(packed[:rank]), packed[:, :rank]
    vectors[:rank] = np.tril(vectors[:rank], -1) + np.eye(rank)
    # T^-1 = strict upper triangle of V^T V, with 1 / tau on the diagonal (Puglisi 1992); no reflection: 0.
    used = factors != 0
    inverse = np.triu(blas.dgemm(1.0, vectors, vectors, trans_a=1), 1)
    inverse[:, ~used] = inverse[~used] = 0
    inverse[np.diag_indices(rank)] = 1 / np.where(used, factors, 1)
    weights = lapack.dtrtri(inverse)[0]
    weights[:, ~used] = weights[~used] = 0
    return vectors, upper, weights


def _reflect(part: Float64Array, stop: int, vectors: Float64Array, weights: Float64Array) -> None:
    """``(1 - V T V^T)^T A (1 - V T V^T)`` of the rows and columns from ``stop`` on, in place."""
    across = np.zeros((len(part), len(weights)), order="F")
    across[stop:] = vectors
    product = blas.dgemm(1.0, blas.dsymm(1.0, part, across, lower=1), weights)
    inner = blas.dgemm(0.5, weights, blas.dgemm(1.0, across, product, trans_a=1), trans_a=1)
    along = blas.dgemm(-1.0, across, inner, beta=1.0, c=product, overwrite_c=1)
    along[:stop] = 0.0
    blas.dsyr2k(-1.0, across, along, beta=1.0, c=part, lower=1, overwrite_c=1)


def root_trace(matrix: Float64Array, *, log_determinant: float) -> tuple[float, float] | None:
    """Trace of the root of a positive definite matrix, with an estimate of its error.

    The estimate is that of :func:`evalkit.numerics.linalg.root_sum_error`, with bounds in the place of sums
    over eigenvalues: ``sum w^-1/2 <= (d sum 1/w)^1/2``, and the sums of 1/w and 1/w^2 by differences of
    determinants.

    Args:
        matrix: float64 ``[d, d]`` in Fortran order, of which the lower triangle is read; overwritten.
        log_determinant: natural logarithm of its true determinant.

    Returns:
        ``(trace, error)``; None where rounding left a matrix that is not positive definite.
    """
    count = len(matrix)
    band = band_of(matrix)
    largest = float(np.abs(band).max())
    if not SMALLEST_SCALE < largest < 1 / SMALLEST_SCALE:
        return None
    high = math.sqrt(float(2 * np.square(band).sum()))  # at least the Frobenius norm
    found = _log_determinant(band, 0.0)
    if found is None:
        return None
    triangle, at_zero = found
    step = _smallest(triangle) / 4
    near = [_log_determinant(band, shift) for shift in (step, 2 * step)]
    if None in near:
        return None
    one, two = (result[1] for result in near if result is not None)
    inverse, squared = 2 * (one - at_zero) / step, (2 * one - two - at_zero) / step**2
    if not squared > 0 or not math.isfinite(inverse):
        return None
    rule = root_rule(min(0.5 / math.sqrt(squared), high), high, error=RULE_ERROR)
    shifted = [_log_determinant(band, float(shift)) for shift in rule.shifts]
    if None in shifted:
        return None
    logarithms = np.array([result[1] for result in shifted if result is not None])
    trace = rule.root_trace(logarithms, count=count)
    missing = max(abs(at_zero - log_determinant), LOGARITHM_ERROR * math.sqrt(count))
    absolute, relative = math.sqrt(count * inverse / squared), trace / math.sqrt(count)
    rounding = rule.error * trace + count * ROUNDING * math.sqrt(high)
    return trace, missing * max(absolute, relative) / 2 / 10 + rounding


def _log_determinant(band: Float64Array, shift: float) -> tuple[Float64Array, float] | None:
    """Cholesky factor of the band with ``shift`` added to its diagonal, and log of its determinant."""
    shifted = np.array(band, order="F")
    shifted[0] += shift
    triangle, failed = lapack.dpbtrf(shifted, lower=1, overwrite_ab=1)
    return None if failed else (triangle, 2 * float(np.log(triangle[0]).sum()))


def _smallest(triangle: Float64Array) -> float:
    """About the smallest eigenvalue of a band matrix with this factor, never less: by inverse iteration."""
    vector = np.random.default_rng(0).standard_normal(triangle.shape[1])
    smallest = math.inf
    for _ in range(4):
        vector /= float(np.linalg.norm(vector))
        vector, _ = lapack.dpbtrs(triangle, vector, lower=1)
        smallest = 1 / float(np.linalg.norm(vector))
    return smallest
