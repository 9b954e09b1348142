"""Error bars from leave-one-block-out values: the delete-a-group jackknife.

The percentile bootstrap is deliberately absent: resampling with replacement doubles the bias of a Fréchet
distance, and its interval then covers the truth almost never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

HALVED = 20
"""Groups that :func:`balanced_halves` cuts."""


@dataclass(frozen=True, slots=True)
class Jackknife:
    """What leave-one-block-out values say about an estimate.

    Attributes:
        stderr: standard error of the estimate.
        bias_corrected: the estimate with its order 1/n bias removed.
        low: lower end of the t interval around the estimate itself.
        high: upper end of it.
        level: coverage of the interval.
    """

    stderr: float
    bias_corrected: float
    low: float
    high: float
    level: float = 0.95


def block_edges(n: int, blocks: int) -> tuple[int, ...]:
    """Edges of contiguous blocks whose sizes differ by at most one: ``i * n // blocks``.

    Raises:
        InvalidInputError: fewer than one block, or fewer rows than blocks.
    """
    if blocks < 1 or n < blocks:
        raise InvalidInputError(f"{n} rows cannot be cut into {blocks} blocks of at least one")
    return tuple(i * n // blocks for i in range(blocks + 1))


def jackknife(
    value: float,
    without: Sequence[float] | NDArray[np.float64],
    *,
    sizes: Sequence[int],
    level: float = 0.95,
    share: float = 1.0,
) -> Jackknife:
    """Delete-m_j jackknife for blocks of any sizes.

    Formula (Busing, Meijer & van der Leeden 1999, eqs. 6-8), with ``h_j = n / m_j`` and g blocks::

        corrected = g value - sum_j (1 - m_j / n) without_j
        variance  = 1/g sum_j (h_j value - (h_j - 1) without_j - corrected)^2 / (h_j - 1)

    which for equal blocks is the ordinary jackknife. The interval is
    ``value -+ t_{g - 1} stderr``.

    Args:
        value: the estimate from all rows.
        without: ``[g]`` estimates, each without one block.
        sizes: ``[g]`` rows in each block, in the same order.
        level: coverage of the interval, between 0 and 1.
        share: what the variance is multiplied by where the jackknife counts parts of it more than once; see
            :func:`first_order_share`.

    Raises:
        InvalidInputError: fewer than two blocks, lengths differ, an empty block, or a value not finite.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 - 0.2 s that a distance of two files does not need

    left_out, counts = _checked(value, without, sizes)
    if not 0 < level < 1:
        raise InvalidInputError(f"a confidence level lies between 0 and 1, not at {level}")
    ratio = counts.sum() / counts
    # Written in differences from the estimate: the textbook form cancels g times its size.
    change = (1 - 1 / ratio) * (value - left_out)
    correction = float(change.sum())
    pseudo = ratio * change - correction
    variance = float((pseudo**2 / (ratio - 1)).mean())
    stderr = math.sqrt(share * variance)
    reach = float(stdtrit(len(counts) - 1, (1 + level) / 2)) * stderr
    return Jackknife(stderr, value + correction, value - reach, value + reach, level)


def first_order_share(
    value: float,
    without: Sequence[float] | NDArray[np.float64],
    without_pairs: NDArray[np.float64],
) -> float:
    """Share of a jackknife variance that is left when every order of the statistic is counted once.

    The jackknife counts the k-th order of the statistic's Hoeffding expansion k times (Efron & Stein 1981,
    section 4): for the share of reference points that any generated point reaches it is up to twice too
    large. They estimate the second order (section 5)::

        Q_ij   = g value - (g - 1)(without_i + without_j) + (g - 2) without_ij
        excess = sum_{i<j} (Q_ij - mean Q)^2 / (g (g - 1))

    and subtract it, which can leave nothing. Here the orders are those of a Poisson count, so that the whole
    series is ``(1 - exp(-rho)) / rho`` with ``rho = 2 excess / variance``: exact for the share of equal cells
    that a Poisson process reaches, and theirs to second order.

    Args:
        value: the estimate from all rows.
        without: ``[g]`` estimates, each without one of g blocks of equal size.
        without_pairs: ``[g, g]`` estimates without two blocks; only what is above the diagonal is read.

    Returns:
        The share, in 0..1; 1 for a mean.

    Raises:
        InvalidInputError: fewer than three blocks, shapes differ, or a value is not finite.
    """
    variance, excess = _second_order(value, without, without_pairs)
    rho = 2 * excess / variance if variance > 0 else 0.0
    return -math.expm1(-rho) / rho if rho > 0 else 1.0


def second_degree_share(
    value: float,
    without: Sequence[float] | NDArray[np.float64],
    without_pairs: NDArray[np.float64],
) -> float:
    """Share of a jackknife variance that is left for a statistic whose expansion ends with its second order.

    A squared discrepancy of means of kernels is such a statistic, and of a perfect model it is nothing but
    second order: there the jackknife's error bar is up to sqrt(2) too wide. Efron & Stein's correction (see
    :func:`first_order_share`) is then exact, ``1 - excess / variance``. It is kept from falling below one
    half, which is the share where all is second order.

    Args:
        value: the estimate from all rows.
        without: ``[g]`` estimates, each without one of g blocks of equal size.
        without_pairs: ``[g, g]`` estimates without two blocks; only what is above the diagonal is read.

    Returns:
        The share, in 0.5..1; 1 for a mean.

    Raises:
        InvalidInputError: fewer than three blocks, shapes differ, or a value is not finite.
    """
    variance, excess = _second_order(value, without, without_pairs)
    return max(0.5, 1 - excess / variance) if variance > 0 else 1.0


def second_degree_share_of_some(
    value: float,
    without: Sequence[float] | NDArray[np.float64],
    pairs: Sequence[tuple[int, int, float]],
) -> float:
    """As :func:`second_degree_share`, with the excess estimated from some of the pairs of blocks.

    Args:
        value: the estimate from all rows.
        without: ``[g]`` estimates, each without one of g blocks of equal size.
        pairs: ``(i, j, estimate without blocks i and j)``, two pairs or more.

    Returns:
        The share, in 0.5..1.

    Raises:
        InvalidInputError: fewer than three blocks or two pairs, or a value is not finite.
    """
    groups = len(without)
    left_out, _ = _checked(value, without, [1] * groups)
    if groups < 3 or len(pairs) < 2 or not all(math.isfinite(estimate) for _, _, estimate in pairs):
        raise InvalidInputError("the second order of a jackknife needs three blocks and two finite pairs")
    change = left_out - value
    interaction = [
        (groups - 2) * (estimate - value) - (groups - 1) * float(change[i] + change[j])
        for i, j, estimate in pairs
    ]
    excess = float(np.var(interaction, ddof=1)) / 2
    variance = float(((change - change.mean()) ** 2).sum()) * (groups - 1) / groups
    return max(0.5, 1 - excess / variance) if variance > 0 else 1.0


def _second_order(
    value: float,
    without: Sequence[float] | NDArray[np.float64],
    without_pairs: NDArray[np.float64],
) -> tuple[float, float]:
    """The jackknife variance, and by how much the second order makes it too large."""
    groups = len(without)
    left_out, _ = _checked(value, without, [1] * groups)
    if groups < 3 or without_pairs.shape != (groups, groups):
        raise InvalidInputError(f"{groups} blocks have [{groups}, {groups}] pairs, not {without_pairs.shape}")
    above = np.triu_indices(groups, 1)
    # In differences from the estimate: the textbook form cancels g times its size.
    pairs, change = without_pairs[above] - value, left_out - value
    if not np.isfinite(pairs).all():
        raise InvalidInputError("a jackknife needs finite values")
    interaction = (groups - 2) * pairs - (groups - 1) * (change[above[0]] + change[above[1]])
    excess = float(((interaction - interaction.mean()) ** 2).sum()) / (groups * (groups - 1))
    variance = float(((change - change.mean()) ** 2).sum()) * (groups - 1) / groups
    return variance, excess


def balanced_halves() -> NDArray[np.bool_]:
    """The 19 cuts of 20 groups in halves of 10, bool ``[19, 20]``, of which every linear statistic is exact.

    For a mean of equal groups with the halves' values a and b, ``mean (a - b)^2 / 4`` over the cuts is the
    jackknife's variance: in signs, the cuts and a row of ones are a Hadamard matrix (balanced half-samples:
    McCarthy 1969), here Paley's of order 19 + 1 (1933), from the squares modulo 19.
    """
    order = HALVED - 1
    numbers = np.arange(order)
    squares = np.isin(numbers, numbers[1:] ** 2 % order)
    # Row and column i - j: quadratic character, 0 on the diagonal, to which the identity adds 1.
    core = squares[(numbers[:, None] - numbers) % order]
    core[np.diag_indices(order)] = True
    return np.concatenate([np.zeros((order, 1), dtype=np.bool_), core], axis=1)


def _checked(
    value: float, without: Sequence[float] | NDArray[np.float64], sizes: Sequence[int]
) -> tuple[Float64Array, Float64Array]:
    left_out = np.asarray(without, dtype=np.float64)
    counts = np.asarray(sizes, dtype=np.float64)
    groups = len(counts)
    if groups < 2 or left_out.shape != (groups,):
        raise InvalidInputError(
            f"a jackknife needs two blocks or more, not {left_out.size} values of {groups}"
        )
    if (counts < 1).any():
        raise InvalidInputError("a jackknife block is empty")
    if not (math.isfinite(value) and np.isfinite(left_out).all()):
        raise InvalidInputError("a jackknife needs finite values")
    return left_out, counts
