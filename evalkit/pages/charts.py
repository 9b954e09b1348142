"""Small charts as inline SVG: points with error bars, and lines. Colours come from the page's style sheet.

    scatter(
        [Point(x=17.3, y=4.43, low=4.2, high=4.6, label="ddpm", family="diffusion")],
        x=Axis(title="images/s", log=True, better="higher"),
        y=Axis(title="kernel distance", better="lower"),
        title="Quality against speed",
        description="One point a model.",
    )

A chart is one picture to a screen reader: its title and description are read, its points are not. Whoever
places one also shows the numbers as a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evalkit.pages.document import visible
from evalkit.pages.frame import WIDTH, Axis, Frame
from evalkit.pages.labels import Box, Label, place
from evalkit.pages.markers import Marker, markers
from evalkit.spec import sha256_of

__all__ = ["MANY_POINTS", "MOST_LABELS", "Axis", "Point", "Series", "corners", "line", "scatter"]

MANY_POINTS = 500
"""With more points than this, only the emphasised ones have a tooltip, a label and an error bar."""

MOST_LABELS = 60
"""Names beside points; more would only hide them."""

_RADIUS = 7.0
_CLEARANCE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point in the axes' units.

    Attributes:
        low: lower end of its error bar, along y; ``high`` its upper end.
        label: drawn beside it, where there is room.
        family: chooses colour and shape, and stands in the legend.
        tooltip: shown under the pointer; the label where empty.
        key: a word for scripts, as ``data-key``.
        emphasised: labelled before others, and drawn above them.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    family: str = ""
    tooltip: str = ""
    key: str = ""
    emphasised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points joined by a line, from left to right; ``label`` chooses colour and shape, as a family does."""

    label: str
    points: tuple[Point, ...]


def scatter(
    points: Sequence[Point],
    *,
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    fronts: Sequence[Sequence[tuple[float, float]]] = (),
) -> Markup:
    """Return points with error bars as SVG, and a staircase through each front: what no other point beats.

    Raises:
        ValueError: no points, one that is not finite, or one not above zero on a log axis.
    """
    looks = markers(point.family for point in points)
    frame = _frame(points, (x, y), list(looks))
    crowded = len(points) > MANY_POINTS
    apart = [point for point in points if point.emphasised or not crowded]
    parts = [frame.furniture(looks)]
    if crowded:
        parts += _crowd([point for point in points if not point.emphasised], looks, frame)
    stairs = [corners(_at(*place, frame) for place in front) for front in fronts if len(front) > 1]
    for stair in stairs:
        path = "L".join(f"{across:.1f} {up:.1f}" for across, up in stair)
        parts.append(Markup('<path class="front" d="M{}"/>').format(path))
    # The emphasised are drawn last, above the others.
    parts += [_mark(p, looks[p.family], frame) for p in sorted(apart, key=lambda p: p.emphasised)]
    steps = [Box.around(*pair, _CLEARANCE) for stair in stairs for pair in itertools.pairwise(stair)]
    parts += _labels(apart, steps, frame)
    return _picture(frame, parts, title, description)


def line(series: Sequence[Series], *, x: Axis, y: Axis, title: str, description: str) -> Markup:
    """Return lines through points with error bars as SVG, one colour and shape a series.

    Raises:
        ValueError: no points, one that is not finite, or one not above zero on a log axis.
    """
    looks = markers(one.label for one in series)
    points = [point for one in series for point in one.points]
    frame = _frame(points, (x, y), [one.label for one in series])
    parts = [frame.furniture(looks)]
    for one in series:
        look, ordered = looks[one.label], sorted(one.points, key=lambda point: point.x)
        places = (_at(point.x, point.y, frame) for point in ordered)
        path = "L".join(f"{across:.1f} {up:.1f}" for across, up in places)
        parts.append(Markup('<path class="line {}" d="M{}"/>').format(look.colour, path))
        parts += [_mark(point, look, frame) for point in ordered]
    parts += _labels(points, [], frame)
    return _picture(frame, parts, title, description)


def _frame(points: Sequence[Point], axes: tuple[Axis, Axis], names: Sequence[str]) -> Frame:
    up = [end for point in points for end in (point.low, point.y, point.high) if end is not None]
    if axes[1].log and all(point.y > 0 for point in points):
        # The foot of an error bar may reach below zero: it is cut off at the frame.
        up = [end for end in up if end > 0]
    return Frame.around([point.x for point in points], up, axes, names)


def _at(x: float, y: float, frame: Frame) -> tuple[float, float]:
    return frame.x.at(x), frame.y.at(y)


def _bar(point: Point, frame: Frame) -> tuple[float, float, float] | None:
    """Return where a point's error bar stands, its top and its foot; None where it has none."""
    if point.low is None or point.high is None:
        return None
    return frame.x.at(point.x), frame.y.at(point.high), frame.y.at(point.low)


def _mark(point: Point, look: Marker, frame: Frame) -> Markup:
    tooltip = visible(point.tooltip or point.label)
    opening = (
        Markup('<g class="point" data-key="{}">').format(visible(point.key))
        if point.key
        else Markup('<g class="point">')
    )
    told = Markup("<title>{}</title>").format(tooltip) if tooltip else ""
    bar = _bar(point, frame)
    drawn = Markup('<path class="bar" d="M{:.1f} {:.1f}V{:.1f}"/>').format(*bar) if bar else ""
    shape = look.at(*_at(point.x, point.y, frame))
    return opening + told + drawn + Markup('<path class="mark {}" d="{}"/></g>').format(look.colour, shape)


def _crowd(points: Sequence[Point], looks: Mapping[str, Marker], frame: Frame) -> Iterator[Markup]:
    """One path a family: ten thousand elements of their own would make a page slow."""
    for family, look in looks.items():
        places = [_at(point.x, point.y, frame) for point in points if point.family == family]
        if places:
            path = "".join(look.at(*place) for place in places)
            yield Markup('<path class="mark crowd {}" d="{}"/>').format(look.colour, path)


def corners(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the staircase through ``places``: first along y, then along x."""
    ordered = sorted(places)
    turns = [((before[0], after[1]), after) for before, after in itertools.pairwise(ordered)]
    return ordered[:1] + [corner for pair in turns for corner in pair]


def _labels(points: Sequence[Point], steps: Sequence[Box], frame: Frame) -> Iterator[Markup]:
    chosen = sorted((point for point in points if point.label), key=lambda point: not point.emphasised)
    labels = [Label(visible(p.label), *_at(p.x, p.y, frame)) for p in chosen[:MOST_LABELS]]
    bounds = Box(frame.x.start, frame.y.end, frame.x.end, frame.y.start)
    found = (bar for point in points if (bar := _bar(point, frame)))
    bars = [Box.around((at, top), (at, foot), _CLEARANCE) for at, top, foot in found]
    rooms = [_room(point, frame) for point in points]
    for placed in place(labels, rooms, bounds, lines=[*steps, *bars]):
        # A text begins at its anchor unless its class says otherwise.
        anchor = "" if placed.anchor == "start" else f" {placed.anchor}"
        yield Markup('<text class="label{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
            anchor, placed.x, placed.y, placed.text
        )


def _room(point: Point, frame: Frame) -> Box:
    at = _at(point.x, point.y, frame)
    return Box.around(at, at, _RADIUS)


def _picture(frame: Frame, parts: Sequence[Markup], title: str, description: str) -> Markup:
    name = f"chart-{sha256_of([title, description])[:8]}"
    head = Markup(
        '<svg class="chart" viewBox="0 0 {0:g} {1:g}" role="img" '
        'aria-labelledby="{2}-t" aria-describedby="{2}-d">'
        '<title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>'
    ).format(WIDTH, frame.height, name, visible(title), visible(description))
    return head + Markup("").join(parts) + Markup("</svg>")
