"""Names beside points that neither cover one another nor a point: those that find no room are left out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEIGHT = 13.0
# Average advance of a system sans serif at 12 units, rounded up: a label too narrow here would overlap there.
_ADVANCE = 6.8
_GAP = 9.0


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
    """Where a text's left end and base line stand."""

    text: str
    x: float
    y: float

    @property
    def box(self) -> Box:
        """The room that the text takes."""
        return Box(self.x, self.y - _HEIGHT + 3, self.x + text_width(self.text), self.y + 3)


def text_width(text: str) -> float:
    """Return the width of ``text`` at 12 units, on the safe side."""
    return sum(_ADVANCE * (2 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


def place(labels: Sequence[Label], obstacles: Sequence[Box], bounds: Box) -> list[Placed]:
    """Return places for ``labels``, the first one first, free of obstacles and within ``bounds``."""
    taken, placed = list(obstacles), []
    for label in labels:
        for candidate in _candidates(label):
            box = candidate.box
            if box.inside(bounds) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                placed.append(candidate)
                break
    return placed


def _candidates(label: Label) -> Iterator[Placed]:
    """Right of the point, left of it, above, below, then the corners."""
    width = text_width(label.text)
    right, left, middle = label.x + _GAP, label.x - _GAP - width, label.x - width / 2
    level, above, below = label.y + 4, label.y - _GAP - 2, label.y + _GAP + 10
    for x, y in (
        (right, level),
        (left, level),
        (middle, above),
        (middle, below),
        (right, above + 4),
        (left, above + 4),
        (right, below - 4),
        (left, below - 4),
    ):
        yield Placed(label.text, x, y)
