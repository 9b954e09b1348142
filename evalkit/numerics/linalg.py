"""Square roots and factors of positive semidefinite matrices in float64.

A factor of ``S`` is any ``F`` with ``S = F F^T``. Working with factors keeps the condition number of a
covariance unsquared: the trace of ``(S1 S2)^1/2`` is the nuclear norm of ``F1^T F2``.

Accepted trade-offs:
    Directions whose variance is below ``d * eps`` of the largest diagonal entry (LAPACK's default rank
    tolerance) are dropped from a factor: in float64 they cannot be told from rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

# Rounding of a covariance kept in float32 is about 6e-8 of its largest entry; anything well above that is
# not rounding but a broken statistics file.
SYMMETRY_TOLERANCE = 1e-6
NEGATIVE_TOLERANCE = 1e-6
# Eigenvalues from a Gram matrix carry an absolute error of a few eps of the largest one (Golub & Van Loan
# 2013, theorem 8.1.5 with the product's own rounding); 16 bounds every case that was compared with an SVD.
GRAM_ERROR = 16 * float(np.finfo(np.float64).eps)


def checked_symmetric(matrix: NDArray[np.generic], name: str = "matrix") -> Float64Array:
    """Return ``matrix`` ``[d, d]`` as float64 with rounding asymmetry averaged away.

    Raises:
        InvalidInputError: not square, not finite, or asymmetric beyond 1e-6 of its largest entry.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] == 0:
        raise InvalidInputError(f"{name} must have shape [d, d] with d >= 1, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name} holds NaN or infinity")
    asymmetry = float(np.abs(array - array.T).max())
    if asymmetry > SYMMETRY_TOLERANCE * float(np.abs(array).max()):
        raise InvalidInputError(f"{name} is not symmetric: entries differ by up to {asymmetry:.3g}")
    return np.asarray((array + array.T) / 2, dtype=np.float64) if asymmetry else array


def sqrtm_psd(matrix: NDArray[np.generic]) -> Float64Array:
    """Principal square root of a symmetric positive semidefinite matrix, by its eigenvalues.

    Formula: ``S = Q diag(w) Q^T``, result ``Q diag(sqrt(max(w, 0))) Q^T`` (Higham 2008, section 1.2).

    Args:
        matrix: real ``[d, d]``.

    Returns:
        float64 ``[d, d]``, symmetric positive semidefinite.

    Raises:
        InvalidInputError: not square, finite and symmetric, or an eigenvalue below -1e-6 of the largest.
    """
    symmetric = checked_symmetric(matrix)
    values, vectors = np.linalg.eigh(symmetric)
    scale = float(np.abs(values).max())
    if values[0] < -NEGATIVE_TOLERANCE * scale:
        raise InvalidInputError(
            f"matrix is not positive semidefinite: its lowest eigenvalue is {values[0]:.3g}"
        )
    half = vectors * np.sqrt(np.sqrt(np.clip(values, 0.0, None)))
    return np.asarray(half @ half.T, dtype=np.float64)


def psd_factor(matrix: NDArray[np.generic], name: str = "matrix") -> Float64Array:
    """Rank-revealing factor ``F`` of a positive semidefinite matrix: ``F F^T = S``.

    Pivoted Cholesky (LAPACK dpstrf; Higham 2002, section 10.3). It keeps graded matrices accurate to the
    last entry, where an eigendecomposition would lose everything below eps of the largest eigenvalue.

    Args:
        matrix: real ``[d, d]``.
        name: what the matrix is, for messages.

    Returns:
        float64 ``[d, r]`` with ``r`` the numerical rank (0 for the zero matrix).

    Raises:
        InvalidInputError: not square, finite and symmetric, or clearly not positive semidefinite.
    """
    symmetric = checked_symmetric(matrix, name)
    packed, pivots, rank, _ = lapack.dpstrf(symmetric, lower=1)
    order = pivots - 1
    factor = np.zeros((len(symmetric), rank))
    factor[order] = np.tril(packed)[:, :rank]
    dropped = order[rank:]
    # What is left after the last pivot must be rounding; an indefinite matrix leaves something large.
    remainder = symmetric[np.ix_(dropped, dropped)] - factor[dropped] @ factor[dropped].T
    largest = float(np.abs(remainder).max(initial=0.0))
    if largest > NEGATIVE_TOLERANCE * float(np.abs(symmetric).max()):
        raise InvalidInputError(
            f"{name} is not positive semidefinite: {largest:.3g} is left after rank {rank}",
            hint="a covariance cannot have negative eigenvalues; rebuild the statistics file",
        )
    return factor


def root_sum(eigenvalues: Float64Array) -> tuple[float, float]:
    """Sum of square roots of the eigenvalues of a Gram matrix, with a bound of its error.

    An eigenvalue with absolute error ``e`` gives a root with error at most ``e / max(sqrt(w), sqrt(e))``.

    Args:
        eigenvalues: float64 ``[r]`` in any order; slightly negative ones count as zero.

    Returns:
        ``(sum, error)``.
    """
    if eigenvalues.size == 0:
        return 0.0, 0.0
    noise = GRAM_ERROR * float(np.abs(eigenvalues).max())
    if noise == 0.0:
        return 0.0, 0.0
    roots = np.sqrt(np.clip(eigenvalues, 0.0, None))
    return float(roots.sum()), float((noise / np.maximum(roots, np.sqrt(noise))).sum())


def symmetric_eigenvalues(matrix: Float64Array) -> Float64Array:
    """Eigenvalues of a symmetric matrix float64 ``[d, d]``, in ascending order ``[d]``."""
    return np.asarray(np.linalg.eigvalsh(matrix), dtype=np.float64)


def gram_nuclear_norm(matrix: Float64Array) -> tuple[float, float]:
    """Nuclear norm by the eigenvalues of the smaller Gram matrix, with a bound of its error.

    Three times faster than singular values; the caller decides whether the error will do.

    Args:
        matrix: float64 ``[m, n]``.

    Returns:
        ``(norm, error)``.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return root_sum(symmetric_eigenvalues(small @ small.T)) if small.size else (0.0, 0.0)


def polar_rows(matrix: Float64Array) -> Float64Array:
    """Polar factor ``U = P Q^T`` of ``matrix = P diag(s) Q^T`` with ``m <= n``: ``U U^T = I``.

    Args:
        matrix: float64 ``[m, n]``, ``m <= n``.

    Returns:
        float64 ``[m, n]`` with orthonormal rows.
    """
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left @ right, dtype=np.float64)
