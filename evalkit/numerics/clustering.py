"""Principal components and k-means, seeded and exact: what the data-copying test partitions space with."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, IndexArray
from evalkit.numerics.distances import squared_distances, tile_rows


def principal_axes(x: FloatArray, count: int) -> tuple[Float64Array, Float64Array]:
    """Mean ``[d]`` and the ``count`` directions ``[d, count]`` of largest variance of ``x`` ``[n, d]``.

    They are the leading eigenvectors of the covariance, exact where a randomised solver is not; each sign is
    that which makes the largest entry positive. ``count <= d``.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((x.shape[1], x.shape[1]))
    step = tile_rows(x.shape[1])
    for start in range(0, len(x), step):
        centred = x[start : start + step] - mean
        scatter += centred.T @ centred
    d = len(mean)
    axes = eigh(scatter, subset_by_index=[d - count, d - 1])[1][:, ::-1]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])
    return mean, np.ascontiguousarray(axes * signs)


def projected(x: FloatArray, mean: Float64Array, axes: Float64Array) -> Float64Array:
    """Coordinates ``[n, count]`` of the rows ``x`` ``[n, d]`` along ``axes`` ``[d, count]``."""
    out = np.empty((len(x), axes.shape[1]))
    step = tile_rows(x.shape[1])
    for start in range(0, len(x), step):
        out[start : start + step] = (x[start : start + step] - mean) @ axes
    return out


def kmeans(x: Float64Array, *, clusters: int, rng: np.random.Generator, restarts: int = 10) -> Float64Array:
    """Centres ``[clusters, d]`` of the best of several runs of Lloyd's algorithm from k-means++ seeds.

    Minimises ``sum_i min_c |x_i - centre_c|^2`` (Lloyd 1982; Arthur & Vassilvitskii 2007, section 2.2).

    Args:
        x: float64 ``[n, d]``.
        clusters: number of centres.
        rng: draws the seeds.
        restarts: number of runs.

    Raises:
        InvalidInputError: there are fewer distinct rows than clusters.
    """
    best, least = None, np.inf
    for _ in range(restarts):
        centres = lloyd(x, _seeds(x, clusters, rng))
        inertia = float(_to_centres(x, centres)[1].sum())
        if inertia < least:
            best, least = centres, inertia
    if best is None:
        raise InvalidInputError("k-means needs at least one run")
    return best


def lloyd(x: Float64Array, centres: Float64Array, *, steps: int = 300) -> Float64Array:
    """Move ``centres`` to the means of their cells until no row changes its cell.

    A centre whose cell is empty stays where it is.
    """
    centres = centres.copy()
    before = None
    for _ in range(steps):
        cells = nearest_centre(x, centres)
        if before is not None and np.array_equal(cells, before):
            break
        before = cells
        for cell in range(len(centres)):
            inside = cells == cell
            if inside.any():
                centres[cell] = x[inside].mean(axis=0)
    return centres


def nearest_centre(x: Float64Array, centres: Float64Array) -> IndexArray:
    """The cell of each row, int64 ``[n]``."""
    return _to_centres(x, centres)[0]


def _to_centres(x: Float64Array, centres: Float64Array) -> tuple[IndexArray, Float64Array]:
    squared = squared_distances(x, centres)
    cells = squared.argmin(axis=1)
    return cells, squared[np.arange(len(x)), cells]


def _seeds(x: Float64Array, clusters: int, rng: np.random.Generator) -> Float64Array:
    """k-means++: each seed is a row drawn with probability in proportion to its squared distance."""
    chosen = [int(rng.integers(len(x)))]
    for _ in range(1, clusters):
        weights = _to_centres(x, x[chosen])[1]
        total = weights.sum()
        if total == 0:
            raise InvalidInputError(f"fewer than {clusters} distinct training features cannot be partitioned")
        chosen.append(int(rng.choice(len(x), p=weights / total)))
    return x[chosen]
