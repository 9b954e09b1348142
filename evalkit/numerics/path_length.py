"""The mean of perceptual path distances without their extremes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

LOWER, HIGHER = 1.0, 99.0
"""Percentiles of the published code (Karras et al. 2020): numpy's methods ``lower`` and ``higher``."""

DISCARDS_FROM = 101
"""Fewest distances of which these percentiles discard any: below, they are the least and the greatest."""


@dataclass(frozen=True, slots=True)
class PathLength:
    """Mean of the distances kept, their median, and how many were discarded."""

    mean: float
    median: float
    discarded: int


def path_length(
    distances: NDArray[np.floating], *, lower: float = LOWER, higher: float = HIGHER
) -> PathLength:
    """Return the mean of the distances that lie between two percentiles, ends included.

    ``lo = percentile(x, lower, "lower")``, ``hi = percentile(x, higher, "higher")``: both are elements of
    x; the mean is over ``lo <= x <= hi``. Source: stylegan2, metrics/perceptual_path_length.py; the mean is
    in float64 here and float32 there.

    Args:
        distances: float ``[n]``, finite and not negative, already divided by epsilon^2.
        lower: percentile below which a distance is discarded.
        higher: percentile above which one is.

    Raises:
        InvalidInputError: no distances, one that is negative or not finite, or percentiles out of order.
    """
    x = _checked(distances, lower, higher)
    low = np.percentile(x, lower, method="lower")
    high = np.percentile(x, higher, method="higher")
    kept = x[(low <= x) & (x <= high)]
    return PathLength(float(kept.mean()), float(np.median(x)), len(x) - len(kept))


def path_length_without_blocks(
    distances: NDArray[np.floating], edges: Sequence[int], *, lower: float = LOWER, higher: float = HIGHER
) -> tuple[PathLength, ...]:
    """Return :func:`path_length` without each block of rows, its percentiles recomputed.

    Args:
        distances: float ``[n]``.
        edges: ``[blocks + 1]`` first rows of the blocks, and n.
        lower: percentile below which a distance is discarded.
        higher: percentile above which one is.

    Raises:
        InvalidInputError: see :func:`path_length`; also where nothing is left without a block.
    """
    x = _checked(distances, lower, higher)
    return tuple(
        path_length(np.concatenate([x[:start], x[stop:]]), lower=lower, higher=higher)
        for start, stop in pairwise(edges)
    )


def _checked(distances: NDArray[np.floating], lower: float, higher: float) -> Float64Array:
    x = np.asarray(distances, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise InvalidInputError(f"path distances must be [n] with n >= 1, not {list(x.shape)}")
    if not np.isfinite(x).all() or (x < 0).any():
        bad = int((~np.isfinite(x) | (x < 0)).sum())
        raise InvalidInputError(
            f"{bad} of {len(x)} path distances are negative or not finite",
            hint="look for a generator that overflows, or for one run in half precision",
        )
    if not 0 <= lower < higher <= 100:
        raise InvalidInputError(f"percentiles must rise within 0..100, not {lower} and {higher}")
    return x
