"""A board's page in a real browser: quiet, sortable, readable in every mode, deaf to hostile text."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from markupsafe import Markup

from evalkit.leaderboard.facts import Board, BoardInfo, Entry
from evalkit.leaderboard.page import board_page
from evalkit.leaderboard.page_rows import page_table
from evalkit.pages.document import document
from evalkit.record import RunRecord

MakeBoard = Callable[[Sequence[Entry]], Board]
Value = float | str | None

# Seconds for one action on a long board: a floor of usability, stretched where others keep the machine busy.
PATIENCE = 5.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def text(board: Board) -> str:
    return board_page(board, csv_href="scores.csv")


def names(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "table.board tbody th a", "links => links.map(link => link.textContent)"
    )
    return found


def background(page: Any) -> int:
    """The lightness of the page, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(map(int, re.findall(r"\d+", colour)[:3]))


def awkward(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with ties, negative and missing values, and names whose case and digits sort unlike words."""
    record = entries[0].record

    def changed(name: str, kernel: float | None, speed: float | None) -> Entry:
        results = tuple(
            replace(result, value=result.value if kernel is None else kernel, ci=None)
            for result in record.results
            if not (kernel is None and result.metric.startswith("kd"))
        )
        speeds = tuple(replace(p, throughput=speed) for p in record.performance) if speed is not None else ()
        model = replace(record.model, id=name, n_params=None if speed is None else record.model.n_params)
        run = replace(record, run_id=f"run-{name}", model=model, results=results, performance=speeds)
        return Entry(record=run, name=name)

    return [
        *entries,
        changed("Zeta", -1.5, 17.0),
        changed("alpha", -1.5, None),
        changed("alpha10", -1.5, 17.0),
        changed("alpha2", None, 17.0),
        changed("10x", 0.0, None),
        changed("9x", 1e-12, 1e9),
    ]


def readers(board: Board) -> list[Callable[[Entry], Value]]:
    """What each column shows, read from the records: the page's own orders are not asked."""
    group = board.groups[0]
    placed = {entry.name: place for place, entry in enumerate(group.entries)}

    def result(metric: str) -> Callable[[Entry], Value]:
        return lambda entry: next((r.value for r in entry.record.results if r.metric == metric), None)

    def speed(attribute: str) -> Callable[[Entry], Value]:
        return lambda entry: next((getattr(p, attribute) for p in entry.record.performance), None)

    fixed: dict[str, Callable[[Entry], Value]] = {
        "rank": lambda entry: None if entry.ranks is None else placed[entry.name],
        "model": lambda entry: entry.name,
        "family": lambda entry: entry.record.model.family,
        "images_per_second": speed("throughput"),
        "ms_per_image": speed("latency_p50_ms"),
        "nfe": lambda entry: entry.record.sampling.nfe if entry.record.sampling else None,
        "n_params": lambda entry: entry.record.model.n_params,
        "pareto": lambda entry: 1 if entry.pareto else None,
    }
    keys = [column.key for column in page_table(group, first_anchor=0).columns]
    return [fixed.get(key) or result(key) for key in keys]


def in_order(entries: Sequence[Entry], read: Callable[[Entry], Any], *, descending: bool) -> list[str]:
    """Python's order: ties by name, missing values last in both directions."""
    by_name = sorted(entries, key=lambda entry: entry.name)
    known = sorted((e for e in by_name if read(e) is not None), key=read, reverse=descending)
    return [e.name for e in [*known, *(e for e in by_name if read(e) is None)]]


def test_the_page_asks_for_nothing_and_complains_of_nothing(visit: Callable[..., Any], text: str) -> None:
    opened = visit(text)
    # All of them at once: a picture that waited to come into view would be missing on paper.
    opened.page.wait_for_function("[...document.images].every(image => image.naturalWidth === 128)")
    assert opened.page.locator("img").count() == 8
    assert opened.requests[0] == opened.address
    assert opened.quiet(), (opened.requests, opened.messages)


def test_a_violation_of_the_policy_would_be_seen(visit: Callable[..., Any]) -> None:
    bad = '<p style="color: rgb(255, 0, 0)" onclick="alert(1)">x</p><img src="https://example.org/x.png">'
    opened = visit(document(title="t", body=Markup(bad)))
    opened.page.click("p")
    assert not opened.quiet()
    assert sum("Content Security Policy" in message for message in opened.messages) >= 3
    assert not any(message.startswith("dialog") for message in opened.messages)
    assert opened.page.evaluate("getComputedStyle(document.querySelector('p')).color") != "rgb(255, 0, 0)"


def test_every_column_sorts_as_python_does_in_both_directions(
    visit: Callable[..., Any], entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    board = make_board(awkward(entries))
    page = visit(board_page(board)).page
    rows = board.groups[0].entries
    assert names(page) == [entry.name for entry in rows]
    for column, read in enumerate(readers(board)):
        heading = page.locator("table.board thead th").nth(column)
        seen = []
        for _ in range(2):
            heading.locator("button").click()
            seen.append(heading.get_attribute("aria-sort"))
            expected = in_order(rows, read, descending=seen[-1] == "descending")
            assert names(page) == expected, (heading.text_content(), seen[-1])
            assert page.locator("th[aria-sort]").count() == 1
        assert sorted(seen) == ["ascending", "descending"]


def test_the_first_click_shows_the_best_first(visit: Callable[..., Any], text: str) -> None:
    page = visit(text).page
    page.get_by_role("button", name="images/s").click()
    assert names(page)[0] == "vae"
    page.get_by_role("button", name="fd").click()
    assert names(page)[0] == "ddpm"


def test_the_filter_shows_what_matches_and_says_how_many(visit: Callable[..., Any], text: str) -> None:
    page = visit(text).page
    status = page.get_by_role("status")
    assert status.text_content() == "All 8 models"
    page.fill("#filter", "  VAE  mix ")
    assert names(page) == ["vae-mixture"]
    assert status.text_content() == "1 of 8 models"
    assert page.locator(".run:visible").count() == 1
    page.fill("#filter", "no such model")
    assert names(page) == []
    assert status.text_content() == "0 of 8 models"
    page.keyboard.press("Escape")
    page.get_by_label("gan").uncheck()
    assert set(names(page)) == {"ddpm", "gated-pixelcnn", "vae", "vae-mixture", "vq-vae"}
    page.get_by_role("button", name="model").click()  # sorting keeps the filter
    assert names(page) == ["ddpm", "gated-pixelcnn", "vae", "vae-mixture", "vq-vae"]


def test_everything_can_be_done_with_the_keyboard(visit: Callable[..., Any], text: str) -> None:
    page = visit(text).page
    page.evaluate(
        """() => {
          const wanted = [...document.querySelectorAll("button, input, a[href], summary, [tabindex='0']")];
          window.reachable = wanted.filter((one) => one.checkVisibility({ contentVisibilityAuto: true }));
        }"""
    )
    expected = page.evaluate("reachable.length")
    assert expected > 40
    reached = set()
    for _ in range(expected + 2):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("reachable.indexOf(document.activeElement)"))
    assert set(range(expected)) <= reached
    page.get_by_role("button", name="recall").focus()
    page.keyboard.press("Enter")
    heading = page.locator("th", has=page.locator("button:focus"))
    assert heading.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("gan/")  # in the box a slash is a slash
    assert page.input_value("#filter") == "gan/"
    page.keyboard.press("Backspace")
    assert len(names(page)) == 3
    page.keyboard.press("Escape")
    assert (page.input_value("#filter"), len(names(page))) == ("", 8)


def test_focus_can_be_seen(visit: Callable[..., Any], text: str) -> None:
    page = visit(text).page
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_row_under_the_pointer_or_the_focus_is_marked_in_the_plot(
    visit: Callable[..., Any], text: str
) -> None:
    page = visit(text).page
    page.get_by_role("link", name="sngan").focus()
    marked = page.eval_on_selector_all(
        ".point.on > title", "titles => titles.map(title => title.textContent)"
    )
    assert len(marked) == 1
    assert marked[0].startswith("sngan: 7.22 ± 0.11 [")
    page.get_by_role("link", name="cgan").hover()
    assert page.locator(".point.on").count() == 2
    page.mouse.move(0, 0)
    assert page.locator(".point.on").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_scheme_of_the_system_is_followed_and_can_be_switched(
    visit: Callable[..., Any], text: str, scheme: str
) -> None:
    page = visit(text, color_scheme=scheme).page
    assert (background(page) < 60) == (scheme == "dark")
    page.click("#theme")
    assert (background(page) < 60) == (scheme == "light")
    assert page.get_by_role("button", name=f"Switch to {scheme} colours").is_visible()
    page.click("#theme")
    assert (background(page) < 60) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_rules_find_nothing_serious(visit: Callable[..., Any], text: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core")
    page = visit(text, color_scheme=scheme).page
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    # The scheme changes colours and nothing else.
    options = {"runOnly": ["color-contrast"]} if scheme == "dark" else None
    found = axe.Axe().run(page, options=options).response
    serious = [
        (violation["id"], node["target"], node.get("failureSummary"))
        for violation in found["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]
    assert serious == []
    assert len(found["passes"]) > (0 if scheme == "dark" else 20)


def test_without_javascript_everything_is_there(visit: Callable[..., Any], text: str) -> None:
    opened = visit(text, java_script_enabled=False)
    page = opened.page
    assert page.locator("tbody tr:visible").count() == 8
    assert page.locator("svg.chart").is_visible()
    assert not page.locator("#theme").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.locator("thead button").count() == 0
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("details > :not(summary):visible").count() >= page.locator("details").count()
    assert page.locator("dl.facts:visible").count() == page.locator("dl.facts").count()
    assert opened.quiet()


def test_without_javascript_a_models_name_opens_what_is_told_of_it(
    visit: Callable[..., Any], text: str
) -> None:
    page = visit(text, java_script_enabled=False).page
    page.get_by_role("link", name="sngan").click()
    facts = page.locator("dl.facts:target")
    facts.wait_for(state="visible")
    assert "0c93703a8bacf340475d29313f447ae4fc30a4176dea5fad00ca07fa4c504070" in facts.text_content()


def test_a_narrow_window_scrolls_the_table_not_the_page(visit: Callable[..., Any], text: str) -> None:
    page = visit(text).page
    for width in (320, 400, 800):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelector('.scroll').scrollLeft = 300")
        model = page.locator("tbody th").first.bounding_box()
        heading = page.locator("thead th.pin").bounding_box()
        assert 0 <= model["x"] == heading["x"] < width / 4


def test_the_longest_name_leaves_room_for_the_numbers(
    visit: Callable[..., Any], entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    long = [replace(entry, name=("x" * 199) + str(i)) for i, entry in enumerate(entries[:2])]
    page = visit(board_page(make_board([*long, entries[2]]))).page
    for width in (320, 1360):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("tbody th").first.bounding_box()["width"] < 0.6 * width


def test_the_header_stays_while_rows_scroll(
    visit: Callable[..., Any], many: Callable[..., list[Entry]], make_board: MakeBoard
) -> None:
    page = visit(board_page(make_board(many(60)))).page
    before = page.locator("thead th").nth(4).bounding_box()["y"]
    page.evaluate("document.querySelector('.scroll').scrollTop = 400")
    caption = 40
    assert before - caption < page.locator("thead th").nth(4).bounding_box()["y"] <= before


def test_on_paper_the_table_fits_and_nothing_is_folded(visit: Callable[..., Any], text: str) -> None:
    sheet = 1032  # A4 landscape less two margins of 12 mm, in CSS pixels
    page = visit(text, viewport={"width": sheet, "height": 700}, color_scheme="dark").page
    page.emulate_media(media="print")
    assert background(page) == 255
    assert page.evaluate("document.querySelector('table.board').getBoundingClientRect().width") <= sheet
    assert page.evaluate("document.documentElement.scrollWidth") <= sheet
    assert not page.locator(".controls").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("thead th").first.text_content() == "rank"
    assert page.locator("thead button").first.is_visible()
    heights = page.eval_on_selector_all(
        "dl.facts", "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert len(heights) > 8
    assert min(heights) > 10


def hostile(record: RunRecord, bad: str) -> RunRecord:
    """A record with ``bad`` in every field that takes free text."""
    assert record.sampling
    return replace(
        record,
        model=replace(record.model, format=bad, revision=bad, dtype=bad),
        data=replace(record.data, dataset=bad, split=bad),
        sampling=replace(
            record.sampling, sampler=bad, labels=bad, seeds=replace(record.sampling.seeds, scheme=bad)
        ),
        protocol=replace(record.protocol, fields={bad: bad, "list": [{"name": bad, bad: bad}]}),
        results=tuple(
            replace(r, unit=bad, warnings=(bad,), ci=r.ci and replace(r.ci, method=bad))
            for r in record.results
        ),
        performance=tuple(replace(p, device=bad, dtype=bad) for p in record.performance),
        inputs=replace(record.inputs, rejected=(bad,)),
        env={bad: bad, "evalkit": bad},
        command=("evalkit", bad),
        notes=bad,
        warnings=(bad,),
    )


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)><svg onload='alert(1)'>",
    "javascript:alert(1)//",
    "</style></script></title><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}\u202e</textarea><iframe src='javascript:alert(1)'>",
)


def test_hostile_text_is_shown_and_does_nothing(
    visit: Callable[..., Any], entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    poisoned = [
        replace(entry, record=hostile(entry.record, bad), name=f"{bad}{i}", notes=bad, source_url=bad)
        for i, (entry, bad) in enumerate(zip(entries, HOSTILE, strict=False))
    ]
    made, title = make_board([*poisoned, entries[-1]]), " ".join(HOSTILE)
    opened = visit(board_page(replace(made, info=BoardInfo(name="b", title=title, description=title))))
    page = opened.page
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    page.get_by_role("button", name="model").click()
    for link in page.locator("tbody th a").all():
        link.click()
    assert opened.quiet(), (opened.requests, opened.messages)
    assert page.locator("script").count() == 1
    assert page.locator("iframe, img[src=x], textarea, [onload], [onerror]").count() == 0
    links = page.eval_on_selector_all("a", "all => all.map(one => one.getAttribute('href'))")
    assert all(link.startswith(("#r", "https://")) for link in links)
    assert page.text_content("h1") == title.replace("\u202e", " ")
    told = page.text_content("main")
    assert all(told.count(bad.replace("\u202e", " ")) > 15 for bad in HOSTILE)


@pytest.mark.slow
def test_ten_thousand_rows_can_be_used(
    visit: Callable[..., Any], many: Callable[..., list[Entry]], make_board: MakeBoard
) -> None:
    board = make_board(many(10_000, metrics=1))
    rows = board.groups[0].entries
    page_text = board_page(board)
    started = time.perf_counter()
    opened = visit(page_text)
    page = opened.page
    assert page.text_content("#count") == "All 10000 models"
    assert time.perf_counter() - started < 2 * PATIENCE
    assert len(names(page)) == 500

    def timed(action: Callable[[], object]) -> None:
        begun = time.perf_counter()
        action()
        page.evaluate("document.body.offsetHeight")
        assert time.perf_counter() - begun < PATIENCE

    timed(page.locator("thead button").nth(1).click)
    assert names(page) == sorted(entry.name for entry in rows)[:500]
    timed(lambda: page.fill("#filter", "model-0999"))
    assert sorted(names(page)) == sorted(entry.name for entry in rows if "model-0999" in entry.name)
    assert opened.quiet()


@pytest.fixture(scope="module")
def long_text(many: Callable[..., list[Entry]], make_board: MakeBoard) -> str:
    return board_page(make_board(many(520, metrics=2)))


def test_a_long_board_is_whole_without_javascript(visit: Callable[..., Any], long_text: str) -> None:
    page = visit(long_text, java_script_enabled=False).page
    assert page.locator("tbody tr:visible").count() == 520
    assert not page.locator(".more").is_visible()


def test_paper_shows_all_rows_of_a_long_board(visit: Callable[..., Any], long_text: str) -> None:
    page = visit(long_text).page
    assert len(names(page)) == 500
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # paper has no button that shows more
    assert len(names(page)) == 520
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(names(page)) == 500
    page.fill("#filter", "model-0051")
    assert len(names(page)) == 10
    page.fill("#filter", "")
    page.get_by_role("button", name="Show more rows").click()
    assert len(names(page)) == 520
    assert not page.locator(".more").is_visible()


def test_groups_sort_by_themselves_and_filter_together(
    visit: Callable[..., Any], entries: Sequence[Entry], make_board: MakeBoard
) -> None:
    first, second = make_board(entries[:4]), make_board(entries[4:])
    page = visit(board_page(replace(first, groups=(*first.groups, *second.groups)))).page
    before = names(page)
    page.locator("table").nth(1).get_by_role("button", name="model").click()
    assert names(page) == [*before[:4], *sorted(entry.name for entry in entries[4:])]
    page.fill("#filter", "vae")
    assert names(page) == ["vae", "vae-mixture", "vq-vae"]
