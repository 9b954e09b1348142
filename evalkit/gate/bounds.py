"""One-sided bounds of differences against their margins, Holm's correction, and how many images would decide.

    verdicts = judge([Difference(0.3, 0.1, 15, "paired")], [0.05], alpha=0.05)

Two claims are tested on each difference d with margin M. *Worse*: H0 is d <= M; it is rejected, a regression,
after Holm's correction (Holm 1979), so that the chance of any false alarm is at most alpha however many rules
there are and however they depend on one another. *Not worse*: H0 is d >= M (non-inferiority); a gate passes
only where all its rules do, and such an intersection-union test needs no correction (Berger 1982).

Accepted trade-offs: M is taken as it is, though a share r of the baseline's value b is as uncertain as b.
For a candidate that is worse by exactly M, unpaired, an alpha of 5 % is then still 5 % where r is 5 %, but
6 % where it is 20 %, and 9 % where it is 50 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.gate.differences import Difference

MOST_IMAGES = 10_000_000
"""More images a side than this are not advised: nobody will draw them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the error bars say of one difference.

    Attributes:
        low: lower one-sided bound at 1 - alpha, and ``high`` the upper one.
        p_value: of "no worse than the margin"; ``adjusted`` by Holm.
        improved: the upper bound is below minus the margin.
    """

    status: Literal["pass", "regression", "inconclusive"]
    low: float
    high: float
    p_value: float
    adjusted: float
    improved: bool


def judge(
    differences: Sequence[Difference], margins: Sequence[float], *, alpha: float
) -> tuple[Verdict, ...]:
    """Return the verdict on each difference with an error bar, all of them at level ``alpha`` together.

    With ``t = t_{1 - alpha}(degrees)``: bounds are ``d -+ t se``; the p-value is ``P(T > (d - M) / se)``.

    Raises:
        ValueError: a difference has no error bar.
    """
    p_values = [_p_value(d, margin) for d, margin in zip(differences, margins, strict=True)]
    verdicts = []
    for d, margin, p_value, adjusted in zip(differences, margins, p_values, holm(p_values), strict=True):
        reach = _quantile(1 - alpha, _degrees(d)) * _error(d)
        low, high = d.value - reach, d.value + reach
        status: Literal["pass", "regression", "inconclusive"] = "inconclusive"
        if adjusted <= alpha:
            status = "regression"
        elif high <= margin:
            status = "pass"
        verdicts.append(
            Verdict(
                status=status,
                low=low,
                high=high,
                p_value=p_value,
                adjusted=adjusted,
                improved=high < -margin,
            )
        )
    return tuple(verdicts)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's adjusted p-values, in the order given.

    Sorted upwards, ``adjusted_i = max_{j <= i} min(1, (m - j + 1) p_j)``: rejecting those at most alpha keeps
    the chance of any false rejection at alpha under any dependence (Holm 1979).
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return tuple(adjusted)


def images_to_decide(
    difference: Difference, margin: float, *, images: int, alpha: float, rules: int = 1
) -> int | None:
    """Return how many images a side would decide if the difference stays as it is, in two digits.

    ``N = n (t se / |M - d|)^2``, since standard errors shrink as ``1 / sqrt(N)``. Beyond the margin t is that
    of ``alpha / rules``, with which Holm's correction is content whatever the other rules say.

    Returns:
        Rounded up to two significant digits; None where it is infinite or above :data:`MOST_IMAGES`.
    """
    distance = abs(margin - difference.value)
    level = alpha / rules if difference.value > margin else alpha
    reach = _quantile(1 - level, _degrees(difference)) * _error(difference)
    if distance == 0 or images < 1:
        return None
    ratio = reach / distance
    if ratio > math.sqrt(MOST_IMAGES / images):
        return None
    needed = _rounded_up(images * ratio**2)
    return needed if needed <= MOST_IMAGES else None


def images_for_power(
    error: float, degrees: int, margin: float, *, images: int, alpha: float = 0.05, power: float = 0.95
) -> float:
    """Return how many images a side it takes to catch a shift of two margins with probability ``power``.

    A shift of 2 M lies M beyond the margin, and is caught where that is ``t_{1 - alpha} + t_{power}``
    standard errors: ``N = n ((t_{1 - alpha} + t_{power}) se / M)^2``. The same N passes an unchanged model
    with that probability.

    Args:
        error: standard error of the difference at ``images`` images a side.
        degrees: its degrees of freedom.
        margin: above 0, in the same unit.
        images: a side, that ``error`` was found with.
        alpha: of the gate, one-sided.
        power: wanted, in 0..1.
    """
    reach = _quantile(1 - alpha, degrees) + _quantile(power, degrees)
    return images * (reach * error / margin) ** 2


def _p_value(difference: Difference, margin: float) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - slow to import

    above, error = difference.value - margin, _error(difference)
    if error == 0:
        return 0.0 if above > 0 else 1.0
    return float(stdtr(_degrees(difference), -above / error))


def _quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to import

    return float(stdtrit(degrees, probability))


def _error(difference: Difference) -> float:
    if difference.se is None:
        raise ValueError("a difference without an error bar has no bounds")
    return difference.se


def _degrees(difference: Difference) -> int:
    if difference.degrees is None:
        raise ValueError("a difference without degrees of freedom has no bounds")
    return difference.degrees


def _rounded_up(number: float) -> int:
    """Round up to two significant digits."""
    whole = math.ceil(number)
    unit = int(10 ** max(len(str(whole)) - 2, 0))
    return -(-whole // unit) * unit
