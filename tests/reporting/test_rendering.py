"""One table, four formats."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest

from evalkit.errors import InvalidInputError
from evalkit.reporting.formatting import Style
from evalkit.reporting.rendering import (
    FORMATS,
    Cell,
    Column,
    Table,
    escaped,
    render,
    to_csv,
    to_json,
    to_markdown,
    to_terminal,
)


def table(**changes):
    values = {
        "title": "two models",
        "columns": (Column("model", "left"), Column("fd:lite ↓", short="fd:\nlite ↓"), Column("is ↑")),
        "rows": (
            (Cell("a"), Cell("1.0 ± 0.1", best=True, marks=" *"), Cell("2")),
            (Cell("long|name"), Cell("20.0 ± 0.1"), Cell("3", best=True)),
        ),
        "facts": ("N = 8.",),
        "legend": "↓ lower is better",
        "notes": (("*", "small sample: <b>beware</b>"), ("", "for all")),
        "data": ({"model": "a", "fd": 1.0, "is": None}, {"model": "b", "fd": 20.0, "is": 3}),
        **changes,
    }
    return Table(**values)


def test_terminal():
    assert to_terminal(table()).splitlines() == [
        "two models",
        "",
        "──────────────────────────────",
        "                     fd:",
        "model             lite ↓  is ↑",
        "──────────────────────────────",
        "a          • 1.0 ± 0.1 *     2",
        "long|name   20.0 ± 0.1     • 3",
        "──────────────────────────────",
        "",
        "↓ lower is better; • best of its column.",
        "N = 8.",
        "* small sample: <b>beware</b>",
        "for all",
    ]


def test_bold_does_not_move_columns():
    bold = to_terminal(table(), style=Style(bold=True))
    bare = bold.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "\x1b[1m1.0 ± 0.1\x1b[0m *" in bold
    assert "•" not in bold
    starts = [line.index("±") for line in bare.splitlines() if "±" in line]
    assert len(set(starts)) == 1


def test_ascii_only():
    text = to_terminal(table(), style=Style(unicode=False))
    assert text.isascii()
    assert "> 1.0 +/- 0.1 *" in text
    assert "v lower is better" in text


@pytest.mark.parametrize("width", [10, 20, 31, 80])
def test_columns_that_do_not_fit_follow_in_panels(width):
    lines = to_terminal(table(), width=width).splitlines()
    rules = [line for line in lines if line.startswith("─")]
    assert len(rules) == (3 if width >= 31 else 6)
    # Each panel repeats the first column, and nothing is lost.
    assert sum(line.startswith("model") for line in lines) == len(rules) // 3
    assert [
        title for line in lines if line.startswith("model") for title in ("lite ↓", "is ↑") if title in line
    ] == [
        "lite ↓",
        "is ↑",
    ]


def test_panels_are_filled_evenly():
    columns = (Column("m", "left"), *(Column(f"column {i}") for i in range(6)))
    wide = table(columns=columns, rows=(tuple(Cell("1") for _ in columns),))
    counts = [line.count("column") for line in to_terminal(wide, width=56).splitlines() if "column" in line]
    assert counts[:2] == [3, 3]


def test_a_record_cannot_steer_the_terminal():
    text = to_terminal(table(notes=(("[1]", "\x1b[31mred\nnew line\u202e"),)))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.splitlines()[-1] == "[1]  [31mred new line"


def test_escaped_text_is_shown_as_it_was_written():
    assert escaped("a_b *c* <d> [e](f) $x$\n# g") == r"a\_b \*c\* \<d\> \[e\](f) \$x\$ \# g"
    assert "\\$5" in to_markdown(table(title="Costs $5"))


def test_markdown():
    assert to_markdown(table()).splitlines() == [
        "**two models**",
        "",
        "| model | fd:lite ↓ | is ↑ |",
        "| :--- | ---: | ---: |",
        "| a | **1.0 ± 0.1** \\* | 2 |",
        "| long\\|name | 20.0 ± 0.1 | **3** |",
        "",
        "↓ lower is better; **bold** best of its column.",
        "",
        "N = 8.",
        "",
        "\\* small sample: \\<b\\>beware\\</b\\>",
        "",
        "for all",
    ]


def test_csv_holds_pure_numbers():
    text = to_csv(table())
    assert text == "model,fd,is\na,1.0,\nb,20.0,3\n"
    assert to_csv(table(data=())) == "\n"


@pytest.mark.parametrize("number", [0.1 + 0.2, -1e-300, 12345678.9])
def test_csv_round_trips_floats(number):
    text = to_csv(table(data=({"x": number, "note": 'say "a, b"\nc'},)))
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["x"]) == number
    assert row["note"] == 'say "a, b"\nc'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\tx", "\rx"])
def test_csv_refuses_formulas(text):
    with pytest.raises(InvalidInputError, match="formula") as caught:
        to_csv(table(data=({"warnings": text},)))
    assert caught.value.hint


def test_json_is_a_list_of_rows_and_strict():
    assert json.loads(to_json(table())) == [dict(row) for row in table().data]
    with pytest.raises(ValueError, match="JSON"):
        to_json(table(data=({"x": math.nan},)))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_with_one_newline(form):
    text = render(table(), form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_tones_are_shown_on_a_terminal_only_and_move_nothing():
    rows = (
        (Cell("a", tone="bad"), Cell("1.0 ± 0.1", best=True, tone="good"), Cell("2", tone="warning")),
        (Cell("b"), Cell("20.0 ± 0.1"), Cell("3")),
    )
    toned = to_terminal(table(rows=rows), style=Style(bold=True))
    assert "\x1b[31ma\x1b[0m" in toned
    assert "\x1b[36m\x1b[1m1.0 ± 0.1\x1b[0m\x1b[0m" in toned
    assert "\x1b" not in to_terminal(table(rows=rows))
    bare = re.sub(r"\x1b\[\d*m", "", toned)
    plain_rows = tuple(tuple(Cell(cell.text, best=cell.best) for cell in row) for row in rows)
    assert bare == re.sub(r"\x1b\[\d*m", "", to_terminal(table(rows=plain_rows), style=Style(bold=True)))
