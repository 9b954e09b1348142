"""The page of a report: one self-contained HTML file made of plain facts. No torch.

html = report_page(Report(title="cgan", subtitle="…", names=("cgan",), sections=()))
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from markupsafe import Markup

from evalkit.pages.charts import Axis, Point, Series, line
from evalkit.pages.document import asset, document, templates
from evalkit.pages.markers import Marker, markers
from evalkit.pages.report_facts import Chart, Intervals, Picture, Report
from evalkit.pages.report_intervals import intervals
from evalkit.reporting.rendering import Table

# Small pictures are enlarged to at most so many pixels, by a whole factor.
_SHOWN = 64


def report_page(report: Report) -> str:
    """Return the whole page as text.

    Raises:
        ValueError: a number of a chart is not finite.
    """
    looks = side_markers(report.names)
    body = (
        templates("evalkit.pages")
        .get_template("report.html.j2")
        .render(
            report=report,
            looks=looks,
            chart=_chart,
            intervals=functools.partial(_intervals, looks=looks),
            shown=shown_size,
            any_best=_any_best,
        )
    )
    return document(title=report.title, body=Markup(body), style=asset("evalkit.pages", "report.css"))  # noqa: S704 - the template escapes


def side_markers(names: Sequence[str]) -> tuple[Marker, ...]:
    """Return the marker of each model, left to right; a line of that name in a chart has the same."""
    found = markers(names)
    return tuple(found[name] for name in names)


def shown_size(picture: Picture) -> tuple[int, int]:
    """Return the width and height at which a picture is shown: a small one is enlarged by a whole factor."""
    factor = max(_SHOWN // max(picture.width, picture.height), 1)
    return picture.width * factor, picture.height * factor


def _chart(block: Chart) -> Markup:
    series = [
        Series(
            label=curve.label,
            points=tuple(
                Point(x=p.x, y=p.y, low=p.low, high=p.high, family=curve.label) for p in curve.points
            ),
        )
        for curve in block.curves
    ]
    return line(
        series,
        x=Axis(title=block.x_title, log=True),
        y=Axis(title=block.y_title),
        title=block.title,
        description=f"{block.y_title} against {block.x_title}; the same numbers stand in the table below.",
    )


def _any_best(table: Table) -> bool:
    return any(cell.best for row in table.rows for cell in row)


def _intervals(block: Intervals, *, looks: tuple[Marker, ...]) -> Markup:
    return intervals(block, looks)
