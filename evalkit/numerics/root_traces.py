"""Traces of matrix roots from determinants of shifted matrices, where eigenvalues would cost more.

    sqrt(x) = sqrt(c) + 1/pi integral_0^infinity log((x + s^2) / (c + s^2)) ds

so that for a symmetric positive definite matrix A of r rows ::

    tr A^1/2 = r sqrt(c) + 1/pi integral (log det (A + s^2) - r log(c + s^2)) ds

The integral is replaced by the midpoint rule after the change of variable that maps the plane without the
slits ``+-i [sqrt(low), sqrt(high)]``, where the logarithm is singular, onto a strip: with
``k^2 = low / high``, ``s = -i sqrt(low) sn(i v | k^2)``. It converges like
``exp(-2 pi^2 N / (log(high / low) + 3))`` (Hale, Higham & Trefethen 2008, theorem 4.1, whose rule is that of
the derivative). All nodes are real: what is factored stays positive definite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array

MOST_NODES = 96
# Of each root, as a part of the largest: logarithms of up to 70 are rounded, and weighted with that root.
ROUNDING = 2e-14
# The series of the map, and the points at which a rule is tried, need some room between the ends.
_LEAST_RATIO = 16.0
_TRIALS = 400


@dataclass(frozen=True, slots=True, eq=False)
class RootRule:
    """A rule for roots of numbers between two ends.

    Attributes:
        shifts: float64 ``[N]``, the ``s^2`` at which determinants are wanted, ascending.
        weights: float64 ``[N]``, of the logarithms.
        centre: the ``c`` that the logarithms are compared with.
        error: largest relative error of the root of any number between the ends, beyond ``ROUNDING`` times
            the root of the upper end. Of a number below the lower end the root errs by less than that end's.
    """

    shifts: Float64Array
    weights: Float64Array
    centre: float
    error: float

    @property
    def model(self) -> Float64Array:
        """``log(c + s^2)`` float64 ``[N]``: what each eigenvalue's logarithm is compared with."""
        return np.asarray(np.log(self.centre + self.shifts))

    def root_trace(self, log_determinants: Float64Array, *, count: int) -> float:
        """Return the trace of the root of a matrix of ``count`` rows, or its change.

        Args:
            log_determinants: float64 ``[N]`` of ``A + s^2``; or by how much they changed, with the number of
                rows that were added (negative: taken away) as ``count``.
            count: number of rows.
        """
        return count * math.sqrt(self.centre) + float(self.weights @ (log_determinants - count * self.model))


def root_rule(low: float, high: float, *, error: float) -> RootRule:
    """Return a rule for the roots of all numbers from ``low`` to ``high``.

    Its error is measured at 400 numbers between them, evenly in the logarithm.

    Args:
        low: above 0.
        high: at least ``low``.
        error: relative error that is wanted; what is reached is told by the rule.

    Raises:
        InvalidInputError: an end is not positive and finite, or they are in the wrong order.
    """
    if not 0 < low <= high < math.inf:
        raise InvalidInputError(f"a rule for roots needs 0 < low <= high, not {low:g} and {high:g}")
    room = max(1.0, math.sqrt(_LEAST_RATIO * low / high))
    low, high = low / room, high * room
    digits = math.log(1 / min(max(error, 1e-15), 0.1))
    count = max(1, math.ceil(digits * (math.log(high / low) + 3) / (2 * math.pi**2)) - 1)
    while True:
        rule = _rule(low, high, min(count, MOST_NODES))
        if rule.error <= error or count >= MOST_NODES:
            return rule
        count += 1


def _rule(low: float, high: float, count: int) -> RootRule:
    shifts, weights = _nodes(low, high, count)
    centre = math.sqrt(low * high)
    numbers = np.geomspace(low, high, _TRIALS)
    logs = np.log((numbers[:, None] + shifts) / (centre + shifts))
    roots = np.sqrt(numbers)
    missed = np.abs(math.sqrt(centre) + logs @ weights - roots) - ROUNDING * math.sqrt(high)
    return RootRule(shifts, weights, centre, float((missed.clip(0) / roots).max()))


def _nodes(low: float, high: float, count: int) -> tuple[Float64Array, Float64Array]:
    """Shifts and weights of the midpoint rule with ``count`` nodes."""
    modulus = math.sqrt(low / high)
    narrow = math.pi / (2 * _mean(1.0, math.sqrt(1 - modulus**2)))
    wide = math.pi / (2 * _mean(1.0, modulus))
    step = wide / count
    at = (np.arange(count) + 0.5) * step
    # The upper half mirrors the lower one, s(K - v) = sqrt(low high) / s(v), where the series converges fast.
    near = np.minimum(at, wide - at)
    s, slope = np.zeros(count), np.zeros(count)
    for n in range(64):
        odd = (2 * n + 1) * math.pi / (2 * narrow)
        # nome^(n + 1/2) e^(odd v), each factor of which may leave the range of numbers.
        decay = -math.pi * wide / narrow
        rising, falling = (np.exp((n + 0.5) * decay + sign * odd * near) for sign in (1, -1))
        scale = math.pi / (modulus * narrow) / (1 - math.exp((2 * n + 1) * decay))
        s += scale * (rising - falling)
        slope += scale * odd * (rising + falling)
    s, slope = math.sqrt(low) * s, math.sqrt(low) * slope
    upper = at > wide / 2
    slope = np.where(upper, math.sqrt(low * high) / s**2 * slope, slope)
    s = np.where(upper, math.sqrt(low * high) / s, s)
    return s * s, slope * step / math.pi


def _mean(a: float, b: float) -> float:
    """The arithmetic-geometric mean."""
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return a
