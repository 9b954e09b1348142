"""Euclidean distances and nearest neighbours, tile by tile.

Never more than ``TILE_ENTRIES`` distances exist at a time (32 MiB in float64, and as much again for what is
made of them), whatever the number of rows.

Accepted trade-offs:
    Distances are computed in float64 and rounded to float32 before they are compared, so that one and the
    same distance is equal to itself whichever tile of a matrix product it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float32Array, Float64Array, IndexArray, checked_features, same_width

TILE_ENTRIES = 1 << 22
# Below this share of the squared norms a difference of squares has fewer digits than float32.
CANCELLATION = 1e-8
PAIRS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest rows of another set, nearest first; of equally near ones the first in that set.

    Attributes:
        index: int64 ``[n, k]`` rows of the other set.
        distance: float32 ``[n, k]`` Euclidean distances.
    """

    index: IndexArray
    distance: Float32Array


def squared_distances(x: Float64Array, y: Float64Array) -> Float64Array:
    """Squared Euclidean distances ``[n, m]`` of float64 rows, correct to float32 even for nearly equal rows.

    Formula: ``|x_i|^2 + |y_j|^2 - 2 x_i . y_j``, and ``|x_i - y_j|^2`` where that cancels. The caller bounds
    ``n * m``.
    """
    norms = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    squared = x @ y.T
    squared *= -2
    squared += norms
    norms *= CANCELLATION
    rows, columns = np.nonzero(squared < norms)
    for start in range(0, len(rows), PAIRS):
        i, j = rows[start : start + PAIRS], columns[start : start + PAIRS]
        squared[i, j] = np.square(x[i] - y[j]).sum(axis=1)
    return squared


def corrected(
    squared: Float64Array, i: IndexArray, j: IndexArray, x: Float64Array, y: Float64Array
) -> Float64Array:
    """Return squared distances of some pairs of rows, by differences where the product cancels.

    Args:
        squared: ``[h]`` as the product gives them.
        i: int64 ``[h]`` rows of ``x``.
        j: int64 ``[h]`` rows of ``y``.
        x: float64 ``[n, d + 2]``, last but one the squared norm (see :mod:`evalkit.numerics.tiles`).
        y: float64 ``[m, d + 2]``, likewise.
    """
    cancelled = np.flatnonzero(squared < CANCELLATION * (x[:, -2].copy()[i] + y[:, -2].copy()[j]))
    for start in range(0, len(cancelled), PAIRS):
        pairs = cancelled[start : start + PAIRS]
        squared[pairs] = np.square(x[i[pairs], :-2] - y[j[pairs], :-2]).sum(axis=1)
    return squared


def euclidean_distances(x: Float64Array, y: Float64Array) -> Float32Array:
    """Euclidean distances ``[n, m]`` of float64 rows, rounded to float32."""
    return np.asarray(np.sqrt(squared_distances(x, y)), dtype=np.float32)


def tile_rows(columns: int) -> int:
    """Rows of a tile that spans ``columns`` columns."""
    return max(1, TILE_ENTRIES // max(columns, 1))


def nearest_rows(queries: NDArray[np.generic], points: NDArray[np.generic], *, count: int = 1) -> Neighbours:
    """The ``count`` nearest ``points`` of each query.

    Args:
        queries: float ``[n, d]``.
        points: float ``[m, d]``, ``m >= count``.
        count: how many neighbours.

    Raises:
        InvalidInputError: wrong shapes, count < 1, too few points, or a value that is not finite.
    """
    if count < 1:
        raise InvalidInputError(f"count must be 1 or more, not {count}")
    x = checked_features(queries, "query features", minimum=1)
    y = checked_features(points, "reference features", minimum=count)
    same_width(x, y)
    centre = y.mean(axis=0, dtype=np.float64)
    targets = y - centre
    found = Neighbours(np.empty((len(x), count), dtype=np.int64), np.empty((len(x), count), dtype=np.float32))
    step = tile_rows(len(y))
    for start in range(0, len(x), step):
        tile = euclidean_distances(x[start : start + step] - centre, targets)
        row = np.arange(len(tile))
        for order in range(count):
            best = tile.argmin(axis=1)
            found.index[start : start + step, order] = best
            found.distance[start : start + step, order] = tile[row, best]
            tile[row, best] = np.inf
    return found


def nearest_other_rows(points: NDArray[np.generic]) -> Neighbours:
    """The nearest *other* row of each row, ``k = 1``; every distance is computed once.

    Args:
        points: float ``[m, d]``, ``m >= 2``. A duplicate is another row, at distance 0.

    Raises:
        InvalidInputError: wrong shape, fewer than 2 rows, or a value that is not finite.
    """
    raw = checked_features(points, "reference features", minimum=2)
    y = raw - raw.mean(axis=0, dtype=np.float64)
    index = np.zeros(len(y), dtype=np.int64)
    distance = np.full(len(y), np.inf, dtype=np.float32)
    start = 0
    while start < len(y):
        stop = min(start + tile_rows(len(y) - start), len(y))
        tile = euclidean_distances(y[start:stop], y[start:])
        row = np.arange(stop - start)
        tile[row, row] = np.inf
        # Earlier rows met these first: on a tie the lower index, which is already there, stays.
        _keep_nearer(index[start:stop], distance[start:stop], tile.argmin(axis=1) + start, tile.min(axis=1))
        later = tile[:, stop - start :]
        if later.shape[1]:
            _keep_nearer(index[stop:], distance[stop:], later.argmin(axis=0) + start, later.min(axis=0))
        start = stop
    return Neighbours(index[:, None], distance[:, None])


def _keep_nearer(
    index: IndexArray, distance: Float32Array, new_index: IndexArray, new_distance: Float32Array
) -> None:
    """Replace in place what is strictly nearer."""
    nearer = new_distance < distance
    index[nearer] = new_index[nearer]
    distance[nearer] = new_distance[nearer]
