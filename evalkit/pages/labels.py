"""Names beside points that neither cover one another nor a point: those that find no room are left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_HEIGHT = 13.0
ADVANCE = 6.8
"""Average advance of a sans serif at 12 units, rounded up: a label too narrow here would overlap there."""

_GAP = 9.0

Anchor = Literal["start", "middle", "end"]
_SHARES: Mapping[Anchor, float] = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, one: tuple[float, float], other: tuple[float, float], margin: float) -> Box:
        """Return the smallest rectangle that holds two points and a margin around them."""
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(one, other, strict=True))
        return cls(left - margin, top - margin, right + margin, bottom + margin)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether it lies within ``other``."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to the point (x, y)."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a text's left end, middle or right end and its base line stand."""

    text: str
    x: float
    y: float
    anchor: Anchor

    @property
    def box(self) -> Box:
        """The room that the text takes."""
        width = text_width(self.text)
        left = self.x - _SHARES[self.anchor] * width
        return Box(left, self.y - _HEIGHT + 3, left + width, self.y + 3)


def text_width(text: str) -> float:
    """Return the width of ``text`` at 12 units, on the safe side."""
    return ADVANCE * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def place(
    labels: Sequence[Label], obstacles: Sequence[Box], bounds: Box, *, lines: Sequence[Box] = ()
) -> list[Placed]:
    """Return places for ``labels``, the first one first, free of obstacles and within ``bounds``.

    A label crosses one of ``lines`` only where it finds no other place; one without any place is left out.
    """
    taken, placed = list(obstacles), []
    for label in labels:
        free = [
            candidate
            for candidate in _candidates(label)
            if (box := candidate.box).inside(bounds) and not any(map(box.overlaps, taken))
        ]
        clear = (candidate for candidate in free if not any(map(candidate.box.overlaps, lines)))
        if chosen := next(clear, free[0] if free else None):
            taken.append(chosen.box)
            placed.append(chosen)
    return placed


def _candidates(label: Label) -> Iterator[Placed]:
    """Right of the point, left of it, above, below, then the corners."""
    right, left = label.x + _GAP, label.x - _GAP
    level, above, below = label.y + 4, label.y - _GAP - 2, label.y + _GAP + 10
    places: tuple[tuple[float, float, Anchor], ...] = (
        (right, level, "start"),
        (left, level, "end"),
        (label.x, above, "middle"),
        (label.x, below, "middle"),
        (right, above + 4, "start"),
        (left, above + 4, "end"),
        (right, below - 4, "start"),
        (left, below - 4, "end"),
    )
    return (Placed(label.text, *one) for one in places)
