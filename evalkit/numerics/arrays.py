"""Array types of the numeric functions, and the one check that every matrix of features passes."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
FloatArray = NDArray[np.float32] | NDArray[np.float64]
IndexArray = NDArray[np.int64]


def checked_features(features: NDArray[np.generic], name: str, *, minimum: int) -> FloatArray:
    """Return ``features`` ``[n, d]`` unchanged if they are real, finite and at least ``minimum`` rows.

    Args:
        features: float16, float32 or float64 ``[n, d]`` (float16 comes back as float32).
        name: what the rows are, for the message.
        minimum: fewest rows that the caller can work with.

    Raises:
        InvalidInputError: wrong rank or dtype, no columns, too few rows, or a value that is not finite.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInputError(f"{name} must have shape [n, d] with d >= 1, not {list(array.shape)}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise InvalidInputError(f"{name} must be floating point, not {array.dtype}")
    if len(array) < minimum:
        raise InvalidInputError(f"{name} has {len(array)} rows; at least {minimum} are needed")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise InvalidInputError(
            f"{name} holds NaN or infinity in {bad} of {len(array)} rows",
            hint="look for corrupt images or an extractor run in half precision",
        )
    return cast("FloatArray", array)


def same_width(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    """Check that two matrices have equally many columns.

    Raises:
        InvalidInputError: they do not.
    """
    if a.shape[1] != b.shape[1]:
        raise InvalidInputError(f"the two sides have {a.shape[1]} and {b.shape[1]} feature dimensions")
