"""The main table of a board's page: what stands in each cell, and the place of each row in every order.

Accepted trade-offs: a row carries its place in the order of each column, not the numbers themselves. The page
then sorts as Python does by construction, ties and text included, and 200 rows stay small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalkit.leaderboard.facts import Entry, Group
from evalkit.leaderboard.wide import group_table, rank_text, ranks_by
from evalkit.reporting.costs import Quantity, known_costs
from evalkit.reporting.formatting import ARROWS
from evalkit.reporting.rendering import Cell, Column
from evalkit.spec import Better, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class PageColumn:
    """A heading; ``key`` is ``rank``, ``model``, ``family``, ``pareto``, a metric's label or a cost.

    A line may end between the parts of ``breaks``; sorting shows the ``best`` end first.
    """

    key: str
    title: str
    breaks: tuple[str, ...]
    best: Better


_LEADING = (
    PageColumn(key="rank", title="rank", breaks=("rank",), best="lower"),
    PageColumn(key="model", title="model", breaks=("model",), best="lower"),
    PageColumn(key="family", title="family", breaks=("family",), best="lower"),
)
_PARETO = PageColumn(key="pareto", title="Pareto", breaks=("Pareto",), best="higher")
_MARK = "•"
_ABSENT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCell:
    """What a cell shows: a number, the error after it, whether it is the best of its column, and marks."""

    text: str
    error: str
    best: bool
    marks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRow:
    """An entry as a row. ``order``: its place in each column's ascending order, ``-`` without a value."""

    anchor: str
    entry: Entry
    rank: str
    marks: str
    cells: tuple[PageCell, ...]
    pareto: str
    order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTable:
    """The table of a group, its sentences and footnotes; ``headline`` is the key of what ranks, or empty."""

    columns: tuple[PageColumn, ...]
    rows: tuple[PageRow, ...]
    headline: str
    legend: str
    facts: tuple[str, ...]
    footnotes: tuple[tuple[str, str], ...]


def page_table(group: Group, *, first_anchor: int) -> PageTable:
    """Return the rows of ``group`` in its order, numbered on the page from ``first_anchor``.

    Raises:
        NothingMeasuredError: no record of the group holds a score or a speed.
    """
    table = group_table(group)
    # A column of numbers says its direction: that tells it from the texts.
    places = [place for place, column in enumerate(table.columns) if column.title[-1] in ARROWS.values()]
    model = [column.title for column in table.columns].index("model")
    columns = _columns(
        [table.columns[place] for place in places], known_costs([e.record for e in group.entries])
    )
    orders = _orders(group.entries, table.data, columns)
    rows = (
        PageRow(
            anchor=f"r{first_anchor + i}",
            entry=entry,
            rank=rank_text(entry.ranks),
            marks=cells[model].marks.strip(),
            cells=tuple(_cell(cells[place]) for place in places),
            pareto=_MARK if entry.pareto else "",
            order=orders[i],
        )
        for i, (entry, cells) in enumerate(zip(group.entries, table.rows, strict=True))
    )
    return PageTable(
        columns=(*_LEADING, *columns, _PARETO),
        rows=tuple(rows),
        headline=next((c.key for c in columns if ranks_by(group, c.key)), ""),
        legend=table.legend,
        facts=table.facts,
        # Notes and sources of entries have no mark: the page tells them with the run.
        footnotes=tuple((mark, text) for mark, text in table.notes if mark),
    )


def _columns(found: Sequence[Column], costs: Sequence[Quantity]) -> list[PageColumn]:
    # A label is an identifier: the first blank ends it, and a unit or an arrow follows.
    labels = [column.title.split(" ")[0] for column in found[: len(found) - len(costs)]]
    return [
        PageColumn(
            key=key,
            title=column.title,
            breaks=tuple((column.short or column.title).split("\n")),
            best="higher" if column.title.endswith(ARROWS["higher"]) else "lower",
        )
        for key, column in zip([*labels, *(cost.key for cost in costs)], found, strict=True)
    ]


def _cell(cell: Cell) -> PageCell:
    # Where a power of ten is taken out, value and error share a bracket and stay together.
    value, sign, error = cell.text.partition(" ± ")
    if not sign or value.startswith("("):
        value, error = cell.text, ""
    return PageCell(text=value, error=error, best=cell.best, marks=cell.marks.strip())


def _orders(
    entries: Sequence[Entry], data: Sequence[Mapping[str, Scalar]], columns: Sequence[PageColumn]
) -> list[str]:
    # The rows come in the order of the headline's values, which tells more than ranges of ranks.
    ranked: list[Scalar] = [None if entry.ranks is None else i for i, entry in enumerate(entries)]
    names: list[Scalar] = [entry.name for entry in entries]
    families: list[Scalar] = [entry.record.model.family for entry in entries]
    numbers = [[row[column.key] for row in data] for column in columns]
    marked: list[Scalar] = [1 if entry.pareto else None for entry in entries]
    places = [_places(values) for values in (ranked, names, families, *numbers, marked)]
    return [" ".join(row) for row in zip(*places, strict=True)]


def _places(values: Sequence[Scalar]) -> list[str]:
    """Return the place of each value among the distinct ones, from 0; equal values share theirs."""
    distinct = sorted({value for value in values if value is not None}, key=_key)
    at = {value: str(place) for place, value in enumerate(distinct)}
    return [_ABSENT if value is None else at[value] for value in values]


def _key(value: Scalar) -> tuple[float, str]:
    """Numbers by size, text by code point; a column holds one kind."""
    return (0.0, value) if isinstance(value, str) else (float(value or 0), "")
