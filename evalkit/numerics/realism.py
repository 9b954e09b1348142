"""Realism score of single images (Kynkäänniemi et al. 2019, eq. 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.comparison import compare


def realism_scores(generated: NDArray[np.generic], reference: NDArray[np.generic], *, k: int) -> Float64Array:
    """Realism of each generated row: how deep it lies in the nearest of the small reference balls.

    Formula: ``R(g) = max_r radius_r / |g - r|`` over the reference rows r whose ball is no larger than the
    median one; the radius is the distance to the k-th neighbour other than itself. ``R >= 1`` exactly where
    g lies in such a ball. At a centre R is infinite (1 where the ball has no extent).

    The paper's pruning ("discarding half of the hyperspheres with the largest radii") keeps the median ball
    itself, as the authors' code does. Their code divides squared distances and adds 1e-5; this is the printed
    formula.

    Args:
        generated: float ``[n, d]``.
        reference: float ``[m, d]``, ``m > k``.
        k: which neighbour gives the radius of a ball.

    Returns:
        float64 ``[n]``, from 0 to infinity.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    return compare([generated], reference, realism=[k]).realism[k]
