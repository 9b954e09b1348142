"""From numbers to places on a chart, and the round numbers that stand along an axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evalkit.reporting.formatting import significant

# Room between the outermost point and the frame, as a share of the axis.
_MARGIN = 0.06
_TICKS = 6
_SMALLEST, _LARGEST = 1e-300, 1e300
_EQUAL = 1e-9
_FEWEST_DIGITS, _MOST_DIGITS = 6, 12
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis from ``low`` to ``high``, drawn from ``start`` to ``end`` in units of the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, start: float, end: float, log: bool = False) -> Scale:
        """Return the scale that shows all ``values`` with a margin.

        Raises:
            ValueError: no value, one that is not finite, or one that is not above zero on a log axis.
        """
        found = list(values)
        if not found or not all(map(math.isfinite, found)) or (log and min(found) <= 0):
            raise ValueError("an axis needs finite values, above zero where it is logarithmic")
        low, high = (_forward(edge, log) for edge in (min(found), max(found)))
        size = 1.0 if log else max(abs(low), abs(high))
        # Values as good as equal: round numbers would not tell the ends of a narrower axis apart.
        span = size if high - low <= _EQUAL * size else high - low
        margin = 1.0 if size < _SMALLEST else span * _MARGIN
        lowest = low - margin
        if not log and min(found) >= 0:
            lowest = max(lowest, 0.0)
        return cls(low=lowest, high=high + margin, start=start, end=end, log=log)

    def at(self, value: float) -> float:
        """Return the place of ``value``; what a log axis cannot show stands at its start."""
        if self.log and value <= 0:
            return self.start
        share = (_forward(value, self.log) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the place and text of each tick."""
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        digits = _digits(values)
        return [(self.at(value), tick_text(value, digits)) for value in values]


def tick_text(value: float, digits: int = _FEWEST_DIGITS) -> str:
    """Return a round number as an axis shows it: digits in groups of three, no zeros at the end."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    text = significant(value, digits)
    mantissa, power, exponent = text.partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}{power}{exponent}" if "." in mantissa else text


def _digits(values: Sequence[float]) -> int:
    """Return how many significant digits tell the values of an axis apart."""
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    size = max(map(abs, values), default=0.0)
    if not steps or size == 0:
        return _FEWEST_DIGITS
    ratio = size / max(min(steps), size * 10.0**-_MOST_DIGITS)
    return min(max(_FEWEST_DIGITS, math.ceil(math.log10(ratio)) + 1), _MOST_DIGITS)


def _forward(value: float, log: bool) -> float:
    # Beyond these no difference or power of ten of two ends is a float.
    return math.log10(min(max(value, _SMALLEST), _LARGEST)) if log else min(max(value, -_LARGEST), _LARGEST)


def _linear_ticks(low: float, high: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step = next(s * power for s in _STEPS if (high - low) / (s * power) <= _TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    # Rounded: 3 x 0.1 is 0.30000000000000004.
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [float(f"{d}e{exponent}") for exponent in decades for d in digits]
        inside = [value for value in values if value > 0 and low <= math.log10(value) <= high]
        if len(inside) >= 3:
            every = math.ceil(len(inside) / (2 * _TICKS))
            return inside[::every]
    return _narrow_log_ticks(low, high)


def _narrow_log_ticks(low: float, high: float) -> list[float]:
    """Ticks within less than one step of a decade: round numbers, as on a linear axis."""
    return _linear_ticks(10.0**low, 10.0**high)
