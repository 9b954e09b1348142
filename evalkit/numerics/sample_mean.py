"""The mean of independent values with its standard error, and the means that leave one block out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evalkit.errors import InvalidInputError

_LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class SampleMean:
    """A mean and what is known around it.

    Attributes:
        value: the mean.
        count: number of values.
        std: their standard deviation (divisor n - 1); None for one value.
        stderr: standard error of the mean; None for one value.
        low: lower end of the t interval; ``high`` the upper end; the value itself for one value.
        level: coverage of the interval.
        without: means without each block; empty where fewer than two blocks, or all other blocks are empty.
    """

    value: float
    count: int
    std: float | None
    stderr: float | None
    low: float
    high: float
    level: float
    without: tuple[float, ...]


def sample_mean(blocks: Sequence[NDArray[np.floating]], *, level: float = _LEVEL) -> SampleMean:
    """Average independent values that come in blocks.

    Formula: ``m = sum x / n``, ``s^2 = sum (x - m)^2 / (n - 1)``, stderr ``s / sqrt(n)``, interval
    ``m -+ t_{n - 1} s / sqrt(n)``, and ``(n m - sum of block) / (n - size of block)`` for each block, in
    float64.

    Args:
        blocks: one-dimensional arrays; a block may be empty.
        level: coverage of the interval, between 0 and 1.

    Raises:
        InvalidInputError: no values, or one that is not finite.
    """
    values = np.concatenate([np.asarray(block, dtype=np.float64).reshape(-1) for block in blocks])
    if not len(values):
        raise InvalidInputError("a mean needs at least 1 value")
    if not np.isfinite(values).all():
        raise InvalidInputError("a mean needs finite values")
    count, value = len(values), float(values.mean())
    deviations = [np.asarray(block, dtype=np.float64).reshape(-1) - value for block in blocks]
    left = [count - len(part) for part in deviations]
    without: tuple[float, ...] = ()
    if len(deviations) > 1 and min(left) > 0:
        # sum over the others of (x - m) is minus the block's own sum, because all of them sum to zero.
        without = tuple(value - float(part.sum()) / n for part, n in zip(deviations, left, strict=True))
    if count < 2:
        return SampleMean(value, count, None, None, value, value, level, without)
    std = float(values.std(ddof=1))
    stderr = std / math.sqrt(count)
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * stderr
    return SampleMean(value, count, std, stderr, value - reach, value + reach, level, without)
