"""Interpolation between latent vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

# Below this angle sin(angle) loses digits and the arc is its chord to 1e-12; above pi minus it no great
# circle is singled out.
SMALL_ANGLE = 1e-6


def lerp(a: NDArray[np.floating], b: NDArray[np.floating], t: NDArray[np.floating] | float) -> Float64Array:
    """Linear interpolation ``a + t (b - a)``, exact at both ends.

    Args:
        a: float ``[..., d]``.
        b: float ``[..., d]``.
        t: position, a number or ``[...]``.

    Returns:
        float64 ``[..., d]``.

    Raises:
        InvalidInputError: shapes do not fit, or a value is not finite.
    """
    start, end, position = _checked(a, b, t)
    return np.asarray((1 - position) * start + position * end, dtype=np.float64)


def slerp(a: NDArray[np.floating], b: NDArray[np.floating], t: NDArray[np.floating] | float) -> Float64Array:
    """Spherical interpolation along the great circle from ``a`` to ``b``; norms follow linearly.

    Formula (Shoemake 1985, section 3.3), on unit vectors u, v at angle w:
    ``(sin((1 - t) w) u + sin(t w) v) / sin w``, times ``(1 - t) |a| + t |b|``. Unit vectors so stay on the
    sphere and both ends are exact. Parallel vectors fall back to :func:`lerp`.

    Args:
        a: float ``[..., d]``.
        b: float ``[..., d]``.
        t: position, a number or ``[...]``; 0 gives ``a`` and 1 gives ``b``.

    Returns:
        float64 ``[..., d]``.

    Raises:
        InvalidInputError: shapes do not fit, a value is not finite, a vector is zero, or two vectors are
            antipodal (every great circle through them would do).
    """
    start, end, position = _checked(a, b, t)
    norm_a = np.linalg.norm(start, axis=-1, keepdims=True)
    norm_b = np.linalg.norm(end, axis=-1, keepdims=True)
    if (norm_a == 0).any() or (norm_b == 0).any():
        raise InvalidInputError("slerp needs non-zero vectors")
    u, v = start / norm_a, end / norm_b
    # Kahan's form: accurate for small and for large angles, where arccos of the dot product is not.
    angle = 2 * np.arctan2(
        np.linalg.norm(u - v, axis=-1, keepdims=True), np.linalg.norm(u + v, axis=-1, keepdims=True)
    )
    if (angle > np.pi - SMALL_ANGLE).any():
        raise InvalidInputError("slerp between antipodal vectors is not defined")
    parallel = angle < SMALL_ANGLE
    safe = np.where(parallel, 1.0, angle)
    arc = (np.sin((1 - position) * safe) * u + np.sin(position * safe) * v) / np.sin(safe)
    curved = arc * ((1 - position) * norm_a + position * norm_b)
    straight = (1 - position) * start + position * end
    result = np.where(parallel, straight, curved)
    return np.asarray(np.where(position == 0, start, np.where(position == 1, end, result)), dtype=np.float64)


def _checked(
    a: NDArray[np.floating], b: NDArray[np.floating], t: NDArray[np.floating] | float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    position = np.asarray(t, dtype=np.float64)
    if start.ndim == 0 or start.shape != end.shape:
        raise InvalidInputError(f"two arrays [..., d] of one shape are needed: {start.shape} and {end.shape}")
    if position.ndim and position.shape != start.shape[:-1]:
        raise InvalidInputError(f"positions {position.shape} do not fit vectors {start.shape}")
    if not (np.isfinite(start).all() and np.isfinite(end).all() and np.isfinite(position).all()):
        raise InvalidInputError("interpolation needs finite vectors and positions")
    return start, end, position[..., None]
