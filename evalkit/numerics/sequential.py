"""A sequential test for two runs of one plan: look after every block, stop when the answer is certain.

A run is planned in B blocks. After k of them the paired block differences ``d_1 .. d_k`` (worse-positive)
have the mean D and the standard error s, and the share ``t`` of the plan is done. With ``Z = (D - margin) /
s`` the score ``W(t) = Z sqrt(t)`` is a Brownian motion seen at the looks (Jennison & Turnbull 2000, section
3.1). A constant boundary c on W is that of O'Brien & Fleming (1979); crossing it means::

    regression   D - q s >  margin,    q = c / sqrt(t)
    pass         D + q s <= margin

so that ``D -+ q s`` are repeated confidence bounds (Jennison & Turnbull 1989): each holds at every look at
once with probability ``1 - alpha``, whatever made one stop. c solves ``P(W reaches c at a look) = alpha`` by
recursive numerical integration (Armitage, McPherson & Rowe 1969), exactly for the looks that there can be:
1.83 for alpha .05 and looks at 5 .. 16 of 16 blocks. Continuous monitoring would need 1.96 (``alpha = 2 - 2
Phi(c)``, by reflection; as spending function: Lan & DeMets 1983), for looks that cannot be, since there is no
estimate between two blocks. Leaving looks out only lowers the error rate.

s has few degrees of freedom: q is the Student quantile at the level of the normal one, ``T_{k-1}^{-1}(Phi(c /
sqrt t))``, the significance-level approach (Jennison & Turnbull 2000, chapter 11; Pocock 1977). It is not
exact: at 8 to 20 blocks and alpha .1 to .005, 800 000 simulated normal runs each, the error rate is 1.07 to
1.16 alpha. :func:`student_boundary` therefore spends 0.85 alpha, which measures 0.92 to 0.99 alpha (c = 1.90
for the case above).

Accepted trade-offs. Blocks are taken to be normal. Differences as skewed as an exponential, in blocks of 8
images, are wrong at 0.5 alpha on one side and 1.5 alpha on the other (one t test: 0.7 and 1.4), in blocks of
64 at 0.8 and 1.1. The boundary is flat: it asks for much at early looks (z = 3.4 after 5 of 16 blocks) and
for little more than one test at the last (1.90 against 1.645), so that a run that needs all its images loses
little. One side's stopping is not credited to the other (non-binding): each error rate holds even if the
other bound is ignored. All of alpha is spent by the last look: a test of the finished run at a fixed size
would spend it a second time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

FEWEST_BLOCKS = 5
"""Blocks before the first look: four degrees of freedom."""
_SPENT = 0.85  # of alpha, for what Student's quantile at each look falls short of the joint law
_RARE = 3.0  # variance, in images squared, that a count of rare events is never credited with being below
_NODES = 160  # of a Gauss-Legendre rule over the continuation region: exit probabilities to 1e-9
_TAIL = 8.5  # standard deviations beyond which a normal has nothing


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a difference after some blocks.

    Attributes:
        difference: mean of the paired differences, weighted by images; worse-positive.
        se: its standard error, on ``degrees`` degrees of freedom.
        low: the true difference lies above it, at every look at once, with the regression's confidence.
        high: and below this one with that of a pass.
        share: of the planned images, in (0, 1].
    """

    difference: float
    se: float
    degrees: int
    low: float
    high: float
    share: float


@dataclass(frozen=True, slots=True)
class Exits:
    """Probabilities that W leaves the interval for the first time at each look."""

    above: Float64Array
    below: Float64Array


def look_times(sizes: Sequence[int], *, fewest: int = FEWEST_BLOCKS) -> tuple[float, ...]:
    """Return the share of the images at each look: after every block from the ``fewest``-th on.

    Raises:
        InvalidInputError: an empty block, or fewer blocks than ``fewest``.
    """
    if min(sizes, default=0) < 1 or len(sizes) < fewest:
        raise InvalidInputError(f"a sequential test needs {fewest} blocks or more, there are {len(sizes)}")
    done = np.cumsum(sizes)
    return tuple(float(share) for share in done[fewest - 1 :] / done[-1])


@lru_cache(maxsize=64)
def boundary(alpha: float, times: tuple[float, ...]) -> float:
    """Return c with ``P(W(t) >= c at some look) = alpha`` for a Brownian motion W (see the module).

    Args:
        alpha: one-sided error rate over all looks, in (0, 0.5).
        times: of the looks, increasing in (0, 1].

    Raises:
        InvalidInputError: a number is out of range.
    """
    if not 0 < alpha < 0.5:
        raise InvalidInputError(f"an error rate lies between 0 and 0.5, not at {alpha}")

    from scipy.optimize import brentq  # noqa: PLC0415 - 0.2 s that a run to the end does not need

    def excess(c: float) -> float:
        return float(exits(times, upper=c).above.sum()) - alpha

    # One look at the end needs least; continuous monitoring (reflection) needs most.
    lowest, highest = -float(ndtri(alpha)) * math.sqrt(times[-1]), -float(ndtri(alpha / 2))
    return float(brentq(excess, lowest - 1e-6, highest + 1e-6, xtol=1e-10))


def student_boundary(alpha: float, sizes: Sequence[int]) -> float:
    """Return the boundary c of :func:`look` for a plan of blocks with ``sizes`` images (see the module).

    Raises:
        InvalidInputError: as :func:`boundary` and :func:`look_times`.
    """
    return boundary(_SPENT * alpha, look_times(sizes))


def exits(times: Sequence[float], *, upper: float, lower: float = -math.inf, drift: float = 0.0) -> Exits:
    """Exit probabilities of ``W(t) + drift t`` from ``(lower, upper)`` at each look.

    The density inside is carried from look to look by Gauss-Legendre quadrature (Armitage, McPherson & Rowe
    1969, eq. 1).

    Args:
        times: of the looks, increasing in (0, 1].
        upper: an exit is a value at or above it.
        lower: or at or below this.
        drift: mean of W at t = 1: the true difference less the margin, in standard errors of the whole run.

    Raises:
        InvalidInputError: times or bounds are not in order.
    """
    steps = np.diff([0.0, *times])
    if not len(steps) or (steps <= 0).any() or times[-1] > 1 + 1e-9 or not lower < upper:
        raise InvalidInputError(f"looks must come in order in (0, 1], not at {tuple(times)}")
    floor = max(lower, min(0.0, drift) - _TAIL)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    grid = floor + (upper - floor) * (nodes + 1) / 2
    weights = weights * (upper - floor) / 2
    above, below = np.zeros(len(steps)), np.zeros(len(steps))
    where, mass = np.zeros(1), np.ones(1)
    for number, step in enumerate(steps):
        spread = math.sqrt(step)
        centre = where + drift * step
        above[number] = float(mass @ ndtr((centre - upper) / spread))
        below[number] = float(mass @ ndtr((lower - centre) / spread))
        density = np.exp(-0.5 * ((grid[:, None] - centre) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
        where, mass = grid, weights * (density @ mass)
    return Exits(above, below)


def expected_share(times: Sequence[float], *, upper: float, lower: float, drift: float) -> float:
    """Share of the planned images that is drawn on average; arguments as :func:`exits`."""
    found = exits(times, upper=upper, lower=lower, drift=drift)
    stopped = found.above + found.below
    return float(stopped @ np.asarray(times) + (1 - stopped.sum()) * times[-1])


def pseudo_values(value: float, without: Sequence[float], *, sizes: Sequence[int]) -> Float64Array:
    """Return each block's own estimate: Tukey's pseudo-values.

    ``p_j = h_j value - (h_j - 1) without_j`` with ``h_j = n / m_j`` (Busing, Meijer & van der Leeden 1999).
    For a mean they are the blocks' means. Each is unbiased if the statistic is, or if its bias is exactly
    proportional to 1/n, as a V-statistic's.

    Raises:
        InvalidInputError: fewer than two blocks, lengths differ, or a value is not finite.
    """
    left_out, counts = np.asarray(without, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if len(counts) < 2 or left_out.shape != counts.shape or (counts < 1).any():
        raise InvalidInputError(f"{left_out.size} leave-one-out values of {len(counts)} blocks")
    if not (math.isfinite(value) and np.isfinite(left_out).all()):
        raise InvalidInputError("pseudo-values need finite values")
    # In differences from the estimate: the textbook form cancels B times its size.
    own: Float64Array = value + (counts.sum() / counts - 1) * (value - left_out)
    return own


def look(
    differences: Sequence[float] | NDArray[np.float64],
    *,
    sizes: Sequence[int],
    planned: int,
    regression: float,
    acceptance: float,
    step: float = 0.0,
) -> Look:
    """Return the difference so far and its repeated bounds (formula in the module).

    Blocks are weighted by their images, as differences of means of them: ``D = sum m_j d_j / n`` and
    ``s^2 = sum m_j (d_j - D)^2 / ((k - 1) n)``. Where few images of a count differ, blocks without any show
    no spread at all: ``3 (step / n)^2`` is added to s^2, as if three images more had differed.

    Args:
        differences: ``[k]`` paired block differences, worse-positive.
        sizes: ``[k]`` images in each.
        planned: images of the whole plan.
        regression: boundary of a regression, from :func:`student_boundary`.
        acceptance: boundary of a pass.
        step: by how much one image can move n times the metric; 0 for one that is no count.

    Raises:
        InvalidInputError: fewer than two blocks, lengths differ, or a difference is not finite.
    """
    values, counts = np.asarray(differences, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if len(values) < 2 or values.shape != counts.shape or not np.isfinite(values).all():
        raise InvalidInputError(f"a look needs two finite differences or more, not {values.tolist()}")
    n, degrees = float(counts.sum()), len(values) - 1
    mean = float(counts @ values) / n
    variance = float(counts @ (values - mean) ** 2) / (degrees * n)
    se = math.sqrt(variance + _RARE * (step / n) ** 2)
    share = min(1.0, n / planned)
    return Look(
        difference=mean,
        se=se,
        degrees=degrees,
        low=mean - reach(regression, share, degrees) * se,
        high=mean + reach(acceptance, share, degrees) * se,
        share=share,
    )


@lru_cache(maxsize=256)
def reach(c: float, share: float, degrees: int) -> float:
    """Return q, the standard errors from a mean to its repeated bound: Student's at ``Phi(c / sqrt t)``."""
    tail = float(ndtr(-c / math.sqrt(share)))
    # Of some tails below 1e-237 the function has the wrong sign.
    size = abs(float(stdtrit(degrees, tail))) if 0 < tail < 1 else abs(c) * math.inf
    return math.copysign(size, c)


def stops(
    differences: NDArray[np.float64], *, margin: float, regression: float, acceptance: float,
    fewest: int = FEWEST_BLOCKS,
) -> NDArray[np.int64]:  # fmt: skip
    """Follow many runs of a plan of equal blocks: after which block each is decided, and how.

    Args:
        differences: ``[runs, B]`` block differences, worse-positive.
        margin: the difference that is tolerated.
        regression: boundary of a regression.
        acceptance: boundary of a pass.
        fewest: blocks before the first look.

    Returns:
        int64 ``[runs]``: k for a regression found after k blocks, -k for a pass, 0 for neither.
    """
    runs, blocks = differences.shape
    decided = np.zeros(runs, dtype=np.int64)
    for k in range(fewest, blocks + 1):
        part = differences[:, :k]
        mean, se = part.mean(axis=1), part.std(axis=1, ddof=1) / math.sqrt(k)
        low = mean - reach(regression, k / blocks, k - 1) * se
        high = mean + reach(acceptance, k / blocks, k - 1) * se
        found = np.where(low > margin, k, np.where(high <= margin, -k, 0))
        decided = np.where(decided == 0, found, decided)
    return decided
