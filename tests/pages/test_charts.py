"""Charts: scales show every value, labels cover nothing, markers differ, and the SVG is well-formed."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.pages.charts import MANY_POINTS, Axis, Point, Series, line, scatter
from evalkit.pages.labels import Box, Label, place, text_width
from evalkit.pages.markers import markers
from evalkit.pages.scales import Scale, tick_text

ACROSS = Axis(title="images/s", log=True, better="higher")
UP = Axis(title="distance", better="lower")

finite = st.floats(-1e12, 1e12)
positive = st.floats(1e-9, 1e12)


def draw(points: list[Point], **changes: object) -> ET.Element:
    options = {
        "x": ACROSS,
        "y": UP,
        "title": "Quality & speed",
        "description": "One point a model.",
        **changes,
    }
    return ET.fromstring(str(scatter(points, **options)))


def cloud(count: int) -> list[Point]:
    return [
        Point(
            x=1.5 + i,
            y=2 + math.sin(i),
            low=1.9 + math.sin(i),
            high=2.2 + math.sin(i),
            label=f"m{i}",
            family="gan",
            key=f"k{i}",
        )
        for i in range(count)
    ]


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [one for one in root.iter() if name in one.get("class", "").split()]


@given(st.lists(finite, min_size=1, max_size=20))
def test_a_scale_shows_every_value_inside_its_ends(values: list[float]) -> None:
    scale = Scale.around(values, start=0, end=100)
    assert all(-1e-6 <= scale.at(value) <= 100 + 1e-6 for value in values)


@given(st.lists(positive, min_size=1, max_size=20))
def test_a_log_scale_shows_every_value_in_order(values: list[float]) -> None:
    scale = Scale.around(values, start=0, end=100, log=True)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 100


@given(st.lists(positive, min_size=1, max_size=9), st.booleans())
def test_ticks_lie_on_the_axis_in_order_and_differ(values: list[float], log: bool) -> None:
    ticks = Scale.around(values, start=10, end=300, log=log).ticks()
    places = [at for at, _ in ticks]
    assert places == sorted(places)
    assert all(10 - 1e-6 <= at <= 300 + 1e-6 for at in places)
    assert len({text for _, text in ticks}) == len(ticks) <= 13


@pytest.mark.parametrize(
    ("values", "log", "texts"),
    [
        ([17.3, 1466], True, ["30", "100", "300", "1,000"]),
        ([4.4, 26.4], False, ["5", "10", "15", "20", "25"]),
        ([0.1, 0.3], False, ["0.1", "0.15", "0.2", "0.25", "0.3"]),
        ([-2, 2], False, ["-2", "-1", "0", "1", "2"]),
    ],
)
def test_ticks_are_round_numbers(values: list[float], log: bool, texts: list[str]) -> None:
    assert [text for _, text in Scale.around(values, start=0, end=1, log=log).ticks()] == texts


@pytest.mark.parametrize(
    "values", [(1e308, -1e308), (5e-324, 1e-322), (1e-320, 1e300), (1e15, 1e15 + 0.125), (0.0, 0.0)]
)
@pytest.mark.parametrize("log", [False, True])
def test_numbers_at_the_ends_of_what_a_float_holds_have_an_axis(values: list[float], log: bool) -> None:
    scale = Scale.around([v for v in values if v > 0] or [1.0] if log else values, start=0, end=100, log=log)
    assert all(0 <= scale.at(value) <= 100 for value in values)
    texts = [text for _, text in scale.ticks()]
    assert 0 < len(texts) == len(set(texts)) <= 13


def test_values_that_cannot_be_negative_have_no_negative_axis() -> None:
    assert Scale.around([0.0, 1.0], start=0, end=1).low == 0


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf], [0.0], [-1.0]])
def test_a_log_axis_refuses_what_it_cannot_show(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        Scale.around(values, start=0, end=1, log=True)


@pytest.mark.parametrize(
    ("value", "text"), [(1234567.0, "1,234,567"), (0.25, "0.25"), (2e-9, "2e-9"), (0.0, "0")]
)
def test_tick_text(value: float, text: str) -> None:
    assert tick_text(value) == text


places = st.floats(0, 400)


@given(st.lists(st.tuples(st.text("abcdefgh", min_size=1, max_size=12), places, places), max_size=25))
def test_placed_labels_cover_neither_each_other_nor_an_obstacle(
    found: list[tuple[str, float, float]],
) -> None:
    labels = [Label(*one) for one in found]
    obstacles = [Box.around((one.x, one.y), (one.x, one.y), 5) for one in labels]
    bounds = Box(0, 0, 400, 400)
    boxes = [one.box for one in place(labels, obstacles, bounds)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(a.overlaps(b) for a in boxes for b in obstacles)
    assert all(box.inside(bounds) for box in boxes)


def test_a_label_alone_stands_to_the_right_and_moves_where_that_is_taken() -> None:
    bounds = Box(0, 0, 400, 400)
    (alone,) = place([Label("ddpm", 200, 200)], [], bounds)
    (moved,) = place([Label("ddpm", 200, 200)], [Box(201, 150, 400, 250)], bounds)
    assert alone.x > 200
    assert (alone.anchor, moved.anchor) == ("start", "end")
    assert moved.box.right == moved.x < 200


def test_a_label_crosses_a_line_only_where_nothing_else_is_free() -> None:
    bounds, line_right = Box(0, 0, 400, 400), Box(200, 199, 400, 201)
    (beside,) = place([Label("ddpm", 200, 200)], [], bounds, lines=[line_right])
    (across,) = place([Label("ddpm", 200, 200)], [], bounds, lines=[bounds])
    assert (beside.anchor, across.anchor) == ("end", "start")


def test_wide_characters_take_more_room() -> None:
    assert text_width("模型") == 2 * text_width("ab")


def test_every_family_looks_different_and_known_ones_always_the_same() -> None:
    names = [f"family{i}" for i in range(50)]
    looks = markers([*names, "gan"])
    assert len({(look.colour, look.shape) for look in looks.values()}) == 51
    assert markers(["gan"])["gan"] == looks["gan"]
    assert len({look.shape for look in markers(["gan", "vae", "diffusion", "autoregressive"]).values()}) == 4


def test_a_chart_is_one_picture_with_a_name_and_a_description() -> None:
    root = draw(cloud(3))
    title, desc = root[0], root[1]
    assert root.get("role") == "img"
    assert (root.get("aria-labelledby"), root.get("aria-describedby")) == (title.get("id"), desc.get("id"))
    assert (title.text, desc.text) == ("Quality & speed", "One point a model.")


def test_points_have_bars_tooltips_keys_and_labels() -> None:
    root = draw(
        [replace(cloud(1)[0], tooltip="m0: 2.0 & more"), Point(x=9.0, y=2.5, family="vae", label="bare")]
    )
    assert [one.get("data-key") for one in of_class(root, "point")] == ["k0", None]
    assert [one[0].text for one in of_class(root, "point")] == ["m0: 2.0 & more", "bare"]
    assert len(of_class(root, "bar")) == 1
    assert {one.text for one in of_class(root, "label")} == {"m0", "bare"}
    assert {one.text for one in of_class(root, "key")} == {"gan", "vae"}


def test_titles_say_scale_and_direction() -> None:
    titles = {one.text for one in of_class(draw(cloud(2)), "title")}
    assert titles == {"images/s (log scale, higher is better)", "distance (lower is better)"}


def test_the_error_bar_spans_its_interval() -> None:
    root = draw([Point(x=1, y=2, low=1, high=3), Point(x=10, y=4)], y=UP)
    top, foot = map(float, re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", of_class(root, "bar")[0].get("d", ""))[0])
    at = float(re.findall(r"M[\d.]+ ([\d.]+)", of_class(root, "mark")[0].get("d", ""))[0])
    assert top < at < foot
    assert at - top == pytest.approx(foot - at, abs=0.15)


def test_a_bar_below_zero_is_cut_at_the_frame_of_a_log_axis() -> None:
    root = draw([Point(x=1, y=2, low=-1, high=3), Point(x=10, y=400)], y=Axis(title="d", log=True))
    assert "nan" not in ET.tostring(root, encoding="unicode")
    assert len(of_class(root, "bar")) == 1


def test_a_front_is_a_staircase_of_right_angles() -> None:
    root = draw(cloud(5), fronts=[[(6.5, 3.0), (1.5, 1.0), (3.5, 2.0)], [(2.0, 1.5)]])
    (front,) = of_class(root, "front")  # one point alone is no line
    corners = [tuple(map(float, pair.split())) for pair in front.get("d", "")[1:].split("L")]
    assert len(corners) == 5
    assert all(a == c or b == d for (a, b), (c, d) in itertools.pairwise(corners))
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)


def test_a_crowd_is_one_path_a_family_and_only_the_emphasised_are_told() -> None:
    points = cloud(MANY_POINTS + 1)
    points[7] = replace(points[7], emphasised=True)
    root = draw(points)
    assert len(of_class(root, "crowd")) == 1
    assert of_class(root, "crowd")[0].get("d", "").count("M") == MANY_POINTS
    assert [one.get("data-key") for one in of_class(root, "point")] == ["k7"]
    assert [one.text for one in of_class(root, "label")] == ["m7"]


def test_hostile_text_stays_text() -> None:
    bad = '"><script>alert(1)</script>\x00\u202e'
    root = draw([Point(x=1, y=2, label=bad, family=bad, tooltip=bad, key=bad)], title=bad, description=bad)
    assert not [one for one in root.iter() if one.tag == "script"]
    assert of_class(root, "label")[0].text == '"><script>alert(1)</script>  '


def test_a_line_joins_its_points_from_left_to_right() -> None:
    points = tuple(Point(x=x, y=y, low=y - 1, high=y + 1) for x, y in [(20, 3.0), (5, 9.0), (10, 5.0)])
    series = [Series(label="ddim", points=points), Series(label="heun", points=points[:2])]
    root = ET.fromstring(str(line(series, x=Axis(title="steps"), y=UP, title="t", description="d")))
    paths = [one.get("d", "")[1:].split("L") for one in of_class(root, "line")]
    assert [len(path) for path in paths] == [3, 2]
    assert [float(pair.split()[0]) for pair in paths[0]] == sorted(
        float(pair.split()[0]) for pair in paths[0]
    )
    assert {one.text for one in of_class(root, "key")} == {"ddim", "heun"}


@pytest.mark.parametrize("points", [[], [Point(x=0, y=1)], [Point(x=1, y=math.nan)]])
def test_charts_of_nothing_are_refused(points: list[Point]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        draw(points)


def test_long_legends_break_into_rows_inside_the_picture() -> None:
    points = [replace(point, family=f"family-number-{i}") for i, point in enumerate(cloud(15))]
    root = draw(points)
    width = float(root.get("viewBox", "").split()[2])
    keys = of_class(root, "key")
    assert len({one.get("y") for one in keys}) > 1
    assert all(float(one.get("x", "")) + text_width(one.text or "") <= width for one in keys)
