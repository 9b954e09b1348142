"""Counted shares of trials, and how high a false-alarm rate may come out by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import beta

from evalkit.errors import InvalidInputError

SIGMAS = 3
"""Standard errors of a counted rate that are granted above the level."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``trials``.

    Raises:
        InvalidInputError: no trials, or more counted than there were.
    """

    count: int
    trials: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.trials or self.trials < 1:
            raise InvalidInputError(f"{self.count} of {self.trials} trials is no rate")

    @property
    def share(self) -> float:
        """The rate, in 0..1."""
        return self.count / self.trials

    @property
    def text(self) -> str:
        """``9 of 200``."""
        return f"{self.count} of {self.trials}"

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the exact binomial interval (Clopper & Pearson 1934), in 0..1."""
        tail = (1 - level) / 2
        low = float(beta.ppf(tail, self.count, self.trials - self.count + 1)) if self.count else 0.0
        missed = self.trials - self.count
        high = float(beta.ppf(1 - tail, self.count + 1, missed)) if missed else 1.0
        return low, high


def highest_rate(alpha: float, trials: int) -> float:
    """Return what a gate of level ``alpha`` may show in so many trials.

    ``alpha + 3 sqrt(alpha (1 - alpha) / trials)``: by chance alone a gate that keeps its level shows more
    about three times in a thousand.
    """
    return alpha + SIGMAS * math.sqrt(alpha * (1 - alpha) / trials)
