"""The page from plain facts: complete, escaped, self-contained; no torch."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from evalkit.errors import InvalidInputError
from evalkit.pages.report import report_page, shown_size, side_markers
from evalkit.pages.report_facts import (
    Bar,
    Chart,
    Command,
    Curve,
    CurvePoint,
    Facts,
    Gallery,
    IntervalRow,
    Intervals,
    Match,
    Matches,
    Paragraph,
    Picture,
    Pictures,
    Report,
    Section,
    TableBlock,
)
from evalkit.reporting.rendering import Cell, Column, Table

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e"


def picture(text: str = "sample 0", side: int = 32) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (10, 200, 30)).save(buffer, "webp", lossless=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(data=f"data:image/webp;base64,{data}", width=side, height=side, alt=text, caption=text)


def table(text: str = "fd") -> Table:
    cells = (Cell(text, marks="*"), Cell("1.0 ± 0.1", best=True))
    return Table(
        title=text, columns=(Column(text, "left"), Column("value")), rows=(cells,), facts=(text,),
        legend=text, notes=(("*", text),),
    )  # fmt: skip


def every_block(text: str, sides: int = 2) -> tuple:
    points = (CurvePoint(x=10.0, y=2.0, low=1.5, high=2.5), CurvePoint(x=100.0, y=1.0))
    bars = (Bar(name=text, value=1.0, low=0.5, high=1.5), Bar(name="second", value=2.0, side=sides - 1))
    return (
        Paragraph(text=text, tone="warning"),
        Pictures(title=text, pictures=(picture(text),)),
        Pictures(label=text, pictures=(picture(text),), strip=True),
        Gallery(groups=(Pictures(title=text, pictures=(picture(text),)),)),
        Matches(title=text, rows=(Match(sample=picture(text), real=(picture(text),), note=text),)),
        TableBlock(table=table(text)),
        TableBlock(table=table(text), folded=True),
        Facts(title=text, pairs=((text, text),)),
        Facts(title=text, pairs=((text, text),), folded=True),
        Command(text=text),
        Chart(title=text, x_title=text, y_title=text, curves=(Curve(label=text, points=points),), note=text),
        Intervals(title=text, rows=(IntervalRow(label=text, bars=bars),), note=text),
    )


def report(text: str = "cgan", names: tuple[str, ...] = ("cgan", "vae")) -> Report:
    blocks = every_block(text, len(names))
    section = Section(anchor="samples", title=text, common=blocks, sides=(blocks,) * len(names))
    return Report(title=text, subtitle=text, names=names, sections=(section,), footer=text)


def test_every_block_is_on_the_page_and_nothing_is_fetched():
    html = report_page(report())
    assert html.count("<h1") == html.count("</html>") == 1
    kinds = ("<caption>cgan</caption>", "<dl", "<details", "<pre", "<svg", 'class="strip"', 'class="gallery"')
    assert [kind for kind in kinds if kind not in html] == []
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert html.count("<script") == 1
    assert "default-src 'none'" in html
    assert not re.search(r'<[^>]+ (?:style|on\w+)="', html)


def test_untrusted_text_stays_text():
    html = report_page(report(HOSTILE, names=(HOSTILE, "vae")))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_every_picture_says_what_it_is():
    html = report_page(report())
    images = re.findall(r"<img [^>]*>", html)
    assert images
    assert all(re.search(r'alt="[^"]+"', image) and 'width="64"' in image for image in images)


@pytest.mark.parametrize(("side", "shown"), [(8, 64), (28, 56), (32, 64), (33, 33), (64, 64), (128, 128)])
def test_small_pictures_are_enlarged_by_a_whole_factor(side, shown):
    assert shown_size(picture(side=side)) == (shown, shown)
    html = report_page(replace(report(), sections=(
        Section(anchor="a", title="a", common=(Pictures(pictures=(picture(side=side),)),)),
    )))  # fmt: skip
    assert ('class="picture enlarged"' in html) is (shown > side)


def test_one_model_has_no_headings_of_columns():
    html = report_page(report(names=("cgan",)))
    assert 'class="name"' not in html
    assert report_page(report()).count('class="name"') == 2


def test_a_line_of_a_model_has_its_marker():
    """Corrected lines sort after every model, so that they take no model's colour."""
    alone = side_markers(["cgan", "vae"])
    assert alone[0] != alone[1]
    from evalkit.pages.markers import markers

    every = markers(["cgan", "vae", "↳ cgan, bias-corrected", "↳ vae, bias-corrected"])
    assert (every["cgan"], every["vae"]) == alone
    assert len(set(every.values())) == 4


def test_bold_is_explained_once():
    html = report_page(report())
    assert "bold best of its column" in html
    explained = replace(table(), legend="bold: better")
    section = Section(anchor="a", title="a", common=(TableBlock(table=explained),))
    assert "best of its column" not in report_page(replace(report(), sections=(section,)))


def test_intervals_without_ends_and_of_one_point():
    rows = (IntervalRow(label="x" * 80, bars=(Bar(name="a", value=0.0),)),)
    section = Section(anchor="a", title="a", common=(Intervals(title="t", rows=rows),))
    html = report_page(replace(report(), names=("a",), sections=(section,)))
    assert "…" in html
    assert "NaN" not in html


@pytest.mark.parametrize(
    "make",
    [
        lambda: Picture(data="https://example.org/x.png", width=1, height=1, alt="x"),
        lambda: Picture(data="data:image/svg+xml;base64,AAAA", width=1, height=1, alt="x"),
        lambda: Picture(data='data:image/webp;base64,AA" onload="x', width=1, height=1, alt="x"),
        lambda: replace(picture(), alt=""),
        lambda: replace(picture(), width=0),
        lambda: Section(anchor='x" onclick="', title="x"),
        lambda: Report(
            title="x", subtitle="", names=("a", "b"), sections=(Section(anchor="x", title="x", sides=((),)),)
        ),
    ],
)
def test_facts_that_cannot_be_shown_are_refused(make):
    with pytest.raises(InvalidInputError):
        make()


def test_the_page_needs_no_torch():
    code = "import sys, evalkit.pages.report; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
