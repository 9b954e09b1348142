"""Interpolation between latent vectors: straight lines and great circles, in float64."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

# Nearer to opposite than this, rounding of the ends (1e-16) turns the great circle by more than 1e-10.
ANTIPODAL = 1e-6

ArcNorm = Literal["linear", "unit", "any"]
"""What becomes of the lengths on a great circle; see :func:`slerp`."""


def lerp(a: NDArray[np.floating], b: NDArray[np.floating], t: NDArray[np.floating] | float) -> Float64Array:
    """Linear interpolation ``(1 - t) a + t b``, exact at both ends.

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


def slerp(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    t: NDArray[np.floating] | float,
    *,
    norm: ArcNorm = "linear",
) -> Float64Array:
    """Spherical interpolation along the great circle from ``a`` to ``b``, at constant angular speed.

    Formula (Shoemake 1985, section 3.3), on the unit vectors u, v of a and b at angle w::

        unit:    arc = (sin((1 - t) w) u + sin(t w) v) / sin w
        linear:  arc * ((1 - t) |a| + t |b|)
        any:     (sin((1 - t) w) a + sin(t w) b) / sin w

    ``unit`` is the path of the published perceptual path length (Karras et al. 2019, appendix C),
    ``any`` torch-fidelity's ``slerp_any``: only for equal lengths does it keep the length and the angular
    speed. Parallel vectors are the limit w -> 0, a straight line.

    The angle is Kahan's, accurate for all angles, so that the result is good to about 1e-15 of the longer
    vector, times 1 / (pi - w) where the vectors are nearly opposite.

    Args:
        a: float ``[..., d]``.
        b: float ``[..., d]``.
        t: position, a number or ``[...]``; 0 gives ``a`` and 1 gives ``b`` exactly (unless ``unit``).
        norm: what becomes of the lengths.

    Returns:
        float64 ``[..., d]``.

    Raises:
        InvalidInputError: shapes do not fit, a value is not finite, a vector is zero, ``norm`` is unknown,
            or two vectors are antipodal to 1e-6 (every great circle through them would do).
    """
    if norm not in get_args(ArcNorm):
        raise InvalidInputError(f"unknown norm {norm!r}", hint=f"use one of {', '.join(get_args(ArcNorm))}")
    start, end, position = _checked(a, b, t)
    (u, length_a), (v, length_b) = _directions(start), _directions(end)
    from_start, from_end = _arc_weights(u, v, position)
    if norm == "any":
        return np.asarray(from_start * start + from_end * end, dtype=np.float64)
    arc = from_start * u + from_end * v
    # |arc| is 1 but for rounding; dividing keeps the law exact to the last digit also near the antipode.
    arc /= np.linalg.norm(arc, axis=-1, keepdims=True)
    if norm == "unit":
        return np.asarray(arc, dtype=np.float64)
    curved = arc * ((1 - position) * length_a + position * length_b)
    return np.asarray(np.where(position == 0, start, np.where(position == 1, end, curved)), dtype=np.float64)


def _directions(x: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Unit vectors and lengths; scaled first, so that neither overflows nor vanishes."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    if (largest == 0).any():
        raise InvalidInputError("slerp needs non-zero vectors")
    scaled = x / largest
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / length, largest * length


def _arc_weights(
    u: Float64Array, v: Float64Array, position: Float64Array
) -> tuple[Float64Array, Float64Array]:
    # Kahan's form: accurate for small and for large angles, where arccos of the dot product is not.
    angle = 2 * np.arctan2(
        np.linalg.norm(u - v, axis=-1, keepdims=True), np.linalg.norm(u + v, axis=-1, keepdims=True)
    )
    if (angle > np.pi - ANTIPODAL).any():
        raise InvalidInputError(
            "slerp between antipodal vectors is not defined", hint="every great circle joins them; move one"
        )
    parallel = angle == 0
    safe = np.where(parallel, 1.0, angle)
    return (
        np.where(parallel, 1 - position, np.sin((1 - position) * safe) / np.sin(safe)),
        np.where(parallel, position, np.sin(position * safe) / np.sin(safe)),
    )


def _checked(
    a: NDArray[np.floating], b: NDArray[np.floating], t: NDArray[np.floating] | float
) -> tuple[Float64Array, Float64Array, Float64Array]:
    start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    position = np.asarray(t, dtype=np.float64)
    if start.ndim == 0 or start.shape[-1] == 0 or start.shape != end.shape:
        raise InvalidInputError(f"two arrays [..., d] of one shape are needed: {start.shape} and {end.shape}")
    if position.ndim and position.shape != start.shape[:-1]:
        raise InvalidInputError(f"positions {position.shape} do not fit vectors {start.shape}")
    if not (np.isfinite(start).all() and np.isfinite(end).all() and np.isfinite(position).all()):
        raise InvalidInputError("interpolation needs finite vectors and positions")
    return start, end, position[..., None]
