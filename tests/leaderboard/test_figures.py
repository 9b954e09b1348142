"""Figures: what they show, the same bytes for the same numbers, and names that stand clear of each other."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import pytest
from PIL import Image

from evalkit.errors import InvalidInputError
from evalkit.leaderboard.board import board_of, read_board
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.facts import BoardInfo
from evalkit.leaderboard.figures import digests_json, draw, plots_of, read_digests
from evalkit.leaderboard.storage import Stored
from evalkit.pages.charts import MANY_POINTS

INFO = BoardInfo(name="toys", title="Costs $5 and $6")


def plots(*records):
    return plots_of(board_of(INFO, [Stored(record=r, entry=EntryFile(run_id=r.run_id)) for r in records]))


def test_a_figure_shows_quality_speed_interval_and_front_of_every_row(board):
    (plot,) = plots_of(read_board(board))
    assert (plot.stem, plot.headline, plot.better, plot.device) == ("pareto", "kd:lite", "lower", "cpu")
    assert [(m.name, m.speed, m.value, m.low, m.high, m.pareto) for m in plot.marks] == [
        ("ddpm", 10.0, 2.0, 1.8, 2.2, True),
        ("gan", 100.0, 2.1, pytest.approx(1.9), pytest.approx(2.3), True),
        ("vae", 50.0, 5.0, 4.8, 5.2, False),
    ]


def test_the_digest_follows_the_numbers_and_nothing_else(board):
    (plot,) = plots_of(read_board(board))
    assert plot.digest() == plots_of(read_board(board))[0].digest()
    assert replace(plot, title="other").digest() != plot.digest()
    assert replace(plot, marks=plot.marks[::-1]).digest() != plot.digest()


def test_a_group_without_two_speeds_on_one_device_has_no_figure(make_record):
    assert plots() == ()
    assert plots(make_record("a"), make_record("b", speed=None)) == ()
    assert plots(make_record("a"), make_record("b", device="gpu")) == ()


def test_each_group_has_a_figure_of_its_own(make_record):
    records = [make_record(m, fingerprint="abcdef012345") for m in "ab"] + [make_record(m) for m in "cde"]
    assert [plot.stem for plot in plots(*records)] == ["pareto", "pareto-abcdef01"]


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_style(make_record):
    (plot,) = plots(make_record("a"), make_record("b", 3.0, speed=20.0, family="vae"))
    first = draw(plot)
    with mpl.rc_context({"font.size": 30, "text.usetex": True, "axes.facecolor": "red"}):
        assert draw(plot) == first
        assert mpl.rcParams["font.size"] == 30
    assert sorted(first) == ["figures/pareto.png", "figures/pareto.svg"]


def test_the_files_are_pictures_without_a_date_or_a_release_in_them(make_record):
    found = draw(*plots(make_record("a"), make_record("b", 300.0, speed=2000.0)))
    picture = Image.open(io.BytesIO(found["figures/pareto.png"]))
    assert picture.size == (960, 630)
    assert picture.text == {"Software": "evalkit"}
    svg = found["figures/pareto.svg"].decode()
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "<dc:date>" not in svg
    assert "matplotlib.org" not in svg.split("</metadata>")[0].split("<metadata>")[1]


def test_negative_values_and_names_that_look_like_formulas_are_drawn(make_record):
    records = [make_record("a", -1.0, sampler="$\\frac{$"), make_record("a", 60.0, sampler="日本", run="2")]
    (plot,) = plots(*records)
    assert [mark.name for mark in plot.marks] == ["a ($\\frac{$)", "a (日本)"]
    assert set(draw(plot)) == {"figures/pareto.png", "figures/pareto.svg"}


def test_forty_models_of_ten_families_are_drawn(make_record):
    records = [make_record(f"model-{i}", 1.0 + i % 3, speed=1.0 + i, family=f"f{i % 10}") for i in range(40)]
    assert len(draw(*plots(*records))) == 2


def test_the_list_of_figures_reads_back_and_a_strange_one_is_refused(tmp_path):
    assert read_digests(tmp_path) == {}
    (tmp_path / "figures").mkdir()
    path = tmp_path / "figures" / "digests.json"
    path.write_text(digests_json({"figures/a.svg": ("d", "f")}))
    assert read_digests(tmp_path) == {"figures/a.svg": ("d", "f")}
    for text in (
        "{",
        "[]",
        '{"schema": "evalkit.figures/1"}',
        '{"schema": "evalkit.figures/1", "figures": {"a.svg": 3}}',
        '{"schema": "evalkit.figures/1", "figures": {"../../x.svg": {"data": "d", "sha256": "f"}}}',
        '{"schema": "evalkit.figures/1", "figures": {"board.toml": {"data": "d", "sha256": "f"}}}',
    ):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match="not what evalkit wrote"):
            read_digests(tmp_path)


def test_the_axes_of_a_figure_are_those_of_the_page(make_record):
    # An error bar that reaches below zero does not press a wide range of values into a linear axis.
    svg = drawn(make_record("a", 0.5, half=0.9), make_record("b", 300.0, speed=20.0))
    assert {"1", "10", "100"} <= set(words(svg))
    assert "kd:lite ↓ (log scale)" in svg
    close = [make_record(m, v, speed=s) for m, v, s in (("a", 2.0, 101.0), ("b", 3.0, 133.0))]
    assert {"110", "120", "130"} <= set(words(drawn(*close)))


def drawn(*records):
    with mpl.rc_context({"svg.fonttype": "none"}):
        return draw(*plots(*records))["figures/pareto.svg"].decode()


def words(svg):
    """What an SVG that shows letters as paths says of them in comments."""
    return re.findall(r"<!-- (.*?) -->", svg)


def test_the_front_is_named_first_and_a_crowd_is_one_picture(make_record):
    records = [
        make_record(f"m{i}", 9.0 - i % 7, speed=1.0 + i % 11, family=f"f{i % 2}", run=f"r{i}")
        for i in range(MANY_POINTS + 1)
    ]
    best = make_record("best", 1.0, speed=99.0)
    svg = drawn(*records, best)
    assert "best" in words(svg)
    assert not [word for word in words(svg) if word.startswith("m")]
    assert svg.count("<image") == 1
    assert len(svg) < 300_000


@pytest.mark.parametrize("values", [(1e308, -1e308), (5e-324, 1e-322), (1e15, 1e15 + 0.125), (0.0, 0.0)])
def test_numbers_at_the_ends_of_what_a_float_holds_are_drawn(make_record, values):
    records = [
        make_record(m, v, half=None, speed=s) for m, v, s in zip("ab", values, (1e-320, 1e300), strict=True)
    ]
    assert words(drawn(*records))
