"""A board's page as text: what it tells, what it leaves out, how large it is."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from evalkit.errors import InvalidInputError, UsageError
from evalkit.leaderboard.facts import Board, BoardInfo, Entry, Group
from evalkit.leaderboard.metric_help import _FILE, current_help, help_for
from evalkit.leaderboard.page import board_page
from evalkit.leaderboard.page_plot import pareto_plot
from evalkit.leaderboard.page_rows import page_table
from evalkit.leaderboard.page_runs import https_link, picture, protocol_fields, runs_of
from evalkit.pages.document import asset

MakeBoard = Callable[[Sequence[Entry]], Board]


@pytest.fixture(scope="module")
def text(board: Board) -> str:
    return board_page(board, csv_href="scores.csv")


def shown(page: str) -> str:
    """The page's text, for sentences that markup interrupts."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_page_is_the_same_each_time(board: Board, text: str) -> None:
    assert board_page(board, csv_href="scores.csv") == text


def test_the_head_tells_what_ranks_and_what_it_means(text: str) -> None:
    told = shown(text)
    assert "Ranked by kd:efficientnet-lite0 : lower is better. Kernel distance. How far the generated" in told
    assert "<p>Of a few</p>\n<p>million parameters.</p>" in text
    assert "N = 1,024 images a model; fingerprint 273dc3a288c76f96." in told
    assert "Measured 2026-11-22 with evalkit 0.1.0." in told
    assert '<a href="scores.csv">' in text


def test_the_protocol_is_told_in_full(board: Board, text: str) -> None:
    record = board.groups[0].entries[0].record
    assert record.protocol.fingerprint in text
    fields = dict(protocol_fields(record.protocol.fields))
    assert fields["num_images"] == "1024"
    assert fields["metrics precision"] == "head block, inclusive true, k 3"
    assert fields["extractor.params.resizer"] == "torch-bicubic-aa"
    assert all(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" in text for name, value in fields.items())


def test_headings_are_the_quantities_with_direction_the_headline_first(board: Board) -> None:
    table = page_table(board.groups[0], first_anchor=0)
    titles = ["".join(column.breaks) for column in table.columns]
    assert titles[:5] == ["rank", "model", "family", "kd ↓", "fd ↓"]
    assert titles[-5:] == ["images/s ↑", "ms/image ↓", "NFE ↓", "params ↓", "Pareto"]
    assert {column.key: column.best for column in table.columns}["images_per_second"] == "higher"


def test_values_have_errors_and_the_best_is_bold(text: str) -> None:
    row = re.search(r"<tr data-order.*>ddpm<.*", text)
    assert row
    assert "<td><b>4.43</b> <i>± 0.10</i><td><b>207.3</b> <i>± 3.1</i><sup>*</sup>" in row[0]
    assert row[0].endswith("<td>20<td>3.57M<td>•")


def test_a_power_of_ten_keeps_value_and_error_together(
    entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    record = entries[0].record
    tiny = tuple(replace(result, value=3e-9, se=1e-10, ci=None) for result in record.results)
    page = board_page(make_board([replace(entries[0], record=replace(record, results=tiny)), entries[1]]))
    assert "<td><b>(3.00 ± 0.10)e-9</b>" in page


def test_ranks_that_tie_are_ranges(entries: Sequence[Entry], make_board: MakeBoard) -> None:
    board = make_board(entries[:3])
    group = board.groups[0]
    tied = replace(group, entries=tuple(replace(entry, ranks=(1, 3)) for entry in group.entries))
    assert board_page(replace(board, groups=(tied,))).count("<td>1\N{EN DASH}3<th") == 3


def test_a_row_without_the_headline_has_no_rank_and_comes_last(
    entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    record = entries[0].record
    poor = replace(entries[0], record=replace(record, results=record.results[2:]))
    board = make_board([poor, *entries[1:]])
    table = page_table(board.groups[0], first_anchor=0)
    assert (table.rows[-1].rank, table.rows[-1].cells[0].text) == ("—", "—")
    assert table.rows[-1].order.split()[0] == table.rows[-1].order.split()[3] == "-"
    assert "Not shown: 1 without kd:efficientnet-lite0 or a speed." in shown(board_page(board))


def test_a_board_without_any_headline_or_speed_is_still_a_page(entries: Sequence[Entry]) -> None:
    bare = tuple(
        replace(entry, record=replace(entry.record, results=entry.record.results[2:], performance=()))
        for entry in entries[:2]
    )
    group = Group(fingerprint=bare[0].record.protocol.fingerprint, headline="", entries=bare)
    page = board_page(Board(info=BoardInfo(name="b", title="B"), groups=(group,)))
    assert "These rows hold no metric that ranks." in page
    assert 'class="chart"' not in page
    assert 'class="ranks"' not in page


def test_an_empty_board_says_so() -> None:
    page = board_page(Board(info=BoardInfo(name="b", title="B <1>"), groups=()))
    assert "No runs yet." in page
    assert "<h1>B &lt;1&gt;</h1>" in page
    assert 'id="filter"' not in page


def test_each_protocol_has_a_table_of_its_own(entries: Sequence[Entry], make_board: MakeBoard) -> None:
    first, second = make_board(entries[:5]), make_board(entries[5:])
    other = replace(second.groups[0], fingerprint="0" * 64)
    page = board_page(replace(first, groups=(first.groups[0], other)))
    assert page.count('<table class="board">') == 2
    assert "under 2 protocols; only those under one protocol rank together" in shown(page)
    anchors = re.findall(r'<dl class="facts" id="(r\d+)"', page)
    assert sorted(anchors) == sorted({f"r{i}" for i in range(len(entries))})
    assert all(f'href="#{anchor}"' in page for anchor in anchors)


def test_shared_facts_are_told_once_and_no_fact_is_lost(board: Board) -> None:
    rows = page_table(board.groups[0], first_anchor=0).rows
    shared, runs = runs_of(rows)
    assert "torch 2.15.0" in shared["Environment"]
    assert shared["Seeds"].startswith(
        "base 0 · philox4x64(base seed, stream) / 1 · first 5195254382361308015"
    )
    for row, run in zip(rows, runs, strict=True):
        assert not shared.keys() & run.facts.keys()
        assert run.facts["SHA-256"] == row.entry.record.model.sha256
        assert row.entry.record.run_id in run.facts["Run"]
        assert "images/s" in run.facts["Speed (offline)"]
        assert run.facts["Command"].startswith("evalkit score")
        assert run.link == row.entry.source_url  # a source stays with its run: it is a link there


def test_one_run_alone_shares_nothing(board: Board) -> None:
    shared, (run,) = runs_of(page_table(board.groups[0], first_anchor=0).rows[:1])
    assert shared == {}
    assert run.facts["Trust"] == "measured"


def test_trust_other_than_measured_stands_in_the_table(
    entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    page = board_page(make_board([replace(entries[0], trust="reported"), *entries[1:]]))
    assert page.count("<small>(reported)</small>") == 1


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "http://example.org",
        "data:text/html,x",
        "//example.org",
        "https://",
        "https:///path",
        "java\nscript:alert(1)",
        "https://example.org/\x00",
        "https://example.org/a b",
        "https://example.org\\@evil.org",
        "https://[",
        "https://exämple.org",
        " https://example.org",
        "",
    ],
)
def test_only_plain_https_addresses_are_links(url: str) -> None:
    assert https_link(url) == ""


def test_an_https_address_is_a_link(text: str) -> None:
    assert https_link("https://example.org/x?y=1#z") == "https://example.org/x?y=1#z"
    assert '<a href="https://example.org/runs?a=1&amp;b=2" rel="noopener noreferrer">' in text


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "//example.org/x.csv", "http://example.org", "a\nb", "a\\b"]
)
def test_a_csv_elsewhere_is_refused(board: Board, href: str) -> None:
    with pytest.raises(UsageError, match="cannot link"):
        board_page(board, csv_href=href)


def test_samples_are_pictures_with_size_and_words(entries: Sequence[Entry], text: str) -> None:
    found = re.findall(r'<img class="samples" src="data:image/webp;base64,[A-Za-z0-9+/=]+" ([^>]*)>', text)
    assert len(found) == len(entries)
    assert all(
        one.startswith('width="128" height="96" decoding="async" alt="Grid of samples') for one in found
    )


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBPVP8 "])
def test_samples_that_are_no_picture_are_refused(entries: Sequence[Entry], content: bytes) -> None:
    with pytest.raises(InvalidInputError, match=f"samples of {entries[0].name}"):
        picture(replace(entries[0], grid=content))


def test_each_device_has_a_front_of_its_own(board: Board) -> None:
    group = board.groups[0]
    one = pareto_plot(group, page_table(group, first_anchor=0))
    assert one
    assert str(one.chart).count('class="front"') == 1
    moved = tuple(
        replace(entry, record=replace(entry.record, performance=(replace(p, device="H200"),)))
        if i % 2
        else entry
        for i, entry in enumerate(replace(e, pareto=True) for e in group.entries)
        for p in entry.record.performance
    )
    mixed = replace(group, entries=moved)
    two = pareto_plot(mixed, page_table(mixed, first_anchor=0))
    assert two
    assert two.devices == ("H200", "cpu")
    assert str(two.chart).count('class="front"') == 2
    assert "images/s on H200" in two.chart
    assert "of each device" in board_page(replace(board, groups=(mixed,)))


def test_a_wide_range_gets_a_log_axis(entries: Sequence[Entry], make_board: MakeBoard) -> None:
    def chart(factor: float) -> str:
        record = entries[0].record
        far = tuple(replace(result, value=result.value * factor, ci=None) for result in record.results)
        group = make_board([replace(entries[0], record=replace(record, results=far)), entries[1]]).groups[0]
        plot = pareto_plot(group, page_table(group, first_anchor=0))
        assert plot
        return plot.chart

    assert "kd:efficientnet-lite0 (log scale, lower is better)" in chart(100)
    assert "kd:efficientnet-lite0 (lower is better)" in chart(1)
    assert "kd:efficientnet-lite0 (lower is better)" in chart(-100)  # no logarithm below zero


def test_a_metric_of_two_variants_ranks_by_the_first(entries: Sequence[Entry], make_board: MakeBoard) -> None:
    group = make_board([two_variants(entry) for entry in entries[:3]]).groups[0]
    table = page_table(group, first_anchor=0)
    assert table.headline == "kd:efficientnet-lite0/block"
    assert [column.key for column in table.columns].count("kd:efficientnet-lite0/other") == 1


def two_variants(entry: Entry) -> Entry:
    results = entry.record.results
    kernel = next(result for result in results if result.metric == "kd:efficientnet-lite0")
    twice = (*results, replace(kernel, variant="other", value=kernel.value + 1))
    return replace(entry, record=replace(entry.record, results=twice))


def test_two_hundred_rows_stay_below_300_kilobytes(
    many: Callable[..., list[Entry]], make_board: MakeBoard
) -> None:
    page = board_page(make_board(many(200)), csv_href="scores.csv")
    assert page.count("<tr data-order") == 200
    assert len(page.encode()) < 300_000


def test_a_long_board_tells_every_run_in_a_line(
    many: Callable[..., list[Entry]], make_board: MakeBoard
) -> None:
    board = make_board(many(501, metrics=2))
    page = board_page(board)
    assert '<table class="board long">' in page
    assert "All 501 runs, a line each" in page
    assert len(re.findall(r'<li id="r\d+">', page)) == 501
    assert all(
        entry.record.model.sha256 in page for entry in board.groups[0].entries if entry.record.model.sha256
    )


def test_help_covers_every_metric_of_the_board_in_its_order(text: str) -> None:
    names = re.findall(r"<summary>([a-z-]+) [↓↑] ", text)
    assert names == ["kd", "fd", "is", "precision", "recall", "density", "coverage"]
    assert "Rewards one safe image" not in text


def test_the_shipped_help_is_current() -> None:
    shipped = asset("evalkit.leaderboard", _FILE)
    assert shipped == current_help(), "run: python -m evalkit.leaderboard.metric_help"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("kd:efficientnet-lite0", "kd"),
        ("fd", "fd"),
        ("accuracy/cifar10-top5", "accuracy"),
        ("fid:clean-fid", "fd"),
        ("kid", "kd"),
    ],
)
def test_help_is_found_by_label_and_by_published_name(label: str, name: str) -> None:
    found = help_for(label)
    assert found
    assert found.name == name


def test_a_strange_metric_has_no_help() -> None:
    assert help_for("mine:own-network") is None


def test_the_page_needs_no_heavy_library() -> None:
    code = (
        "import evalkit.leaderboard.page, evalkit.pages.charts, sys;"
        "print([m for m in ('torch', 'scipy', 'pandas', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
