"""Where the names of points in a figure stand so that they cover no other name, no point, and no line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

_WIDTH, _HEIGHT = 5.4, 10.0  # of a bold letter of 8 points, and of its line
_GAP, _RADIUS = 7.0, 4.0
_RINGS = 3
_STEP, _THIN = 4.0, 0.5
_SHARES = {"left": 0.0, "center": 0.5, "right": 1.0}


@dataclass(frozen=True, slots=True)
class Offset:
    """How far from its point a name stands: its left end, centre or right end, and the middle of its line."""

    x: float
    y: float
    align: Literal["left", "center", "right"]

    def box(self, point: Point, width: float) -> Box:
        """Return what a name of that width covers."""
        left, middle = point[0] + self.x - _SHARES[self.align] * width, point[1] + self.y
        return left, middle - _HEIGHT / 2, left + width, middle + _HEIGHT / 2


def place_labels(
    points: Sequence[Point], names: Sequence[str], *, inside: Box, line: Sequence[Point] = ()
) -> list[Offset | None]:
    """Return where each point's name stands; all lengths are in points (1/72 inch).

    The first free place of right, left, above, below and the corners counts, then the same further away; a
    name may cross ``line`` where nothing else is free, and is None where all is taken or outside ``inside``.
    Earlier points choose first.
    """
    marks = [_around(point, _RADIUS) for point in points]
    crossed = [_around(point, _THIN) for point in _along(line)]
    written: list[Box] = []
    found: list[Offset | None] = []
    for point, name in zip(points, names, strict=True):
        boxes = {offset: offset.box(point, len(name) * _WIDTH) for offset in _OFFSETS}
        free = [o for o, b in boxes.items() if _within(b, inside) and not _hit(b, [*marks, *written])]
        clear = (offset for offset in free if not _hit(boxes[offset], crossed))
        choice = next(clear, free[0] if free else None)
        found.append(choice)
        written += [boxes[choice]] if choice else []
    return found


def _offsets() -> Iterator[Offset]:
    for ring in range(1, _RINGS + 1):
        away, beside = _GAP * ring, (_HEIGHT / 2 + _GAP) * ring
        yield from (Offset(away, 0.0, "left"), Offset(-away, 0.0, "right"))
        yield from (Offset(0.0, beside, "center"), Offset(0.0, -beside, "center"))
        yield from (Offset(away, beside, "left"), Offset(away, -beside, "left"))
        yield from (Offset(-away, beside, "right"), Offset(-away, -beside, "right"))


_OFFSETS = tuple(_offsets())


def _along(line: Sequence[Point]) -> Iterator[Point]:
    for (x, y), (u, v) in itertools.pairwise(line):
        steps = max(1, math.ceil(math.hypot(u - x, v - y) / _STEP))
        yield from ((x + (u - x) * i / steps, y + (v - y) * i / steps) for i in range(steps + 1))


def _around(point: Point, reach: float) -> Box:
    return point[0] - reach, point[1] - reach, point[0] + reach, point[1] + reach


def _within(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def _hit(box: Box, others: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
