"""Which colour and which shape a family has: told apart in greyscale and by colour-blind readers alike.

Colours are those of Okabe and Ito (2008, "Color universal design"), as CSS classes ``c0`` to ``c6``; shapes
carry an outline in the text's colour, because yellow on white has too little contrast by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

_COLOURS = 7
# Relative paths around the marker's centre, which "M x y" in front of them sets; about 10 units wide.
_SHAPES = (
    "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # circle
    "m-4.5-4.5h9v9h-9z",  # square
    "m0-6l5.5 10h-11z",  # triangle
    "m0-6l6 6-6 6-6-6z",  # diamond
    "m0 6l5.5-10h-11z",  # triangle pointing down
    "m-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # cross
    "m0-6l5.7 4.1-2.2 6.7h-7l-2.2-6.7z",  # pentagon
    "m-6-5h12l-6 5 6 5h-12l6-5z",  # hourglass
)
# A family keeps its marker from page to page, whoever else is on it.
_KNOWN = ("diffusion", "gan", "vae", "autoregressive", "flow", "images")


@dataclass(frozen=True, slots=True)
class Marker:
    """A colour class (``c0`` to ``c6``) and an outline as a relative SVG path."""

    colour: str
    shape: str

    def at(self, x: float, y: float) -> str:
        """Return the path's data with its centre at (x, y)."""
        return f"M{x:.1f} {y:.1f}{self.shape}"

    def icon(self) -> Markup:
        """Return the marker as a small inline picture that screen readers pass over."""
        return Markup(
            '<svg class="icon" viewBox="-8 -8 16 16" aria-hidden="true"><path class="mark {}" d="{}"/></svg>'
        ).format(self.colour, self.at(0, 0))


def markers(families: Iterable[str]) -> Mapping[str, Marker]:
    """Return a marker for each family, in alphabetical order; no two alike up to 56 families."""
    names = sorted(set(families))
    others = [name for name in names if name not in _KNOWN]
    places = {
        name: _KNOWN.index(name) if name in _KNOWN else len(_KNOWN) + others.index(name) for name in names
    }
    return {
        name: Marker(f"c{place % _COLOURS}", _SHAPES[place % len(_SHAPES)]) for name, place in places.items()
    }
