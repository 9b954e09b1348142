"""Intervals of several models, row by row on a scale of each row's own, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evalkit.pages.document import visible
from evalkit.pages.markers import Marker
from evalkit.pages.report_facts import Bar, IntervalRow, Intervals
from evalkit.pages.scales import Scale, tick_text
from evalkit.spec import sha256_of

_WIDTH = 640
_LABEL, _RIGHT = 200, 16
_LINE, _GAP, _TICKS = 18, 14, 18
_MOST_LABEL = 34


def intervals(block: Intervals, looks: Sequence[Marker]) -> Markup:
    """Return the picture; ``looks`` has the marker of each model, left to right.

    Raises:
        ValueError: a value is not finite.
    """
    parts, top = [], 4.0
    for row in block.rows:
        parts.append(_row(row, top, looks))
        top += _height(row)
    name = f"intervals-{sha256_of([block.title, len(block.rows)])[:8]}"
    head = Markup(
        '<svg class="chart intervals" viewBox="0 0 {0} {1:g}" role="img" aria-labelledby="{2}">'
        '<title id="{2}">{3}</title>'
    ).format(_WIDTH, top, name, visible(block.title))
    return head + Markup("").join(parts) + Markup("</svg>")


def _height(row: IntervalRow) -> float:
    return len(row.bars) * _LINE + _TICKS + _GAP


def _row(row: IntervalRow, top: float, looks: Sequence[Marker]) -> Markup:
    ends = [end for bar in row.bars for end in (bar.low, bar.value, bar.high) if end is not None]
    scale = Scale.around(ends, start=_LABEL, end=_WIDTH - _RIGHT)
    bottom = top + len(row.bars) * _LINE
    label = visible(row.label)
    shown = label if len(label) <= _MOST_LABEL else f"{label[: _MOST_LABEL - 1]}…"
    parts = [
        Markup('<text class="row" x="0" y="{:.1f}">{}</text>').format(top + _LINE * 0.72, shown),
        Markup('<path class="axis" d="M{} {:.1f}H{}"/>').format(_LABEL, bottom, _WIDTH - _RIGHT),
    ]
    for place, text in _ticks(scale):
        parts.append(
            Markup(
                '<path class="axis" d="M{0:.1f} {1:.1f}v4"/>'
                '<text class="tick" x="{0:.1f}" y="{2:.1f}">{3}</text>'
            )
            .format(place, bottom, bottom + 15, text)
        )  # fmt: skip
    for number, bar in enumerate(row.bars):
        parts.append(_bar(bar, top + (number + 0.5) * _LINE, scale, looks[bar.side]))
    return Markup("").join(parts)


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Return at most four ticks, so that their texts do not touch."""
    found = scale.ticks() or [(scale.at(middle := (scale.low + scale.high) / 2), tick_text(middle))]
    return found[:: -(-len(found) // 4)]


def _bar(bar: Bar, y: float, scale: Scale, look: Marker) -> Markup:
    told = visible(bar.name)
    line = Markup("")
    if bar.low is not None and bar.high is not None:
        line = Markup(
            '<path class="bar" d="M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v8M{1:.1f} {3:.1f}v8"/>'
        ).format(scale.at(bar.low), scale.at(bar.high), y, y - 4)
    return Markup('<g class="point"><title>{}</title>{}<path class="mark {}" d="{}"/></g>').format(
        told, line, look.colour, look.at(scale.at(bar.value), y)
    )
