"""What stands around a chart's points: axes, ticks, grid, titles and the legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalkit.pages.document import visible
from evalkit.pages.labels import text_width
from evalkit.pages.markers import Marker
from evalkit.pages.scales import Scale
from evalkit.spec import Better

WIDTH = 760.0
"""Width of every chart, in units of the picture; a unit is about a pixel."""

_PLOT_HEIGHT = 360.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 16.0, 12.0, 50.0
_LEGEND_ROW = 22.0
_DIRECTIONS = {"lower": "lower is better", "higher": "higher is better"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What runs along an axis; ``better`` is told beside the title."""

    title: str
    log: bool = False
    better: Better | None = None

    @property
    def text(self) -> str:
        """The title with what a reader must know of the axis."""
        facts = ["log scale"] if self.log else []
        facts += [_DIRECTIONS[self.better]] if self.better else []
        return f"{self.title} ({', '.join(facts)})" if facts else self.title


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The two scales of a chart, and where the names of its legend stand."""

    x: Scale
    y: Scale
    axes: tuple[Axis, Axis]
    legend: tuple[tuple[str, float, float], ...]

    @classmethod
    def around(
        cls, across: Sequence[float], up: Sequence[float], axes: tuple[Axis, Axis], names: Sequence[str]
    ) -> Frame:
        """Return the frame that shows all values, with a legend of ``names``.

        Raises:
            ValueError: no values, one that is not finite, or one not above zero on a log axis.
        """
        legend = tuple(_legend_places([name for name in names if name]))
        top = _TOP + (legend[-1][2] + 8 if legend else 0)
        x = Scale.around(across, start=_LEFT, end=WIDTH - _RIGHT, log=axes[0].log)
        y = Scale.around(up, start=top + _PLOT_HEIGHT, end=top, log=axes[1].log)
        return cls(x=x, y=y, axes=axes, legend=legend)

    @property
    def height(self) -> float:
        """Height of the whole picture."""
        return self.y.start + _BOTTOM

    def furniture(self, looks: Mapping[str, Marker]) -> Markup:
        """Return everything but the points."""
        return Markup("").join(
            [*self._across(), *self._up(), self._box(), *self._titles(), *self._legend(looks)]
        )

    def _box(self) -> Markup:
        return Markup('<path class="axis" d="M{:g} {:g}V{:g}H{:g}"/>').format(
            self.x.start, self.y.end, self.y.start, self.x.end
        )

    def _across(self) -> Iterator[Markup]:
        for place, text in self.x.ticks():
            yield Markup('<path class="grid" d="M{:.1f} {:g}V{:g}"/>').format(place, self.y.end, self.y.start)
            yield Markup('<text class="tick middle" x="{:.1f}" y="{:g}">{}</text>').format(
                place, self.y.start + 18, text
            )

    def _up(self) -> Iterator[Markup]:
        for place, text in self.y.ticks():
            yield Markup('<path class="grid" d="M{:g} {:.1f}H{:g}"/>').format(self.x.start, place, self.x.end)
            yield Markup('<text class="tick end" x="{:g}" y="{:.1f}">{}</text>').format(
                self.x.start - 8, place + 4, text
            )

    def _titles(self) -> Iterator[Markup]:
        across, up = self.axes
        yield Markup('<text class="title middle" x="{:g}" y="{:g}">{}</text>').format(
            (self.x.start + self.x.end) / 2, self.y.start + 40, visible(across.text)
        )
        middle = (self.y.start + self.y.end) / 2
        yield Markup(
            '<text class="title middle" transform="translate(14 {:g}) rotate(-90)">{}</text>'
        ).format(middle, visible(up.text))

    def _legend(self, looks: Mapping[str, Marker]) -> Iterator[Markup]:
        for name, x, y in self.legend:
            look = looks[name]
            yield Markup('<path class="mark {}" d="{}"/>').format(look.colour, look.at(x, y - 4))
            yield Markup('<text class="key" x="{:g}" y="{:g}">{}</text>').format(x + 12, y, visible(name))


def _legend_places(names: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Yield each name with the place of its marker, in as many rows as the width asks for."""
    x, y = _LEFT + 8, _TOP + 4
    for name in names:
        width = text_width(name) + 38
        if x + width > WIDTH and x > _LEFT + 8:
            x, y = _LEFT + 8, y + _LEGEND_ROW
        yield name, x, y
        x += width
