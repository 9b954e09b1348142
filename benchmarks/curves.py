"""How seconds grow: the points of ``--curve``, in one form for ``growth_figures.py``.

rows = [Point("KID, d = 2048", "N", 1000, "evalkit", 0.051)]
write_curve("kid", rows)        # benchmarks/kid_curve.csv
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from interleaved import Comparison

FOLDER = Path(__file__).parent


class Point(NamedTuple):
    """Seconds of one contender at one size.

    Attributes:
        work: what was done, and with which sizes that do not grow: a panel of the figure.
        variable: what grows.
        at: its value.
        contender: who did it.
        seconds: of the whole work, or of what ``work`` says.
    """

    work: str
    variable: str
    at: int
    contender: str
    seconds: float


def points(comparison: Comparison, work: str, variable: str, at: int, *, of: float = 1.0) -> list[Point]:
    """Return the median of each contender, divided by ``of`` where the work is only a part of what ran."""
    return [
        Point(work, variable, at, name, float(np.median(seconds)) / of)
        for name, seconds in comparison.seconds.items()
    ]


def write_curve(name: str, rows: Iterable[Point]) -> Path:
    """Write ``benchmarks/NAME_curve.csv`` and say so."""
    path = FOLDER / f"{name}_curve.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        writer.writerows((*row[:-1], f"{row.seconds:.4g}") for row in rows)
    print(f"wrote {path}")
    return path
