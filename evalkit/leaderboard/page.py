"""A leaderboard as one self-contained HTML file: table, plot, samples and where every number comes from.

    path.write_text(board_page(read_board(folder), csv_href="scores.csv"), encoding="utf-8")

The page holds nothing that is not in the board, neither the time nor this release's version: built again from
the same records it is the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from markupsafe import Markup

from evalkit.errors import UsageError
from evalkit.leaderboard.facts import Board, Group
from evalkit.leaderboard.metric_help import MetricHelp, help_for
from evalkit.leaderboard.page_plot import Plot, pareto_plot
from evalkit.leaderboard.page_rows import PageTable, page_table
from evalkit.leaderboard.page_runs import Facts, Run, protocol_fields, runs_of
from evalkit.leaderboard.ranking import result_of
from evalkit.pages.charts import MANY_POINTS
from evalkit.pages.document import asset, document, templates
from evalkit.pages.markers import Marker, markers
from evalkit.record import RunRecord
from evalkit.reporting.formatting import ARROWS

_PACKAGE = "evalkit.leaderboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A group as its template sees it."""

    number: int
    fingerprint: str
    protocol: str
    fields: Sequence[tuple[str, str]]
    when: str
    releases: str
    data: str
    table: PageTable
    direction: str
    help: MetricHelp | None
    plot: Plot | None
    shared: Facts
    runs: Sequence[Run]
    compact: bool


def board_page(board: Board, *, csv_href: str | None = None) -> str:
    """Return the page of a board as HTML text, complete without JavaScript and without any other file.

    ``csv_href``: where the page finds the board's CSV, relative or https.

    Raises:
        InvalidInputError: a grid of samples is not a WebP picture.
        NothingMeasuredError: the records of a group hold neither scores nor speeds.
        UsageError: ``csv_href`` is neither relative nor https.
    """
    sections = list(_sections(board.groups))
    families = {entry.record.model.family for group in board.groups for entry in group.entries}
    body = (
        templates(_PACKAGE)
        .get_template("board.html.j2")
        .render(
            info=board.info,
            paragraphs=[part for part in board.info.description.split("\n\n") if part.strip()],
            sections=sections,
            count=sum(len(section.runs) for section in sections),
            looks=_looks(families),
            helps=_helps(sections),
            arrows=ARROWS,
            csv=None if csv_href is None else _checked(csv_href),
        )
    )
    return document(
        title=board.info.title,
        body=Markup(body),  # noqa: S704 - rendered with autoescape
        style=asset(_PACKAGE, "templates/board.css"),
        script=asset(_PACKAGE, "templates/board.js"),
    )


def _sections(groups: Sequence[Group]) -> Iterator[_Section]:
    first = 0
    for number, group in enumerate(groups):
        if not group.entries:
            continue
        yield _section(group, number, first)
        first += len(group.entries)


def _section(group: Group, number: int, first: int) -> _Section:
    records = [entry.record for entry in group.entries]
    table = page_table(group, first_anchor=first)
    shared, runs = runs_of(table.rows)
    ranked = next(
        (found for record in records if (found := result_of(record, group.headline, group.variant))), None
    )
    return _Section(
        number=number,
        fingerprint=group.fingerprint,
        protocol=records[0].protocol.name,
        fields=protocol_fields(records[0].protocol.fields),
        when=_when(records),
        releases=", ".join(sorted({str(r.env["evalkit"]) for r in records if r.env.get("evalkit")})),
        data=", ".join(sorted({_data(record) for record in records})),
        table=table,
        direction=ranked.direction if ranked else "",
        help=help_for(group.headline),
        plot=pareto_plot(group, table),
        shared=shared,
        runs=runs,
        compact=len(runs) > MANY_POINTS,
    )


def _looks(families: set[str]) -> dict[str, tuple[int, Marker]]:
    return {family: (place, look) for place, (family, look) in enumerate(markers(families).items())}


def _helps(sections: Sequence[_Section]) -> list[MetricHelp]:
    """Return help for every metric of the board, once each, in the order of the columns."""
    found = (help_for(column.key) for section in sections for column in section.table.columns)
    return list({known.name: known for known in found if known}.values())


def _when(records: Sequence[RunRecord]) -> str:
    days = sorted(record.created_utc[:10] for record in records)
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _data(record: RunRecord) -> str:
    data = record.data
    return f"{data.dataset}/{data.split}" if data.split else data.dataset


def _checked(href: str) -> str:
    parts = urlsplit(href)
    relative = not parts.scheme and not parts.netloc
    if not href.isprintable() or "\\" in href or not (relative or parts.scheme == "https"):
        raise UsageError(
            f"a page cannot link to {href[:80]!r}", hint="give a relative path or an https address"
        )
    return href
