"""The sequential test: published boundaries, error rates under peeking, power, images saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student_t

from evalkit.errors import InvalidInputError
from evalkit.numerics.mmd import KernelSums, kernel_sums
from evalkit.numerics.resampling import jackknife
from evalkit.numerics.sequential import (
    boundary,
    exits,
    expected_share,
    look,
    look_times,
    pseudo_values,
    reach,
    stops,
    student_boundary,
)

ALPHA = 0.05
NEVER = 50.0  # a boundary that nothing crosses
TRIALS = 4000
HIGHEST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS)


def _equal_looks(count: int) -> tuple[float, ...]:
    return tuple((i + 1) / count for i in range(count))


def _rate(flags) -> float:
    return float(np.mean(flags))


# Jennison & Turnbull 2000, table 2.3: C_B(K, alpha) of two-sided tests at .05 and .1. Crossing both sides is
# so rare that a one-sided test at half of it has the same constant to the decimals printed.
@pytest.mark.parametrize(
    ("alpha", "looks", "published"),
    [
        (0.025, 1, 1.960),
        (0.025, 2, 1.977),
        (0.025, 5, 2.040),
        (0.025, 10, 2.087),
        (0.05, 2, 1.678),
        (0.05, 5, 1.751),
    ],
)
def test_the_boundary_is_the_published_one(alpha, looks, published):
    assert boundary(alpha, _equal_looks(looks)) == pytest.approx(published, abs=6e-4)


def test_many_looks_need_what_reflection_says_and_no_more():
    """Siegmund 1985: looks every 1/K lower the boundary of continuous monitoring by 0.583 / sqrt K."""
    for looks in (50, 200):
        c = boundary(ALPHA, _equal_looks(looks))
        assert c == pytest.approx(norm.isf(ALPHA / 2) - 0.583 / math.sqrt(looks), abs=0.006)


def test_fewer_looks_never_cost_more():
    late = boundary(ALPHA, look_times([1] * 16, fewest=10))
    early = boundary(ALPHA, look_times([1] * 16, fewest=5))
    assert boundary(ALPHA, (1.0,)) == pytest.approx(norm.isf(ALPHA), abs=1e-6)
    assert boundary(ALPHA, (1.0,)) < late < early < boundary(ALPHA, _equal_looks(16)) + 1e-4


def test_exit_probabilities_are_those_of_simulated_paths():
    times = look_times([3, 1, 2, 2, 4, 1, 3, 2, 2])
    steps = np.sqrt(np.diff([0.0, *times]))
    rng = np.random.default_rng(3)
    paths = np.cumsum(rng.normal(size=(40_000, len(times))) * steps, axis=1) + 1.2 * np.asarray(times)
    found = exits(times, upper=1.5, lower=-0.7, drift=1.2)
    outside = (paths >= 1.5) | (paths <= -0.7)
    first = np.where(outside.any(axis=1), outside.argmax(axis=1), -1)
    for k in range(len(times)):
        left = first == k
        assert _rate(left & (paths[:, k] >= 1.5)) == pytest.approx(found.above[k], abs=0.006)
        assert _rate(left & (paths[:, k] <= -0.7)) == pytest.approx(found.below[k], abs=0.006)
    mean = np.where(first >= 0, np.asarray(times)[first], times[-1]).mean()
    share = expected_share(times, upper=1.5, lower=-0.7, drift=1.2)
    assert share == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize("blocks", [8, 10, 16, 20])
def test_peeking_after_every_block_keeps_the_error_rate(blocks):
    """The difference is at the margin, where both errors are likeliest."""
    rng = np.random.default_rng(blocks)
    runs = 0.4 + rng.normal(size=(TRIALS, blocks))
    c = student_boundary(ALPHA, [1] * blocks)
    false_alarms = stops(runs, margin=0.4, regression=c, acceptance=NEVER) > 0
    false_passes = stops(runs, margin=0.4, regression=NEVER, acceptance=c) < 0
    assert 0.5 * ALPHA < _rate(false_alarms) <= HIGHEST
    assert 0.5 * ALPHA < _rate(false_passes) <= HIGHEST


@pytest.mark.parametrize("degrees", [3, 5, 9])
def test_a_boundary_far_out_stays_on_its_side(degrees):
    """Where the quantile leaves float64, or scipy's function loses its sign."""
    far = [reach(float(c), 1.0, degrees) for c in np.arange(1.0, 40.0, 0.25)]
    assert min(far) > 0
    assert far == sorted(far)


def test_a_t_test_after_every_block_would_not_keep_it():
    rng = np.random.default_rng(20)
    runs = rng.normal(size=(TRIALS, 20))
    alarmed = np.zeros(TRIALS, dtype=bool)
    for k in range(3, 21):
        part = runs[:, :k]
        statistic = part.mean(axis=1) / (part.std(axis=1, ddof=1) / math.sqrt(k))
        alarmed |= statistic > student_t.isf(ALPHA, k - 1)
    assert _rate(alarmed) > 0.15


def test_several_rules_share_the_error_rate():
    rng = np.random.default_rng(5)
    rules = 4
    c = student_boundary(ALPHA / rules, [1] * 16)
    alarms = [
        stops(rng.normal(size=(TRIALS, 16)), margin=0.0, regression=c, acceptance=NEVER) > 0
        for _ in range(rules)
    ]
    assert _rate(np.any(alarms, axis=0)) <= HIGHEST


def test_skewed_images_leave_the_rate_near_its_level():
    """Blocks are means of images: 64 exponential ones have a skewness of 2 / 8."""
    rng = np.random.default_rng(6)
    runs = rng.gamma(64, 1 / 64, size=(TRIALS, 16)) - 1
    c = student_boundary(ALPHA, [1] * 16)
    for sign in (1, -1):
        alarms = stops(sign * runs, margin=0.0, regression=c, acceptance=NEVER) > 0
        assert _rate(alarms) < 1.6 * ALPHA


@pytest.mark.parametrize(
    ("margin", "power", "share"),
    [(4.0, 0.95, 0.66), (5.0, 0.99, 0.57), (8.0, 0.999, 0.45)],
)
def test_an_unchanged_model_passes_early(margin, power, share):
    """A margin of so many standard errors of the whole run."""
    rng = np.random.default_rng(7)
    runs = rng.normal(size=(TRIALS, 16))
    c = student_boundary(ALPHA, [1] * 16)
    decided = stops(runs, margin=margin / math.sqrt(16), regression=c, acceptance=c)
    assert _rate(decided < 0) > power
    assert _rate(decided > 0) < 1e-3
    drawn = np.where(decided == 0, 16, np.abs(decided)) / 16
    brownian = expected_share(look_times([1] * 16), upper=c, lower=-c, drift=-margin)
    assert brownian < drawn.mean() < share


def test_an_injected_shift_of_two_margins_is_caught():
    rng = np.random.default_rng(8)
    margin = 4.0 / math.sqrt(16)
    c = student_boundary(ALPHA, [1] * 16)
    decided = stops(rng.normal(size=(TRIALS, 16)) + 2 * margin, margin=margin, regression=c, acceptance=c)
    assert _rate(decided > 0) > 0.95
    assert _rate(decided < 0) < 1e-3


def _so_far(sums: KernelSums, k: int) -> KernelSums:
    return KernelSums(
        within=sums.within[:k, :k],
        across=sums.across[:k],
        reference_mean=sums.reference_mean,
        sizes=sums.sizes[:k],
        n_reference=sums.n_reference,
    )


def test_a_kernel_distance_keeps_the_error_rate_though_its_blocks_interact():
    """A/A runs of a perfect model: the U-statistic is degenerate, the worst case for block differences."""
    rng = np.random.default_rng(9)
    blocks, size, trials = 16, 4, 250
    bank = rng.normal(size=(60, 3))
    c = student_boundary(ALPHA, [size] * blocks)
    alarms = 0
    for _ in range(trials):
        cut = [rng.normal(size=(2, size, 3)) for _ in range(blocks)]
        candidate = kernel_sums([both[0] for both in cut], bank)
        baseline = kernel_sums([both[1] for both in cut], bank)
        theirs = pseudo_values(baseline.value(), baseline.without_blocks(), sizes=[size] * blocks)
        for k in range(5, blocks + 1):
            part = _so_far(candidate, k)
            ours = pseudo_values(part.value(), part.without_blocks(), sizes=[size] * k)
            seen = look(
                ours - theirs[:k], sizes=[size] * k, planned=size * blocks, regression=c, acceptance=c
            )
            if seen.low > 0:
                alarms += 1
                break
    assert alarms / trials <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / trials)


@pytest.mark.parametrize("events", [0.5, 2.0, 5.0, 20.0])
def test_rare_events_do_not_pass_by_their_absence(events):
    """So many images of the whole run differ, all for the worse: at the margin, a pass is an error."""
    rng = np.random.default_rng(10)
    blocks, size, trials = 16, 64, 500
    c = student_boundary(ALPHA, [size] * blocks)
    passes = {1.0: 0, 0.0: 0}
    for counts in rng.poisson(events / blocks, size=(trials, blocks)) / size:
        for step in passes:
            passes[step] += any(
                look(
                    counts[:k], sizes=[size] * k, planned=size * blocks, regression=c, acceptance=c, step=step
                ).high
                <= events / (blocks * size)
                for k in range(5, blocks + 1)
            )
    assert passes[1.0] / trials <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / trials)
    assert passes[0.0] / trials > (0.07 if events == 20.0 else 0.1)  # what the step is for


values = st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 50)), min_size=2, max_size=12)


@given(values)
def test_pseudo_values_of_a_mean_are_the_means_of_the_blocks(blocks):
    means, sizes = np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])
    mean = float(means @ sizes / sizes.sum())
    without = (mean * sizes.sum() - means * sizes) / (sizes.sum() - sizes)
    assert pseudo_values(mean, without, sizes=sizes) == pytest.approx(means, abs=1e-6)


@given(values)
def test_their_mean_is_the_jackknife_and_so_is_the_error_of_equal_blocks(blocks):
    without, sizes = [b[0] for b in blocks], [b[1] for b in blocks]
    own = pseudo_values(1.5, without, sizes=sizes)
    seen = look(own, sizes=sizes, planned=sum(sizes), regression=1.9, acceptance=1.9)
    assert seen.difference == pytest.approx(jackknife(1.5, without, sizes=sizes).bias_corrected, abs=1e-6)
    even = [4] * len(without)
    same = look(
        pseudo_values(1.5, without, sizes=even), sizes=even, planned=sum(even), regression=1.9, acceptance=1.9
    )
    assert same.se == pytest.approx(jackknife(1.5, without, sizes=even).stderr, abs=1e-9)


@given(values, st.floats(0.1, 100))
def test_a_bias_in_one_over_n_is_gone(blocks, bias):
    """As of a V-statistic: value = mean + bias / n."""
    means, sizes = np.array([b[0] for b in blocks]), np.array([b[1] for b in blocks])
    total = sizes.sum()
    mean = float(means @ sizes / total)
    without = (mean * total - means * sizes) / (total - sizes) + bias / (total - sizes)
    assert pseudo_values(mean + bias / total, without, sizes=sizes) == pytest.approx(means, abs=1e-6)


def test_one_look_is_what_many_runs_are_followed_by():
    rng = np.random.default_rng(11)
    runs = rng.normal(size=(50, 16)) + 0.6
    c, strict = student_boundary(ALPHA, [7] * 16), student_boundary(ALPHA / 3, [7] * 16)
    decided = stops(runs, margin=0.3, regression=strict, acceptance=c)
    for run, expected in zip(runs, decided, strict=True):
        found = 0
        for k in range(5, 17):
            seen = look(run[:k], sizes=[7] * k, planned=112, regression=strict, acceptance=c)
            found = k if seen.low > 0.3 else -k if seen.high <= 0.3 else 0
            if found:
                break
        assert found == expected


def test_identical_blocks_are_decided_exactly():
    seen = look(np.zeros(5), sizes=[8] * 5, planned=128, regression=1.9, acceptance=1.9)
    assert (seen.difference, seen.se, seen.low, seen.high) == (0.0, 0.0, 0.0, 0.0)
    counted = look(np.zeros(5), sizes=[8] * 5, planned=128, regression=1.9, acceptance=1.9, step=1.0)
    assert counted.high > math.log(20) / 40  # no event in 40 images: at .05 the rate may be so high


def test_early_looks_ask_for_more():
    asked = [reach(1.9, k / 16, k - 1) for k in range(5, 17)]
    assert asked == sorted(asked, reverse=True)
    assert asked[0] > 8
    assert asked[-1] == pytest.approx(2.07, abs=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: boundary(0.0, (1.0,)),
        lambda: boundary(0.5, (1.0,)),
        lambda: boundary(0.05, (0.5, 0.4)),
        lambda: exits((), upper=1.0),
        lambda: exits((0.5, 1.5), upper=1.0),
        lambda: exits((1.0,), upper=1.0, lower=2.0),
        lambda: look_times([8] * 4),
        lambda: look_times([8, 8, 8, 8, 8, 0]),
        lambda: look([1.0], sizes=[3], planned=10, regression=2, acceptance=2),
        lambda: look([1.0, math.nan], sizes=[3, 3], planned=10, regression=2, acceptance=2),
        lambda: look([1.0, 2.0], sizes=[3], planned=10, regression=2, acceptance=2),
        lambda: pseudo_values(math.inf, [1.0, 2.0], sizes=[1, 1]),
        lambda: pseudo_values(1.0, [1.0], sizes=[1]),
        lambda: pseudo_values(1.0, [1.0, 2.0], sizes=[1, 0]),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidInputError):
        wrong()
