"""Directions of feature vectors: unit rows, and the cosine distance to the nearest row of another set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, checked_features, same_width

TILE_ENTRIES = 1 << 22  # cosines held at a time: 32 MiB in float64


def unit_rows(features: NDArray[np.generic], name: str, *, minimum: int = 1) -> Float64Array:
    """Return every row divided by its Euclidean length.

    Formula: ``u = x / |x|``; the row is first divided by its largest entry, so that nothing overflows.

    Args:
        features: float ``[n, d]``.
        name: what the rows are, for the message.
        minimum: fewest rows that the caller can work with.

    Returns:
        float64 ``[n, d]``.

    Raises:
        InvalidInputError: wrong shape, too few rows, a value that is not finite, or a row of zeros, which has
            no direction.
    """
    wide = checked_features(features, name, minimum=minimum).astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    if not largest.all():
        zeros = int((largest == 0).sum())
        raise InvalidInputError(
            f"{name} holds {zeros} rows of zeros of {len(wide)}; they have no direction to compare",
            hint="black images through an extractor without an offset? leave them out, or use another one",
        )
    wide /= largest
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def nearest_cosine_distances(generated: NDArray[np.generic], reference: NDArray[np.generic]) -> Float64Array:
    """Distance of every generated row to the reference row whose line is nearest.

    Formula: ``min_j (1 - |cos(x_i, y_j)|)``, whose mean is the memorisation distance of Bai et al. 2021. The
    minimum is found by cosines and then computed as ``|u -+ v|^2 / 2`` of the unit vectors, which does not
    cancel: a copy has the distance 0 exactly.

    Args:
        generated: float ``[n, d]`` without rows of zeros.
        reference: float ``[m, d]`` without rows of zeros.

    Returns:
        float64 ``[n]`` in 0..1.

    Raises:
        InvalidInputError: wrong shapes, no rows, values that are not finite, or rows of zeros.
    """
    ours = unit_rows(generated, "generated features")
    theirs = unit_rows(reference, "reference features")
    same_width(ours, theirs)
    distances = np.empty(len(ours))
    step = max(1, TILE_ENTRIES // len(theirs))
    for start in range(0, len(ours), step):
        rows = ours[start : start + step]
        cosines = rows @ theirs.T
        nearest = np.abs(cosines).argmax(axis=1)
        signs = np.sign(cosines[np.arange(len(rows)), nearest])
        # Perpendicular to everything: either sign gives the distance 1.
        gaps = rows - np.where(signs == 0, 1.0, signs)[:, None] * theirs[nearest]
        distances[start : start + step] = np.square(gaps).sum(axis=1) / 2
    return np.asarray(np.minimum(distances, 1.0), dtype=np.float64)
