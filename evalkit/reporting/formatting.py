"""How numbers and marks look: error-aware rounding, counts for people, arrows, plain ASCII where needed.

measured(12.3456, 0.0789)   ->  "12.346 ± 0.079"
human_count(35_713_027)     ->  "35.7M"
human_bytes(3 * 2**30)      ->  "3 GiB"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TextIO

from evalkit.spec import Better

Tone = Literal["", "good", "bad", "warning", "dim"]

ARROWS: Mapping[Better, str] = {"lower": "↓", "higher": "↑"}
MISSING = "—"

_ASCII = str.maketrans(
    {"±": "+/-", "↓": "v", "↑": "^", "—": "-", "\u2013": "-", "…": "...", "\u00d7": "x", "∞": "inf"}
    | {"•": ">", "·": "-", "─": "-", "é": "e", "\u2019": "'", "\u202f": " "}
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# More decimals than this are hard to compare by eye: the power of ten is taken out instead.
_MOST_DECIMALS = 5


# Cyan and red, and not green and red: the pair stays apart for every kind of colour vision. A tone only
# repeats what the words say.
_TONES: Mapping[Tone, str] = {"good": "36", "bad": "31", "warning": "33", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Style:
    """What a stream can show: ``bold`` text and colours, characters beyond ASCII."""

    bold: bool = False
    unicode: bool = True

    def strong(self, text: str) -> str:
        """Return ``text`` in bold, where the stream can show it."""
        return f"\x1b[1m{text}\x1b[0m" if self.bold else text

    def toned(self, text: str, tone: Tone) -> str:
        """Return ``text`` in the colour of ``tone``, where the stream can show it."""
        return f"\x1b[{_TONES[tone]}m{text}\x1b[0m" if self.bold and tone and text else text

    def plain(self, text: str) -> str:
        """Return ``text`` without control characters, and in ASCII where the stream needs it."""
        text = _CONTROL.sub(" ", text)
        return text if self.unicode else to_ascii(text)


def style_for(stream: TextIO, environ: Mapping[str, str] | None = None) -> Style:
    """Return the style for ``stream``: codes only on a terminal with ``NO_COLOR`` unset (no-color.org)."""
    variables = os.environ if environ is None else environ
    bold = stream.isatty() and not variables.get("NO_COLOR") and variables.get("TERM") != "dumb"
    try:
        "±↓↑—…•·─é".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Style(bold=bold, unicode=False)
    return Style(bold=bold)


def to_ascii(text: str) -> str:
    """Return ``text`` in ASCII: arrows become ``v`` and ``^``, ± becomes ``+/-``."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()


def measured(value: float, error: float | None) -> str:
    """Return ``value ± error``, both rounded to two significant digits of the error."""
    if not error:
        suffix = "" if error is None else " ± 0"
        return f"{significant(value, 4)}{suffix}"
    numbers, power = _together((value, error), value=value, error=error)
    return f"({' ± '.join(numbers)}){power}" if power else " ± ".join(numbers)


def interval(low: float, high: float, *, value: float, error: float | None) -> str:
    """Return ``[low, high]`` with the digits of ``measured(value, error)``."""
    numbers, power = _together((low, high), value=value, error=error or (high - low) / 4)
    return f"[{', '.join(numbers)}]{power}"


def rounded_like(number: float, *, value: float, error: float | None) -> str:
    """Return ``number`` with the digits of ``measured(value, error)``."""
    if not error:
        return significant(number, 4)
    (text,), power = _together((number,), value=value, error=error)
    return f"{text}{power}"


def significant(value: float, digits: int) -> str:
    """Return ``value`` with at least so many significant digits; tiny and huge ones with a power of ten."""
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    mantissa, power = rounded.split("e")
    exponent = int(power)
    if -_MOST_DECIMALS <= exponent <= 9:
        return _fixed(value, max(digits - 1 - exponent, 0))
    return f"{mantissa}e{exponent}"


def human_count(number: float) -> str:
    """Return a count with k, M, G or T (powers of 1000) and three significant digits."""
    return _scaled(number, 1000, ("", "k", "M", "G", "T"))


def human_bytes(number: float) -> str:
    """Return bytes as KiB, MiB, GiB or TiB (powers of 1024) and three significant digits."""
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def human_flops(number: float) -> str:
    """Return floating-point operations as MFLOPs, GFLOPs or TFLOPs and three significant digits."""
    return _scaled(number, 1000, (" FLOPs", " kFLOPs", " MFLOPs", " GFLOPs", " TFLOPs", " PFLOPs"))


def human_rate(number: float) -> str:
    """Return a rate or a time with three significant digits; whole from 100 on, digits in groups of three."""
    return f"{number:,.0f}" if abs(number) >= 99.95 else _trimmed(number)


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    # 999.95 would print as "1000": it belongs to the next unit.
    while abs(number) >= base * 0.9995 and power < len(units) - 1:
        number /= base
        power += 1
    return f"{_trimmed(number)}{units[power]}"


def _trimmed(number: float) -> str:
    text = significant(number, 3)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _together(numbers: tuple[float, ...], *, value: float, error: float) -> tuple[list[str], str]:
    """Return numbers rounded to two significant digits of ``error``, and the power of ten taken out."""
    if error <= 0:
        return [significant(number, 4) for number in numbers], ""
    decimals = 1 - int(f"{error:.1e}".split("e")[1])  # negative: tens, hundreds
    if decimals <= _MOST_DECIMALS:
        return [_fixed(number, decimals) for number in numbers], ""
    # Where the error exceeds the value, the error sets the power of ten.
    exponent = int(f"{max(abs(value), error):.1e}".split("e")[1])
    scaled = [_fixed(float(Decimal(number).scaleb(-exponent)), decimals + exponent) for number in numbers]
    return scaled, f"e{exponent}"


def _fixed(value: float, decimals: int) -> str:
    text = f"{round(value, decimals):.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text
