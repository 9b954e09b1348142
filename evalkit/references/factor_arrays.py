"""The factor of a covariance as arrays of a reference file, so that a distance need not factor it again.

Arrays of each head that has one: ``<head>/factor`` float64, the lower triangle of pivoted Cholesky column by
column, ``[d (d + 1) / 2]``, with columns of zeros beyond its rank, and ``<head>/factor_order`` int64 ``[d]``:
``covariance[order][:, order] = T T^T``.

Accepted trade-offs: a factor doubles what a head's moments take (17 MB in 2048 dimensions). So references in
this machine's cache have one, and files that travel (``--out``, the bundled ones, those of other tools) do
not: there it is computed, once for each run. It follows from the covariance and is no part of the identity.
What is read is compared with the covariance on the diagonal and along two random directions, at d^2
operations where a product would take d^3; the digest in the header guards the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.references.class_arrays import array_of
from evalkit.references.heads import Factor, HeadStatistics

if TYPE_CHECKING:
    from evalkit.core import Float64Array

TRIANGLE, ORDER = "factor", "factor_order"
_TOLERANCE = 1e-9
Arrays = Mapping[str, NDArray[Any]]


def factor_of(covariance: Float64Array) -> Factor:
    """Factor a covariance, as :func:`evalkit.numerics.linalg.psd_triangle` does.

    Raises:
        InvalidInputError: it is not a covariance.
    """
    from evalkit.numerics.linalg import psd_triangle  # noqa: PLC0415 - loads scipy

    return psd_triangle(covariance, "covariance")


def encode_factor(name: str, head: HeadStatistics) -> dict[str, NDArray[Any]]:
    """Return the arrays of head ``name``'s factor; none where it has none."""
    if head.factor is None:
        return {}
    triangle, order = head.factor
    dimension, rank = triangle.shape
    columns = [triangle[column:, column] for column in range(rank)]
    zeros = np.zeros((dimension - rank) * (dimension - rank + 1) // 2)
    return {
        f"{name}/{TRIANGLE}": np.concatenate([*columns, zeros]).astype(np.float64),
        f"{name}/{ORDER}": np.ascontiguousarray(order, dtype=np.int64),
    }


def decode_factor(name: str, arrays: Arrays, *, covariance: Float64Array, label: str) -> Factor | None:
    """Return the factor of head ``name``, checked against its covariance; None where the file has none.

    Raises:
        InvalidInputError: an array is missing, of the wrong dtype or shape, or belongs to another covariance.
    """
    if not {f"{name}/{TRIANGLE}", f"{name}/{ORDER}"} & arrays.keys():
        return None
    packed = array_of(arrays, f"{name}/{TRIANGLE}", dtypes=("float64",), label=label)
    order = array_of(arrays, f"{name}/{ORDER}", dtypes=("int64",), label=label)
    dimension = len(covariance)
    expected = dimension * (dimension + 1) // 2
    if packed.shape != (expected,) or not np.array_equal(np.sort(order), np.arange(dimension)):
        raise InvalidInputError(f"{label}: the factor has shape {list(packed.shape)}, not [{expected}]")
    triangle = np.zeros((dimension, dimension), order="F")
    start = 0
    for column in range(dimension):
        stop = start + dimension - column
        triangle[column:, column] = packed[start:stop]
        start = stop
    triangle = triangle[:, : int(np.count_nonzero(triangle.diagonal()))]
    if not _fits(triangle, order, covariance):
        raise InvalidInputError(
            f"{label}: the factor is not that of the covariance", hint="build the reference again"
        )
    return triangle, order


def _fits(triangle: Float64Array, order: NDArray[np.int64], covariance: Float64Array) -> bool:
    diagonal = covariance.diagonal()
    scale = float(diagonal.max())
    squares = np.empty(len(order))
    squares[order] = np.einsum("ij,ij->i", triangle, triangle)
    # Directions that hit every entry, drawn from a fixed seed.
    directions = np.random.default_rng(0).standard_normal((len(order), 2))
    product = np.empty_like(directions)
    product[order] = triangle @ (triangle.T @ directions[order])
    error = np.abs(product - covariance @ directions).max()
    # Not "greater than": a factor that holds NaN must fail.
    return bool(
        np.abs(squares - diagonal).max() <= _TOLERANCE * scale and error <= _TOLERANCE * scale * len(order)
    )
