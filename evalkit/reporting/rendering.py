"""A table as plain data, and how it is written: terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evalkit.errors import InvalidInputError
from evalkit.reporting.formatting import Style, Tone
from evalkit.spec import Scalar
from evalkit.spreadsheets import FORMULA_STARTS

Format = Literal["table", "md", "csv", "json"]
FORMATS: tuple[Format, ...] = ("table", "md", "csv", "json")
DEFAULT_WIDTH = 100

_GAP = "  "
# What GitHub-flavoured Markdown reads as markup or mathematics.
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$])")


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; ``short`` (title where empty) is the terminal's, which may break lines."""

    title: str
    align: Literal["left", "right"] = "right"
    short: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell shows, whether it is the best of its column, its footnote marks, and its tone."""

    text: str
    best: bool = False
    marks: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table for people (``columns``, ``rows``, ``notes``) and the same numbers for programs (``data``).

    Attributes:
        title: one line above the table.
        facts: sentences below the table about what was measured.
        legend: how to read the table, in one line.
        notes: footnotes as (mark, text); an empty mark belongs to the whole table.
        data: one mapping a row, all with the same keys; numbers unrounded.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    facts: tuple[str, ...] = ()
    legend: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    data: tuple[Mapping[str, Scalar], ...] = field(default=())


def render(table: Table, form: Format, *, style: Style | None = None, width: int = DEFAULT_WIDTH) -> str:
    """Return ``table`` in one of :data:`FORMATS`, with a trailing newline."""
    if form == "md":
        return to_markdown(table)
    if form == "csv":
        return to_csv(table)
    if form == "json":
        return to_json(table)
    return to_terminal(table, style=style, width=width)


def to_terminal(table: Table, *, style: Style | None = None, width: int = DEFAULT_WIDTH) -> str:
    """Return an aligned table; columns that do not fit in ``width`` follow in panels below."""
    style = style or Style()
    lines = [style.strong(style.plain(table.title)), ""]
    columns = [
        _Aligned.of(column, [row[i] for row in table.rows], style) for i, column in enumerate(table.columns)
    ]
    for panel in _panels(columns, width):
        lines += [*_panel_lines(panel, style), ""]
    any_best = any(cell.best for row in table.rows for cell in row)
    best = f"; {'bold' if style.bold else '•'} best of its column" if any_best else ""
    notes = [f"{mark} {text}" if mark else text for mark, text in table.notes]
    for text in (f"{table.legend}{best}.", *table.facts, *notes):
        lines += [style.toned(line, "dim") for line in _wrapped(style.plain(text), width)]
    return "\n".join(lines) + "\n"


def to_markdown(table: Table) -> str:
    """Return a GitHub-flavoured Markdown table; the best of a column in ``**``."""
    titles = [escaped(column.title) for column in table.columns]
    rule = ["---:" if column.align == "right" else ":---" for column in table.columns]
    lines = [f"**{escaped(table.title)}**", "", _markdown_row(titles), _markdown_row(rule)]
    for row in table.rows:
        texts = [f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text) for cell in row]
        lines.append(_markdown_row([f"{text}{escaped(c.marks)}" for text, c in zip(texts, row, strict=True)]))
    any_best = any(cell.best for row in table.rows for cell in row)
    lines += ["", escaped(table.legend) + ("; **bold** best of its column." if any_best else ".")]
    for fact in table.facts:
        lines += ["", escaped(fact)]
    for mark, text in table.notes:
        lines += ["", f"{escaped(mark)} {escaped(text)}".strip()]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, on one line."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", Style().plain(text))


def to_csv(table: Table) -> str:
    """Return ``table.data`` as CSV: LF, floats as shortest round trip, missing values empty.

    Raises:
        InvalidInputError: a text would be read as a formula by a spreadsheet.
    """
    stream = io.StringIO()
    names = list(table.data[0]) if table.data else []
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in names])
    writer.writerows([_csv_cell(row[name]) for name in names] for row in table.data)
    return stream.getvalue()


def to_json(table: Table) -> str:
    """Return ``table.data`` as a JSON list with one object a row."""
    return json.dumps([dict(row) for row in table.data], indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A column laid out for the terminal: all lines padded to one width, bold only after padding."""

    head: tuple[str, ...]
    body: tuple[str, ...]
    width: int

    @classmethod
    def of(cls, column: Column, cells: Sequence[Cell], style: Style) -> _Aligned:
        flag = "" if style.bold else style.plain("• ")
        texts = [f"{flag}{style.plain(cell.text)}" if cell.best else style.plain(cell.text) for cell in cells]
        marks = [cell.marks for cell in cells]
        tail = max((len(mark) for mark in marks), default=0)
        heads = tuple(style.plain(part) for part in (column.short or column.title).split("\n"))
        width = max(*(len(part) for part in heads), *(len(text) + tail for text in texts), 1)
        pad = str.rjust if column.align == "right" else str.ljust
        body = []
        for cell, text, mark in zip(cells, texts, marks, strict=True):
            shown = style.toned(style.strong(text) if cell.best else text, cell.tone)
            # Padding is counted on the visible text: escape codes have no width.
            blank = " " * (width - tail - len(text))
            joined = f"{blank}{shown}" if column.align == "right" else shown
            body.append(joined + mark.ljust(tail) + ("" if column.align == "right" else blank))
        return cls(tuple(pad(part, width) for part in heads), tuple(body), width)


def _panels(columns: Sequence[_Aligned], width: int) -> list[list[_Aligned]]:
    """Split columns into as few panels as ``width`` allows, evenly filled, each with the first column."""
    panels = _packed(columns, width)
    while width > 1 and len(narrower := _packed(columns, width - 1)) == len(panels) > 1:
        panels, width = narrower, width - 1
    return panels


def _packed(columns: Sequence[_Aligned], width: int) -> list[list[_Aligned]]:
    first, *others = columns
    panels = [[first]]
    used = first.width
    for column in others:
        if used + len(_GAP) + column.width > width and len(panels[-1]) > 1:
            panels.append([first])
            used = first.width
        panels[-1].append(column)
        used += len(_GAP) + column.width
    return panels


def _panel_lines(panel: Sequence[_Aligned], style: Style) -> list[str]:
    height = max(len(column.head) for column in panel)
    # Headings stand on the rule: the shorter ones get blank lines above.
    heads = [[" " * c.width] * (height - len(c.head)) + list(c.head) for c in panel]
    width = sum(column.width for column in panel) + len(_GAP) * (len(panel) - 1)
    rule = style.toned(style.plain("─") * width, "dim")
    lines = [rule, *(_GAP.join(parts) for parts in zip(*heads, strict=True)), rule]
    lines += [_GAP.join(parts) for parts in zip(*(column.body for column in panel), strict=True)]
    return [line.rstrip() for line in [*lines, rule]]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width=width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv_cell(value: Scalar) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    if value.startswith(FORMULA_STARTS):
        raise InvalidInputError(
            f"the text {value[:40]!r} would be a formula in a spreadsheet",
            hint="write Markdown or JSON instead",
        )
    return value
