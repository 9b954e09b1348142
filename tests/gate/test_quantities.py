"""What a record gives to be judged, and what a rule's name picks of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from evalkit.errors import UsageError
from evalkit.gate.facts import Quantity
from evalkit.gate.quantities import (
    SPEEDS,
    UNKNOWN_DEGREES,
    degrees_of,
    full_name,
    pick,
    quantities,
)
from evalkit.gate.rules import parse_rule
from evalkit.spec import Interval


def named(record):
    return {full_name(quantity): quantity for quantity in quantities(record)}


def plain(*labels):
    return [
        Quantity(metric=metric, variant=variant, unit="", direction="lower", value=1.0)
        for metric, _, variant in (label.partition("|") for label in labels)
    ]


def test_a_score_keeps_all_that_a_difference_needs(make):
    score = make.score("is:lite", 2.0, 0.1, direction="higher", unit="nats", warnings=("near its bound",))
    (found, *sizes) = quantities(make.run(score))
    assert found == Quantity(
        metric="is:lite", variant="block", unit="nats", direction="higher", value=2.0, se=0.1, degrees=15,
        loo=score.blocks.loo, sizes=(64,) * 16, n=1024, warnings=("near its bound",),
    )  # fmt: skip
    assert [quantity.metric for quantity in sizes] == ["nfe"]


def test_scores_come_in_the_order_of_the_record_then_speed_then_size(make):
    record = make.run(
        make.score("kd:lite", 2.0, 0.1), make.score("fd:lite", 20.0, 1.0),
        performance=(
            make.speed(
                latency_p99_ms=20.0, peak_memory_bytes=10, energy_per_image_joule=0.5, nfe=20, parameters=7,
                flops_per_image=9,
            ),
        ),
    )  # fmt: skip
    assert [(q.metric, q.unit, q.direction, q.value) for q in quantities(record)] == [
        ("kd:lite", "", "lower", 2.0), ("fd:lite", "", "lower", 20.0),
        ("throughput", "img/s", "higher", 100.0), ("peak_memory", "B", "lower", 10.0),
        ("energy", "J/img", "lower", 0.5), ("latency_p50", "ms", "lower", 10.0),
        ("latency_p90", "ms", "lower", 12.0), ("latency_p99", "ms", "lower", 20.0),
        ("nfe", "", "lower", 20.0), ("flops", "FLOP/img", "lower", 9.0), ("n_params", "", "lower", 7.0),
    ]  # fmt: skip


def test_a_speed_has_conditions_and_nothing_else_has(make):
    record = make.run(make.score(), performance=(make.speed(peak_memory_bytes=1, nfe=3),))
    conditions = (("device", "cpu"), ("dtype", "float32"), ("batch size", "64"), ("scenario", "offline"))
    for quantity in quantities(record):
        assert quantity.conditions == (conditions if quantity.metric in SPEEDS else ())


def test_throughput_is_the_fastest_offline_and_latency_of_single_images(make):
    record = make.run(
        performance=(
            make.speed(50.0, batch_size=8),
            make.speed(200.0, batch_size=256, latency_p50_ms=5.0),
            make.speed(900.0, scenario="single-stream", batch_size=1, latency_p50_ms=99.0),
        )
    )
    found = named(record)
    assert found["throughput"].value == 200.0
    assert dict(found["throughput"].conditions)["batch size"] == "256"
    assert found["latency_p50"].value == 99.0
    assert dict(found["latency_p50"].conditions)["scenario"] == "single-stream"


def test_what_was_not_measured_is_left_out(make):
    assert named(make.run(sampling=False)) == {}
    record = make.run(sampling=False, performance=(make.speed(latency_p50_ms=None, latency_p90_ms=None),))
    assert set(named(record)) == {"throughput"}


def test_the_error_bar_of_a_mean_has_the_degrees_of_its_images(make):
    mean = make.score("psnr", 30.0, 0.1, ci=Interval(29.8, 30.2, method="mean-t"))
    assert named(make.run(mean))["psnr/block"].degrees == 1023


def test_an_error_bar_without_blocks_tells_its_degrees_by_its_interval(make):
    reach = float(student_t.ppf(0.975, 7)) * 0.1
    bare = make.score("kd", 2.0, 0.1, blocks=16, ci=Interval(2 - reach, 2 + reach))
    from dataclasses import replace

    from evalkit.record import Blocks

    assert named(make.run(replace(bare, blocks=Blocks())))["kd/block"].degrees == 7


@given(st.integers(1, 199), st.floats(1e-6, 1e6), st.sampled_from([0.9, 0.95, 0.99]))
def test_degrees_are_read_back_from_the_width_of_an_interval(degrees, se, level):
    reach = float(student_t.ppf((1 + level) / 2, degrees)) * se
    assert degrees_of(se, Interval(-reach, reach, level)) == degrees


def test_degrees_that_the_interval_does_not_tell():
    assert degrees_of(None, Interval(0, 1)) is None
    assert degrees_of(0.1, None) == UNKNOWN_DEGREES
    assert degrees_of(0.0, Interval(1, 1)) == UNKNOWN_DEGREES
    assert degrees_of(0.1, Interval(0, 1, method="bootstrap")) == UNKNOWN_DEGREES
    assert degrees_of(0.1, Interval(0, 100)) == UNKNOWN_DEGREES  # wider than of a single degree
    assert degrees_of(0.1, Interval(-0.2045, 0.2045)) == UNKNOWN_DEGREES  # between 30 and 29
    assert degrees_of(0.1, Interval(-0.1960, 0.1960)) == 199  # normal: of more than are told apart


def test_a_rule_picks_by_label_by_its_beginning_and_by_variant():
    known = plain("kd:lite|block", "fd:lite|block", "fd:lite|pool", "throughput|")
    assert pick(known, parse_rule("kd")) is known[0]
    assert pick(known, parse_rule("kd:lite")) is known[0]
    assert pick(known, parse_rule("kd/block")) is known[0]
    assert pick(known, parse_rule("fd/pool")) is known[2]
    assert pick(known, parse_rule("fd:lite/pool")) is known[2]
    assert pick(known, parse_rule("throughput")) is known[3]
    for text in ("kdd", "k", "kd/pool", "kd:lite/pool", "kd:heavy", "lite"):
        assert pick(known, parse_rule(text)) is None


def test_a_whole_label_wins_over_the_beginning_of_others():
    known = plain("fd|", "fd:lite|", "fd:vit|")
    assert pick(known, parse_rule("fd")) is known[0]


def test_a_label_may_hold_a_slash():
    known = plain("fd:vit-l/14|pool", "kd:vit-l/14|")
    assert pick(known, parse_rule("fd:vit-l/14/pool")) is known[0]
    assert pick(known, parse_rule("fd:vit-l/14")) is known[0]
    assert pick(known, parse_rule("kd:vit-l/14")) is known[1]


@pytest.mark.parametrize("text", ["fd", "fd:lite", "kd"])
def test_a_rule_that_fits_several_lists_them(text):
    known = plain("fd:lite|block", "fd:lite|pool", "kd:lite|", "kd:vit|")
    with pytest.raises(UsageError, match="fits several") as caught:
        pick(known, parse_rule(text))
    names = {"fd": ["fd:lite/block", "fd:lite/pool"], "kd": ["kd:lite", "kd:vit"]}[text[:2]]
    assert all(name in (caught.value.hint or "") for name in names)


def test_the_whole_name_of_a_quantity_picks_it_and_no_other(make):
    record = make.run(
        make.score("fd:lite", 1.0), make.score("fd:lite", 2.0, variant="pool"), make.score("kd:lite", 3.0),
        performance=(make.speed(),),
    )  # fmt: skip
    known = quantities(record)
    for quantity in known:
        assert pick(known, parse_rule(full_name(quantity))) is quantity
