"""Cholesky factors without pivoting, and products with them: for matrices that are clearly definite."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from evalkit.numerics.arrays import Float64Array


def cholesky(symmetric: Float64Array) -> Float64Array | None:
    """Lower triangle ``L`` with ``S = L L^T``, without pivoting (LAPACK dpotrf); half the time of pivoting.

    Args:
        symmetric: float64 ``[d, d]``, symmetric and in C order.

    Returns:
        float64 ``[d, d]`` in Fortran order, of which what lies above the diagonal means nothing; None where S
        is not positive definite.
    """
    triangle, failed = lapack.dpotrf(symmetric.T, lower=1, clean=0)
    return None if failed else np.asarray(triangle, dtype=np.float64)


def congruence(triangle: Float64Array, symmetric: Float64Array) -> Float64Array:
    """Lower triangle of ``T^T S T`` (LAPACK dsygst): half the operations of products.

    Args:
        triangle: T, float64 ``[d, d]`` in Fortran order; what lies above the diagonal is not read.
        symmetric: S, float64 ``[d, d]``, in C order.

    Returns:
        float64 ``[d, d]`` in Fortran order; what lies above the diagonal means nothing.
    """
    found, _ = lapack.dsygst(symmetric.T, triangle, itype=2, lower=1)
    return np.asarray(found, dtype=np.float64)
