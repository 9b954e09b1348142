"""Ranks that intervals allow, and the Pareto front: examples, and laws over any board."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.leaderboard.ranking import (
    Estimate,
    Place,
    estimate_of,
    headline_of,
    pareto_marks,
    rank_ranges,
    result_of,
    variant_of,
)
from evalkit.record import MetricResult
from evalkit.reporting.costs import fastest, timed
from evalkit.spec import Interval

SMALL = st.integers(-6, 6).map(float)
BETTER = st.sampled_from(["lower", "higher"])


@st.composite
def estimates(draw, smallest=0):
    found = draw(st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=smallest, max_size=8))
    return [Estimate(value=sorted(t)[1], low=min(t), high=max(t)) for t in found]


PLACES = st.lists(st.builds(Place, SMALL, SMALL, st.sampled_from(["cpu", "gpu"])), max_size=8)


def point_rank(all_, own, better):
    sign = 1 if better == "lower" else -1
    return 1 + sum(sign * other.value < sign * own.value for other in all_)


def test_close_models_share_a_range_and_clear_ones_do_not():
    three = [Estimate(2.0, 1.8, 2.2), Estimate(2.1, 1.9, 2.3), Estimate(5.0, 4.9, 5.1)]
    assert rank_ranges(three, "lower") == [(1, 2), (1, 2), (3, 3)]
    assert rank_ranges(three, "higher") == [(2, 3), (2, 3), (1, 1)]


def test_overlap_is_not_transitive():
    chain = [Estimate(1.0, 0.0, 2.0), Estimate(3.0, 1.5, 4.5), Estimate(5.0, 4.0, 6.0)]
    assert rank_ranges(chain, "lower") == [(1, 2), (1, 3), (2, 3)]


def test_intervals_that_touch_are_a_tie_and_so_are_equal_values_without_error():
    assert rank_ranges([Estimate(1.0, 0.0, 2.0), Estimate(3.0, 2.0, 4.0)], "lower") == [(1, 2), (1, 2)]
    assert rank_ranges([Estimate(1.0, 1.0, 1.0)] * 2, "lower") == [(1, 2), (1, 2)]


@given(estimates(smallest=1), BETTER)
def test_a_range_lies_within_the_board_and_holds_the_rank_of_the_value(found, better):
    for own, (best, worst) in zip(found, rank_ranges(found, better), strict=True):
        assert 1 <= best <= point_rank(found, own, better) <= worst <= len(found)


@given(estimates(), BETTER)
def test_a_range_is_what_comparing_every_pair_of_intervals_gives(found, better):
    ordered = found if better == "lower" else [e.flipped() for e in found]
    assert rank_ranges(found, better) == [
        (1 + sum(o.high < own.low for o in ordered), sum(o.low <= own.high for o in ordered))
        for own in ordered
    ]


def test_ten_thousand_models_are_ranked_at_once():
    found = [Estimate(float(i), i - 2.0, i + 2.0) for i in range(10_000)]
    assert rank_ranges(found, "lower")[5000] == (4997, 5005)
    places = [Place(float(i), 10_000.0 - i, "cpu") for i in range(10_000)]  # the best is the fastest
    assert sum(pareto_marks(places, "lower")) == 1


@given(estimates(), BETTER)
def test_every_rank_is_possible_for_some_model(found, better):
    ranges = rank_ranges(found, better)
    for rank in range(1, len(found) + 1):
        assert any(best <= rank <= worst for best, worst in ranges)


@given(estimates(smallest=2), BETTER, st.floats(0, 5))
def test_wider_intervals_never_narrow_a_range(found, better, more):
    wide = [Estimate(e.value, e.low - more, e.high + more) for e in found]
    for (best, worst), (best_wide, worst_wide) in zip(
        rank_ranges(found, better), rank_ranges(wide, better), strict=True
    ):
        assert best_wide <= best
        assert worst_wide >= worst


@given(estimates(smallest=1), BETTER)
def test_a_better_value_with_the_same_error_never_ranks_worse(found, better):
    step = -1.0 if better == "lower" else 1.0
    moved = [Estimate(found[0].value + step, found[0].low + step, found[0].high + step), *found[1:]]
    before, after = rank_ranges(found, better)[0], rank_ranges(moved, better)[0]
    assert after[0] <= before[0]
    assert after[1] <= before[1]


@given(estimates(smallest=1), st.randoms())
def test_the_order_of_the_rows_does_not_matter(found, random):
    order = list(range(len(found)))
    random.shuffle(order)
    ranges = rank_ranges(found, "lower")
    assert rank_ranges([found[i] for i in order], "lower") == [ranges[i] for i in order]


@given(estimates())
def test_a_metric_and_its_negative_rank_alike(found):
    assert rank_ranges(found, "higher") == rank_ranges([e.flipped() for e in found], "lower")


def test_the_front_holds_the_best_and_the_fastest():
    places = [Place(2.0, 10, "cpu"), Place(3.0, 100, "cpu"), Place(3.5, 90, "cpu"), Place(9.0, 101, "cpu")]
    assert pareto_marks(places, "lower") == [True, True, False, True]
    assert pareto_marks(places, "higher") == [False, False, False, True]


def test_equal_models_are_both_on_the_front_and_a_tie_in_one_decides_by_the_other():
    assert pareto_marks([Place(2.0, 10, "cpu")] * 2, "lower") == [True, True]
    assert pareto_marks([Place(2.0, 10, "cpu"), Place(2.0, 11, "cpu")], "lower") == [False, True]


def test_speeds_of_two_devices_do_not_compare():
    assert pareto_marks([Place(3.0, 10, "cpu"), Place(2.0, 900, "gpu")], "lower") == [True, True]


@given(PLACES, BETTER)
def test_every_model_off_the_front_is_beaten_by_one_on_it(places, better):
    sign = 1 if better == "lower" else -1
    marks = pareto_marks(places, better)
    front = [place for place, mark in zip(places, marks, strict=True) if mark]
    assert bool(front) == bool(places)
    for place, mark in zip(places, marks, strict=True):
        beaten = any(
            p.device == place.device and sign * p.quality <= sign * place.quality and p.speed >= place.speed
            for p in front
            if p != place
        )
        assert beaten is not mark


def result(**changes):
    base = MetricResult("kd:lite", "block", 2.0, direction="lower", n_gen=8)
    return replace(base, **changes)


def test_an_interval_is_the_recorded_one_else_from_the_error_else_the_value():
    assert estimate_of(result(se=1.0, ci=Interval(1.5, 2.5))) == Estimate(2.0, 1.5, 2.5)
    assert estimate_of(result(se=1.0)) == Estimate(2.0, pytest.approx(0.04), pytest.approx(3.96))
    assert estimate_of(result()) == Estimate(2.0, 2.0, 2.0)


def test_an_interval_that_misses_its_value_is_widened_to_it():
    assert estimate_of(result(ci=Interval(2.5, 3.0))) == Estimate(2.0, 2.0, 3.0)


def test_the_headline_is_the_wanted_one_else_the_first_metric(make_record):
    records = [make_record(metric="fd:lite")]
    assert headline_of(records, "is:lite") == "is:lite"
    assert headline_of(records, "kd:other") == headline_of(records, None) == "fd:lite"
    assert headline_of([], None) == ""


def test_a_kernel_distance_ranks_before_a_frechet_distance_of_few_images(make_record, changed):
    record = make_record(metric="fd:lite")
    small = changed(record.results[0], warnings=("small sample: 8 images",))
    kernel = changed(small, metric="kd:lite", warnings=())
    assert headline_of([changed(record, results=(small, kernel))], None) == "kd:lite"
    assert headline_of([changed(record, results=(record.results[0], kernel))], None) == "fd:lite"


def test_all_records_rank_by_the_same_variant(make_record, changed):
    one = make_record("a")
    first, other = (changed(one.results[0], variant=v, value=x) for v, x in (("x", 1.0), ("y", 9.0)))
    records = [changed(one, results=r) for r in ((first, other), (other, first), (other,))]
    assert variant_of(records, "kd:lite") == "x"
    values = [found and found.value for found in (result_of(r, "kd:lite", "x") for r in records)]
    assert values == [1.0, 1.0, None]
    assert result_of(records[2], "kd:lite") == other
    assert variant_of(records, "nothing") is None


def test_images_a_second_are_offline_and_latencies_one_image_at_a_time(make_record, changed):
    (offline,) = make_record().performance
    slow = changed(offline, throughput=5.0)
    single = changed(offline, scenario="single-stream", throughput=99.0, latency_p50_ms=9.0)
    record = changed(make_record(), performance=(slow, single, offline))
    assert fastest(record) == offline
    assert timed(record) == single
    assert fastest(make_record(speed=None)) is None
    assert timed(make_record(speed=None)) is None
