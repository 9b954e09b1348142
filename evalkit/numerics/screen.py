"""Which entries of a float32 product of distances can matter, with nothing missed and few to take again.

Float32 products cost half of float64 ones. What they say of a squared distance ``t^2`` between ``x`` and
``y`` is off by at most ``gamma (|x| + |y|)^2`` with ``gamma = 1.05 (d + 8) 2^-24``: the rounding of a sum of
``d + 2`` products in any order (Higham 2002, section 3.1), of the float32 rows themselves and of their norms.
By ``|y| <= |x| + t`` that is at most ``gamma (2 |x| + t)^2``, which needs to know one of the two alone.
Whatever this leaves open is computed again in float64, by differences.

Float32 has a range: :func:`in_range` says whether norms keep away from both ends of it. What is lost below
the smallest normal number is covered by ``TINY``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.tiles import PIECE_ENTRIES, panels

TINY = 1e-31
SMALLEST_NORM, LARGEST_NORM = 1e-20, 1e30  # squared, of the largest row
FARTHEST = 1e100  # beyond any entry, and its square is a number
WIDEST = 200_000  # features, to which 1.05 covers the higher powers of the unit roundoff
# Rows of a chunk of differences: what stays in a core's cache.
CHUNK = 32
THREADS = 2


class Entries(NamedTuple):
    """Entries of a tile: int64 ``[h]`` rows and columns within it, float32 ``[h]`` squared distances."""

    rows: IndexArray
    columns: IndexArray
    squared: Float32Array


def rounding(width: int) -> float:
    """``gamma`` of the module for rows of ``width`` features."""
    return 1.05 * (width + 8) * 2.0**-24


def in_range(norms: Float64Array, width: int) -> bool:
    """Whether the error of float32 products of rows with these squared norms and this width is known."""
    return width <= WIDEST and SMALLEST_NORM <= float(norms.max(initial=0.0)) <= LARGEST_NORM


def keeps_the_bound(tile: Float32Array, form: Float32Array, norms: Float64Array) -> bool:
    """Whether a tile of some rows with themselves is as exact as float32 products must be.

    A library that was told to multiply in bfloat16 or TF32 rounds the norms in ``form`` away.

    Args:
        tile: float32 ``[n, n]``, the product.
        form: float32 ``[n, d + 2]``, the rows in the left form.
        norms: float64 ``[n]``, their squared norms.
    """
    rows = form[:, :-2].astype(np.float64)
    true = norms[:, None] + norms - 2 * (rows @ rows.T)
    allowed = rounding(rows.shape[1]) * (np.sqrt(norms)[:, None] + np.sqrt(norms)) ** 2 + TINY
    return bool((np.abs(tile - true) <= allowed).all())


def highest(reach: Float64Array, norms: Float64Array, gamma: float) -> Float64Array:
    """Return what no entry exceeds whose true distance is ``reach`` or less.

    Args:
        reach: float64 ``[n]`` distances; infinity included.
        norms: float64 ``[n]`` squared norms of the points that they are measured from.
        gamma: see the module.
    """
    return np.asarray(reach**2 + gamma * (2 * np.sqrt(norms) + reach) ** 2 + TINY)


def lowest(reach: Float64Array, norms: Float64Array, gamma: float) -> Float64Array:
    """Return what no entry is below whose true distance is ``reach`` or more; see :func:`highest`."""
    # Below this reach the bound would rise again as the reach falls.
    reach = np.minimum(np.maximum(reach, 2 * gamma * np.sqrt(norms) / (1 - gamma)), FARTHEST)
    return np.asarray(reach**2 - gamma * (2 * np.sqrt(norms) + reach) ** 2 - TINY)


def farthest(squared: Float64Array, norms: Float64Array, gamma: float) -> Float64Array:
    """Return what no true distance exceeds whose entry is ``squared`` or less.

    It is the ``t`` of ``t^2 = s + gamma (2 |x| + t)^2``.

    Args:
        squared: float64 ``[n]``, infinity included.
        norms: float64 ``[n]`` squared norms.
        gamma: see the module.
    """
    half = 2 * gamma * np.sqrt(norms)
    inside = (1 - gamma) * (np.maximum(squared, 0) + 4 * gamma * norms + TINY)
    return np.asarray((half + np.sqrt(half**2 + inside)) / (1 - gamma))


def rounded_down(bounds: Float64Array) -> Float32Array:
    """Return the next float32 numbers at or below ``bounds``, for ``entry < bound``."""
    return _rounded(bounds, -np.inf)


def rounded_up(bounds: Float64Array) -> Float32Array:
    """Return the next float32 numbers at or above ``bounds``, for ``entry <= bound``."""
    return _rounded(bounds, np.inf)


def _rounded(bounds: Float64Array, towards: float) -> Float32Array:
    with np.errstate(over="ignore"):
        single = bounds.astype(np.float32)
    wrong = single < bounds if towards > 0 else single > bounds
    return np.asarray(np.where(wrong, np.nextafter(single, np.float32(towards)), single))


def entries_within(tile: Float32Array, *, rows: Float32Array, columns: Float32Array) -> Entries:
    """Return the entries of ``tile`` ``[n, m]`` within the bound of their row ``[n]`` or column ``[m]``."""
    width = tile.shape[1]
    found = []
    for piece in panels(len(tile), max(1, PIECE_ENTRIES // width)):
        near = tile[piece] <= rows[piece, None]
        near |= tile[piece] <= columns
        found.append(np.flatnonzero(near) + piece.start * width)
    flat = np.concatenate(found)
    return Entries(*np.divmod(flat, width), tile.reshape(-1)[flat])


def distances_of_pairs(
    x: FloatArray, y: FloatArray, i: IndexArray, j: IndexArray, *, threads: int = THREADS
) -> Float32Array:
    """Return the distances of rows ``x[i]`` and ``y[j]``, by differences in float64; float32 ``[h]``."""
    distances = np.empty(len(i), dtype=np.float32)

    def fill(part: slice) -> None:
        # Rows are gathered as they are and widened in place: half the time of a subtraction that converts.
        gathered = np.empty((CHUNK, x.shape[1]), x.dtype), np.empty((CHUNK, x.shape[1]), y.dtype)
        wide = np.empty((CHUNK, x.shape[1]))
        for start in range(part.start, part.stop, CHUNK):
            here = slice(start, min(start + CHUNK, part.stop))
            a, b, difference = (buffer[: here.stop - start] for buffer in (*gathered, wide))
            np.take(x, i[here], axis=0, out=a, mode="clip")
            np.take(y, j[here], axis=0, out=b, mode="clip")
            difference[:] = a
            difference -= b
            distances[here] = np.sqrt(np.einsum("ij,ij->i", difference, difference))

    parts = list(panels(len(i), max(CHUNK, -(-len(i) // threads))))
    if len(parts) > 1:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(fill, parts))
    elif parts:
        fill(parts[0])
    return distances
