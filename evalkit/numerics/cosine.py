"""Cosines of embeddings, row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, checked_features, same_width


def cosine_rows(a: NDArray[np.generic], b: NDArray[np.generic]) -> Float64Array:
    """Cosine of the angle between equal rows of two matrices: ``a_i . b_i / (|a_i| |b_i|)``.

    Args:
        a: float ``[n, d]``.
        b: float ``[n, d]``.

    Returns:
        float64 ``[n]`` in -1..1; NaN where a row is zero, because zero has no direction.

    Raises:
        InvalidInputError: shapes differ, or a value is not finite.
    """
    first, second = unit_rows(a, "first embeddings"), unit_rows(b, "second embeddings")
    same_width(first, second)
    if len(first) != len(second):
        raise InvalidInputError(f"{len(first)} embeddings cannot be paired with {len(second)}")
    return np.asarray((first * second).sum(axis=1).clip(-1.0, 1.0))


def unit_rows(x: NDArray[np.generic], name: str) -> Float64Array:
    """Return the rows of ``x`` ``[n, d]`` scaled to length 1, as float64; NaN where a row is zero.

    Raises:
        InvalidInputError: wrong shape, or a value that is not finite.
    """
    rows = checked_features(x, name, minimum=1).astype(np.float64)
    # By the largest entry first: squares of tiny or huge entries would vanish or overflow.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = rows / largest
        return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))


def directional_cosine(
    *,
    source_image: NDArray[np.generic],
    edited_image: NDArray[np.generic],
    source_text: NDArray[np.generic],
    edited_text: NDArray[np.generic],
) -> Float64Array:
    """Cosine between the change of the image and the change of the text.

    Formula: ``cos(u(edited_image) - u(source_image), u(edited_text) - u(source_text))`` with
    ``u(x) = x / |x|``. Source: Gal et al. 2021 (StyleGAN-NADA), eq. 2; as a metric: Brooks et al. 2023
    (InstructPix2Pix), section 4.1.

    Args:
        source_image: float ``[n, d]`` embeddings of the images before the edit.
        edited_image: float ``[n, d]``, after it.
        source_text: float ``[n, d]`` embeddings of the captions before the edit.
        edited_text: float ``[n, d]``, after it.

    Returns:
        float64 ``[n]`` in -1..1; NaN where image or text did not change, or an embedding is zero.

    Raises:
        InvalidInputError: shapes differ, or a value is not finite.
    """
    sides = (source_image, edited_image, source_text, edited_text)
    if len({side.shape for side in sides}) != 1:
        raise InvalidInputError(f"embeddings of shapes {[list(side.shape) for side in sides]} do not pair up")
    before, after, was, became = (unit_rows(side, "embeddings") for side in sides)
    change, wanted = after - before, became - was
    defined = np.isfinite(change).all(axis=1) & np.isfinite(wanted).all(axis=1)
    cosines = np.full(len(change), np.nan)
    if defined.any():
        cosines[defined] = cosine_rows(change[defined], wanted[defined])
    return cosines
