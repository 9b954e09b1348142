"""Bounds against scipy, Holm against a hand computation, and how many images would decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from evalkit.gate.bounds import MOST_IMAGES, holm, images_for_power, images_to_decide, judge
from evalkit.gate.differences import Difference

ALPHA = 0.05
sizes = st.floats(-100, 100, allow_nan=False)
errors = st.floats(1e-3, 100)
degrees = st.integers(1, 200)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def of(value, se, degrees=15):
    return Difference(value, se, degrees, "unpaired")


def one(value, se, margin, *, degrees=15, alpha=ALPHA):
    (verdict,) = judge([of(value, se, degrees)], [margin], alpha=alpha)
    return verdict


@given(sizes, errors, degrees, sizes, st.floats(0.001, 0.49))
def test_bounds_and_p_values_are_students(value, se, degrees, margin, alpha):
    found = one(value, se, margin, degrees=degrees, alpha=alpha)
    reach = float(student_t.ppf(1 - alpha, degrees)) * se
    assert found.low == pytest.approx(value - reach, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(value + reach, rel=1e-9, abs=1e-9)
    expected = float(student_t.sf((value - margin) / se, degrees))
    assert found.p_value == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(sizes, errors, degrees, st.floats(0, 100))
def test_one_rule_is_decided_by_its_bounds(value, se, degrees, margin):
    found = one(value, se, margin, degrees=degrees)
    assume(min(abs(found.low - margin), abs(found.high - margin)) > 1e-6)
    expected = "regression" if found.low > margin else "pass" if found.high <= margin else "inconclusive"
    assert found.status == expected
    assert found.improved == (found.high < -margin)


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 are .02 .03 .06 .04; the running maximum makes the last .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    # Dudoit, Shaffer & Boldrick 2003 call these step-down adjusted p-values; capped at 1.
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.02]) == (0.02,)


@given(p_values)
def test_laws_of_holm(ps):
    adjusted = holm(ps)
    count = len(ps)
    for p, a in zip(ps, adjusted, strict=True):
        assert p <= a <= min(1.0, count * p) + 1e-15  # between nothing and Bonferroni
    order = np.argsort(ps, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)
    turned = holm(ps[::-1])
    assert turned[::-1] == pytest.approx(adjusted)


@given(p_values, st.floats(0.001, 0.2))
def test_holm_rejects_what_the_sequential_procedure_rejects(ps, alpha):
    """Holm 1979, section 3: test upwards at alpha / (m - i), and stop at the first that is not rejected."""
    expected = [False] * len(ps)
    for place, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        threshold = alpha / (len(ps) - place)
        assume(abs(ps[i] - threshold) > 1e-9)
        if ps[i] > threshold:
            break
        expected[i] = True
    assert [a <= alpha for a in holm(ps)] == expected


def test_holm_can_turn_a_regression_into_an_open_question():
    alone = one(0.30, 0.1, 0.1)
    assert (alone.status, alone.low > 0.1) == ("regression", True)
    four = judge([of(0.30, 0.1), *[of(0.0, 0.1)] * 3], [0.1] * 4, alpha=ALPHA)
    assert four[0].status == "inconclusive"
    assert four[0].low == alone.low > 0.1
    assert four[0].p_value < ALPHA < four[0].adjusted


def test_rules_do_not_make_it_harder_to_pass():
    """All rules must pass: an intersection-union test needs no correction (Berger 1982)."""
    alone, *_ = four = judge([of(-0.1, 0.1)] * 4, [0.1] * 4, alpha=ALPHA)
    assert alone.status == one(-0.1, 0.1, 0.1).status == "pass"
    assert {verdict.status for verdict in four} == {"pass"}


@pytest.mark.parametrize(
    ("value", "margin", "status", "p_value"),
    [
        (0.1, 0.1, "pass", 1.0),
        (0.1, 0.0999, "regression", 0.0),
        (0.0, 0.0, "pass", 1.0),
        (-1.0, 0.0, "pass", 1.0),
        (1e-300, 0.0, "regression", 0.0),
    ],
)
def test_an_error_of_zero_is_exact(value, margin, status, p_value):
    found = one(value, 0.0, margin)
    assert (found.status, found.p_value, found.adjusted) == (status, p_value, p_value)
    assert found.low == found.high == value


def test_an_improvement_is_beyond_the_margin_for_certain():
    assert one(-1.0, 0.1, 0.5).improved
    assert not one(-0.6, 0.1, 0.5).improved  # the bound is -0.42
    assert one(-0.1, 0.0, 0.05).improved
    assert not one(-0.05, 0.0, 0.05).improved


def test_no_rules_no_verdicts_and_no_error_bar_no_verdict():
    assert judge([], [], alpha=ALPHA) == ()
    with pytest.raises(ValueError, match="without an error bar"):
        judge([Difference(1.0)], [0.0], alpha=ALPHA)
    with pytest.raises(ValueError, match="without degrees"):
        judge([Difference(1.0, 0.1)], [0.0], alpha=ALPHA)


def test_images_to_decide_by_hand():
    # t_{.95}(15) = 1.75305; 1024 (1.75305 * 0.1 / 0.05)^2 = 12587.6, in two digits upwards.
    assert images_to_decide(of(0.05, 0.1), 0.1, images=1024, alpha=ALPHA) == 13_000
    # Beyond the margin of four rules t_{.9875}(15) = 2.4899: 1024 (2.4899 * 0.1 / 0.05)^2 = 25393.
    assert images_to_decide(of(0.15, 0.1), 0.1, images=1024, alpha=ALPHA, rules=4) == 26_000


@given(sizes, errors, st.floats(0, 100), st.integers(1, 6), degrees)
def test_images_to_decide_are_more_than_there_were_and_would_decide(value, se, margin, rules, degrees):
    """With the error bar that so many images have, the same difference is decided whatever the others say."""
    n = 1000
    others = [of(-1e6, 1.0)] * (rules - 1)
    (found, *_) = judge([of(value, se, degrees), *others], [margin] * rules, alpha=ALPHA)
    assume(found.status == "inconclusive")
    needed = images_to_decide(of(value, se, degrees), margin, images=n, alpha=ALPHA, rules=rules)
    if needed is None:
        t = float(student_t.ppf(1 - ALPHA / rules, degrees))
        assert abs(margin - value) <= 1.001 * t * se * math.sqrt(n / MOST_IMAGES)
        return
    assert n <= needed <= MOST_IMAGES
    assert len(str(needed).rstrip("0")) <= 2
    sharper = of(value, se * math.sqrt(n / needed) * (1 - 1e-9), degrees)
    (then, *_) = judge([sharper, *others], [margin] * rules, alpha=ALPHA)
    assert then.status == ("regression" if value > margin else "pass")


@pytest.mark.parametrize(
    ("value", "se", "images"), [(0.1, 0.1, 1024), (0.0999, 0.1, 1024), (0.0, 0.1, 0), (0.05, 1e300, 1024)]
)
def test_images_that_nobody_would_draw_are_not_named(value, se, images):
    assert images_to_decide(of(value, se), 0.1, images=images, alpha=ALPHA) is None


@pytest.mark.parametrize(
    ("number", "rounded"), [(1, 1), (99, 99), (100.2, 110), (1001, 1100), (9951, 10_000)]
)
def test_images_are_rounded_up_to_two_digits(number, rounded):
    se = 0.1 * math.sqrt(number / 1000) / float(student_t.ppf(0.95, 15)) * (1 - 1e-12)
    assert images_to_decide(of(0.0, se), 0.1, images=1000, alpha=ALPHA) == rounded


def test_images_for_power_by_hand():
    # (2 * 1.75305 * 0.1 / 0.1)^2 * 1000 for 95 % power at alpha = 5 %.
    assert images_for_power(0.1, 15, 0.1, images=1000) == pytest.approx(12_292.8, rel=1e-4)
    less = images_for_power(0.1, 15, 0.1, images=1000, power=0.5)
    assert less == pytest.approx(1000 * 1.75305**2, rel=1e-4)
