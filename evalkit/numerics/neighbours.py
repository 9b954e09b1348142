"""Precision, recall, density and coverage by k-nearest-neighbour balls.

A ball has its centre at a point and the distance to its k-th neighbour *other than itself* as radius.

    precision = share of generated points in a reference ball      (Kynkäänniemi et al. 2019, eqs. 1-3)
    recall    = share of reference points in a generated ball
    density   = reference balls around a generated point, mean, divided by k    (Naeem et al. 2020, eq. 3)
    coverage  = share of reference balls that hold a generated point            (Naeem et al. 2020, eq. 4)

"In a ball" is ``<=`` (inclusive, Kynkäänniemi with k = 3) or ``<`` (strict, the prdc package with k = 5).

Distances are rounded to float32 before they are compared; see :mod:`evalkit.numerics.distances`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.arrays import Float32Array, Float64Array
from evalkit.numerics.comparison import compare, nearest_distances
from evalkit.numerics.manifolds import Balls, ManifoldScores, ResampledScores

__all__ = [
    "ManifoldScores",
    "ResampledScores",
    "ball_radii",
    "manifold_scores",
    "precision_recall_density_coverage",
]


def precision_recall_density_coverage(
    generated: NDArray[np.generic], reference: NDArray[np.generic], *, k: int, inclusive: bool = True
) -> ManifoldScores:
    """Precision, recall, density and coverage of ``generated`` (formulas in the module).

    Args:
        generated: float ``[n, d]``, ``n > k``.
        reference: float ``[m, d]``, ``m > k``.
        k: which neighbour gives the radius of a ball.
        inclusive: ``<=`` where True, ``<`` where False.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    return manifold_scores([generated], reference, k=k, inclusive=inclusive).scores


def manifold_scores(
    blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic], *, k: int, inclusive: bool = True
) -> ResampledScores:
    """All four scores, and their exact values without each block of the generated side.

    Leaving a block out enlarges some generated balls; those radii are computed exactly from the k nearest
    neighbours in every block.

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side.
        reference: float ``[m, d]``, ``m > k``.
        k: which neighbour gives the radius of a ball.
        inclusive: ``<=`` where True, ``<`` where False.

    Returns:
        The scores; those without blocks are empty where there is one block only, or where fewer than k + 1
        generated rows would be left.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    balls = Balls(k, inclusive)
    return compare(blocks, reference, balls=[balls]).manifolds[balls]


def ball_radii(x: Float64Array, k: int) -> Float32Array:
    """Distance of each row of ``x`` ``[n, d]`` to its k-th nearest other row, ``[n]``; ``n > k``."""
    return np.ascontiguousarray(nearest_distances(x, k)[:, k - 1])
