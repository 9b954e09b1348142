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
from scipy.linalg import blas, eigh, eigvalsh, lapack

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, IndexArray

# Rounding of a covariance kept in float32 is about 6e-8 of its largest entry; anything well above that is
# not rounding but a broken statistics file.
SYMMETRY_TOLERANCE = 1e-6
NEGATIVE_TOLERANCE = 1e-6
# Eigenvalues from a Gram matrix carry an absolute error of a few eps of the largest one (Golub & Van Loan
# 2013, theorem 8.1.5 with the product's own rounding); 16 bounds every case that was compared with an SVD.
GRAM_ERROR = 16 * float(np.finfo(np.float64).eps)
LOGARITHM_ERROR = 1e-13
# Rows compared with their columns at a time, so that both stay in a core's cache.
_TILE = 128


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
    if _is_symmetric(array):
        return array
    asymmetry = float(np.abs(array - array.T).max())
    if asymmetry > SYMMETRY_TOLERANCE * float(np.abs(array).max()):
        raise InvalidInputError(f"{name} is not symmetric: entries differ by up to {asymmetry:.3g}")
    return np.asarray((array + array.T) / 2, dtype=np.float64)


def _is_symmetric(array: Float64Array) -> bool:
    """Whether a square matrix equals its transpose: one read of it, and no copy."""
    return all(
        np.array_equal(array[start : start + _TILE, start:], array[start:, start : start + _TILE].T)
        for start in range(0, len(array), _TILE)
    )


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

    :func:`psd_triangle` with its rows put back.

    Args:
        matrix: real ``[d, d]``.
        name: what the matrix is, for messages.

    Returns:
        float64 ``[d, r]`` with ``r`` the numerical rank (0 for the zero matrix).

    Raises:
        InvalidInputError: not square, finite and symmetric, or clearly not positive semidefinite.
    """
    triangle, order = psd_triangle(matrix, name)
    factor = np.empty(triangle.shape)
    factor[order] = triangle
    return factor


def psd_triangle(matrix: NDArray[np.generic], name: str = "matrix") -> tuple[Float64Array, IndexArray]:
    """Rank-revealing triangular factor: ``S[order][:, order] = T T^T``, the columns of T largest first.

    Pivoted Cholesky (LAPACK dpstrf; Higham 2002, section 10.3). It keeps graded matrices accurate to the
    last entry, where an eigendecomposition would lose everything below eps of the largest eigenvalue.

    Args:
        matrix: real ``[d, d]``.
        name: what the matrix is, for messages.

    Returns:
        ``(T, order)``: float64 ``[d, r]`` in Fortran order, zero above the diagonal, with ``r`` the numerical
        rank (0 for the zero matrix), and int64 ``[d]``.

    Raises:
        InvalidInputError: not square, finite and symmetric, or clearly not positive semidefinite.
    """
    symmetric = checked_symmetric(matrix, name)
    # The transpose of a C-ordered symmetric matrix is the same matrix in LAPACK's order.
    packed, pivots, rank, _ = lapack.dpstrf(symmetric.T, lower=1)
    order = np.asarray(pivots - 1, dtype=np.int64)
    triangle = packed[:, :rank]
    for column in range(1, rank):
        triangle[: min(column, len(order)), column] = 0.0
    dropped = order[rank:]
    if len(dropped):
        _check_remainder(symmetric[np.ix_(dropped, dropped)], triangle[rank:], symmetric, name)
    return triangle, order


def _check_remainder(left: Float64Array, rows: Float64Array, whole: Float64Array, name: str) -> None:
    # What is left after the last pivot must be rounding; an indefinite matrix leaves something large.
    largest = float(np.abs(left - rows @ rows.T).max())
    if largest > NEGATIVE_TOLERANCE * float(np.abs(whole).max()):
        raise InvalidInputError(
            f"{name} is not positive semidefinite: {largest:.3g} is left after rank {rows.shape[1]}",
            hint="a covariance cannot have negative eigenvalues; rebuild the statistics file",
        )


def times_triangle(matrix: Float64Array, triangle: Float64Array, *, overwrite: bool = False) -> Float64Array:
    """``matrix @ triangle`` at half the operations of a full product.

    Args:
        matrix: float64 ``[m, d]``, fastest in C order.
        triangle: float64 ``[d, r]``, zero above the diagonal, fastest in Fortran order.
        overwrite: whether ``matrix`` may be used as scratch space.

    Returns:
        float64 ``[m, r]``.
    """
    rank = triangle.shape[1]
    if not matrix.size or not rank:
        return matrix[:, :rank] @ triangle[:rank]
    scratch = overwrite and rank == matrix.shape[1]
    # BLAS sees the transpose of a C-ordered matrix: T^T M^T.
    product = blas.dtrmm(
        1.0, triangle[:rank], matrix[:, :rank].T, lower=1, trans_a=1, overwrite_b=int(scratch)
    ).T
    if rank < len(triangle):
        product += matrix[:, rank:] @ triangle[rank:]
    return np.asarray(product, dtype=np.float64)


def root_sum(eigenvalues: Float64Array, *, scale: float = 0.0) -> tuple[float, float]:
    """Sum of square roots of the eigenvalues of a Gram matrix, with a bound of its error.

    An eigenvalue with absolute error ``e`` gives a root with error at most ``e / max(sqrt(w), sqrt(e))``.

    Args:
        eigenvalues: float64 ``[r]`` in any order; slightly negative ones count as zero.
        scale: largest eigenvalue of what the matrix was computed from, where that is larger than its own.

    Returns:
        ``(sum, error)``.
    """
    if eigenvalues.size == 0:
        return 0.0, 0.0
    noise = GRAM_ERROR * max(scale, float(np.abs(eigenvalues).max()))
    if noise == 0.0:
        return 0.0, 0.0
    roots = np.sqrt(np.clip(eigenvalues, 0.0, None))
    return float(roots.sum()), float((noise / np.maximum(roots, np.sqrt(noise))).sum())


def root_sum_error(eigenvalues: Float64Array, log_determinant: float) -> float:
    """Estimate the error of :func:`root_sum` from a determinant that is known to the last digits.

    The logarithms of the eigenvalues must add up to that of the determinant; what is missing is the sum of
    their relative errors. It is read once as equal absolute errors, as an eigensolver makes them, and once as
    equal relative ones, as in a graded matrix; a tenth of the larger counts. Against singular values that was
    at least 10 times the error on 110 spectra, smooth, gapped and flat (tests/numerics/test_frechet.py holds
    some); a spectrum whose small eigenvalues are lost misses the determinant by far.

    Args:
        eigenvalues: float64 ``[r]``, ``r >= 1``.
        log_determinant: natural logarithm of their true product.

    Returns:
        The estimate; infinite where an eigenvalue is not positive.
    """
    if float(eigenvalues.min()) <= 0:
        return float("inf")
    count = len(eigenvalues)
    # The logarithms themselves are rounded.
    missing = max(
        abs(float(np.log(eigenvalues).sum()) - log_determinant), LOGARITHM_ERROR * float(np.sqrt(count))
    )
    roots = np.sqrt(eigenvalues)
    inverse = float(eigenvalues.min()) / eigenvalues  # scaled, so that squares stay in range
    absolute = float((inverse * roots).sum()) / float(np.sqrt(np.square(inverse).sum()))
    return missing * max(absolute, float(roots.sum()) / float(np.sqrt(count))) / 2 / 10


def symmetric_eigenvalues(matrix: Float64Array, *, overwrite: bool = False) -> Float64Array:
    """Eigenvalues of a symmetric matrix, of which only the lower triangle is read.

    Args:
        matrix: float64 ``[d, d]``.
        overwrite: whether ``matrix`` may be used as scratch space.

    Returns:
        float64 ``[d]`` in ascending order.
    """
    if not matrix.size:
        return np.zeros(0)
    # LAPACK wants Fortran order, in which a C-ordered lower triangle is the upper one.
    lower = bool(matrix.flags.f_contiguous)
    array = matrix if lower else matrix.T
    return np.asarray(
        eigvalsh(array, lower=lower, driver="evd", overwrite_a=overwrite, check_finite=False),
        dtype=np.float64,
    )


def symmetric_eigenvectors(matrix: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Eigenvalues and eigenvectors of a symmetric matrix, of which only the lower triangle is read.

    Args:
        matrix: float64 ``[d, d]``, ``d >= 1``.

    Returns:
        float64 ``[d]`` in ascending order, and ``[d, d]``, a column each.
    """
    values, vectors = eigh(matrix, lower=True, driver="evd", check_finite=False)
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def lower_gram(matrix: Float64Array) -> Float64Array:
    """Lower triangle of ``A A^T``, by a symmetric update: half a product.

    Args:
        matrix: float64 ``[m, n]``, in C or Fortran order.

    Returns:
        float64 ``[m, m]`` in Fortran order; what lies above the diagonal means nothing.
    """
    if not matrix.size:
        return np.zeros((len(matrix), len(matrix)), order="F")
    if matrix.flags.f_contiguous:
        return np.asarray(blas.dsyrk(1.0, matrix, lower=1))
    return np.asarray(blas.dsyrk(1.0, matrix.T, trans=1, lower=1))


def gram_nuclear_norm(matrix: Float64Array) -> tuple[float, float]:
    """Nuclear norm by the eigenvalues of the smaller Gram matrix, with a bound of its error.

    Three times faster than singular values; the caller decides whether the error will do.

    Args:
        matrix: float64 ``[m, n]``.

    Returns:
        ``(norm, error)``.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return root_sum(symmetric_eigenvalues(lower_gram(small), overwrite=True))


def polar_rows(matrix: Float64Array) -> Float64Array:
    """Polar factor ``U = P Q^T`` of ``matrix = P diag(s) Q^T`` with ``m <= n``: ``U U^T = I``.

    Args:
        matrix: float64 ``[m, n]``, ``m <= n``.

    Returns:
        float64 ``[m, n]`` with orthonormal rows.
    """
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left @ right, dtype=np.float64)
