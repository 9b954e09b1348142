"""The limit of a statistic at infinitely many images by a line in 1/N over random subsets.

    value(N) = limit + slope / N                            (Chong & Forsyth 2020, section 3.1)

>>> sizes = subset_sizes(100, start=10, points=4)
>>> sizes.tolist()
[10, 40, 70, 100]
>>> round(line_in_inverse(sizes, 3 + 5 / sizes)[0], 12)
3.0
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import IndexArray

DIGEST_BYTES = 16


def subset_sizes(total: int, *, start: int, points: int) -> IndexArray:
    """Sizes evenly spaced from ``start`` to ``total``, both included, rounded down and without repeats.

    Args:
        total: largest size.
        start: smallest size.
        points: how many; fewer come back where there are not as many integers.

    Returns:
        int64 ``[<= points]``, rising.

    Raises:
        InvalidInputError: fewer than two points, or ``start`` is not below ``total``.
    """
    if points < 2:
        raise InvalidInputError(f"a line needs at least 2 points, not {points}")
    if not 1 <= start < total:
        raise InvalidInputError(f"subsets from {start} to {total} images leave nothing to fit")
    return np.unique(np.linspace(start, total, points).astype(np.int64))


def line_in_inverse(sizes: NDArray[np.generic], values: NDArray[np.generic]) -> tuple[float, float]:
    """Least-squares line of ``values`` in ``1 / sizes``.

    Args:
        sizes: integers ``[k]``, at least two different.
        values: real ``[k]``.

    Returns:
        ``(limit, slope)``: the value at 1/N = 0 and the rise per unit of 1/N.

    Raises:
        InvalidInputError: shapes differ, fewer than two different sizes, or a value not finite.
    """
    inverse = 1 / np.asarray(sizes, dtype=np.float64)
    heights = np.asarray(values, dtype=np.float64)
    if inverse.ndim != 1 or inverse.shape != heights.shape or len(np.unique(inverse)) < 2:
        raise InvalidInputError("a line in 1/N needs two different sizes or more, each with its value")
    if not (np.isfinite(inverse).all() and np.isfinite(heights).all()):
        raise InvalidInputError("a line in 1/N needs finite values and sizes above 0")
    centred = inverse - inverse.mean()
    slope = float(centred @ heights) / float(centred @ centred)
    return float(heights.mean() - slope * inverse.mean()), slope


def keyed_order(features: NDArray[np.generic], key: bytes) -> IndexArray:
    """A pseudo-random order of rows that depends on the key and on what the rows hold, not on where they lie.

    Rows are sorted by their keyed BLAKE2b digest (RFC 7693), so that subsets do not change with the order of
    the rows, and the order of what is left without a block is the same order without that block.

    Args:
        features: ``[n, d]``; -0.0 counts as 0.0.
        key: up to 64 random bytes.

    Returns:
        int64 ``[n]`` row numbers.
    """
    rows = np.ascontiguousarray(features)
    digests = [
        hashlib.blake2b((row + row.dtype.type(0)).tobytes(), digest_size=DIGEST_BYTES, key=key).digest()
        for row in rows
    ]
    return np.asarray(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def leave_out_order(order: IndexArray, *, start: int, stop: int) -> IndexArray:
    """Return ``order`` without the rows ``start..stop - 1``."""
    return order[(order < start) | (order >= stop)]
