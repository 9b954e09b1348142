"""Shares of a count: their Wilson interval, and their values without each block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from evalkit.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Proportion:
    """A count with the Wilson score interval of its share.

    Attributes:
        count: how many of ``total``.
        total: number of trials.
        low: lower end of the interval of ``share``; ``high``: upper end.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """``count / total``."""
        return self.count / self.total


def wilson_proportion(count: int, total: int, *, level: float = 0.95) -> Proportion:
    """The share ``count / total`` with its Wilson score interval (Wilson 1927).

    Formula, with ``z`` the normal quantile of ``(1 + level) / 2`` and ``p`` the share::

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    which keeps its coverage where the count is 0 or small.

    Raises:
        InvalidInputError: no trials, a count outside ``0..total``, or a level outside 0..1.
    """
    if not (0 <= count <= total and total > 0 and 0 < level < 1):
        raise InvalidInputError(f"no interval for {count} of {total} at level {level}")
    share, z = count / total, float(ndtri((1 + level) / 2))
    scale = 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / scale
    reach = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / scale
    # At the ends the formula is exactly 0 or 1; rounding may miss it by one bit.
    low = 0.0 if count == 0 else middle - reach
    return Proportion(count, total, low, 1.0 if count == total else middle + reach)


def shares_without_blocks(flags: NDArray[np.bool_], sizes: Sequence[int]) -> tuple[float, ...]:
    """The share of true ``flags`` ``[n]`` without each block of ``sizes`` ``[b]``; none for one block."""
    if len(sizes) < 2:
        return ()
    count, total = int(flags.sum()), len(flags)
    return tuple(
        (count - int(flags[start:stop].sum())) / (total - (stop - start))
        for start, stop in pairwise((0, *accumulate(sizes)))
    )
