"""How often the gate is wrong, on records of synthetic models whose true difference is known.

200 gates of each kind, all seeds fixed. An image's influence on a score is normal with the standard deviation
3; 16 blocks of 64 images give the error bars. What came out, at alpha = 5 %, of which 200 trials may show up
to 9.6 % by chance (3 sigma):

- false alarms between equal models at margin 0: unpaired 2.5 %, paired 3.5 %; of any of four rules after
  Holm's correction 2.0 % and 1.5 %, where uncorrected they would be 13.5 % and 15.0 %.
- a shift of two margins, with as many images as the design asks for: caught in 98.5 % unpaired (1040 images a
  side) and 98.0 % paired at a correlation of 0.8 (208 images); 97 % of equal models pass with as many.
- 208 images without pairing catch 48.5 %.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evalkit.gate.baselines import Baseline, side_of
from evalkit.gate.bounds import images_for_power
from evalkit.gate.decision import gate
from evalkit.gate.facts import GateSpec, Rule
from evalkit.gate.quantities import quantities
from evalkit.gate.subjects import identity
from evalkit.numerics import jackknife
from evalkit.record import Blocks
from evalkit.spec import Interval
from tests.gate.trials import TrialDesign, rates, synthetic_pair, trial

TRIALS, ALPHA, BLOCKS, IMAGES, SPREAD = 200, 0.05, 16, 1024, 3.0
CORRELATION = 0.8
# Of a rate of 5 % over 200 trials, three standard deviations above it.
MOST_ALARMS = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS)


@pytest.fixture(scope="module")
def gates(make):
    """Reports of 200 gates between two synthetic models, ``shift`` apart."""

    def run(*, paired, rules=1, margin=0.0, shift=0.0, size=IMAGES // BLOCKS, seed=0):
        rng = np.random.default_rng(seed)
        spec = GateSpec(rules=tuple(Rule(metric=f"m{i}", mode="stat", absolute=margin) for i in range(rules)))
        reports = []
        for _ in range(TRIALS):
            # Images i of both sides share the part that the seed decides; of other seeds they share nothing.
            shared = rng.standard_normal((rules, BLOCKS)) * math.sqrt(CORRELATION if paired else 0.0)
            own = rng.standard_normal((2, rules, BLOCKS)) * math.sqrt(1 - (CORRELATION if paired else 0.0))
            means = 10.0 + (shared + own) * SPREAD / math.sqrt(size)
            means[0] += shift
            ours, theirs = (
                make.run(*(result_of(make, f"m{i}", m, size) for i, m in enumerate(side)), **more)
                for side, more in zip(
                    means, ({"sha": "c" * 64, "seeds": 0 if paired else 1, "day": 2}, {}), strict=True
                )
            )
            baseline = Baseline(
                side=side_of(theirs, ""), records=(theirs,), quantities=quantities(theirs),
                identity=identity(theirs),
            )  # fmt: skip
            reports.append(gate([ours], baseline, spec))
        assert {o.errors for r in reports for o in r.outcomes} == {"paired" if paired else "unpaired"}
        return reports

    return run


def result_of(make, metric, means, size):
    """A mean as a record holds it: its leave-one-block-out values, and their jackknife's error bar."""
    without = (means.sum() - means) / (BLOCKS - 1)
    value, bar = float(means.mean()), jackknife(float(means.mean()), without, sizes=[size] * BLOCKS)
    score = make.score(metric, value, n_gen=size * BLOCKS, ci=Interval(bar.low, bar.high))
    blocks = Blocks(BLOCKS, tuple(without.tolist()), (size,) * BLOCKS)
    return replace(score, se=bar.stderr, blocks=blocks)


def share_of(reports, status):
    return sum(report.status == status for report in reports) / len(reports)


@pytest.mark.parametrize("paired", [False, True])
def test_equal_models_alarm_at_most_at_the_level(gates, paired):
    assert share_of(gates(paired=paired), "regression") <= MOST_ALARMS


@pytest.mark.parametrize("paired", [False, True])
def test_four_rules_alarm_no_more_than_one(gates, paired):
    reports = gates(paired=paired, rules=4, seed=1)
    assert share_of(reports, "regression") <= MOST_ALARMS
    uncorrected = sum(any(o.p_value <= ALPHA for o in report.outcomes) for report in reports) / TRIALS
    assert uncorrected > MOST_ALARMS  # Holm's correction is what holds the level


@pytest.mark.parametrize("paired", [False, True])
def test_a_shift_of_two_margins_is_caught(gates, paired):
    margin = 0.5
    images = designed(margin, paired=paired)
    size = math.ceil(images / BLOCKS)
    caught = gates(paired=paired, margin=margin, shift=2 * margin, size=size, seed=2)
    assert share_of(caught, "regression") >= 0.95
    equal = gates(paired=paired, margin=margin, size=size, seed=3)
    passed = sum(report.outcomes[0].status == "pass" for report in equal) / TRIALS
    assert passed >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)  # the same images pass an equal model
    assert share_of(equal, "regression") <= MOST_ALARMS


def designed(margin, *, paired):
    """Images a side for a power of 97 % in truth: 95 % must be seen in 200 trials."""
    variance = 2 * SPREAD**2 * (1 - CORRELATION if paired else 1.0)
    return images_for_power(math.sqrt(variance / IMAGES), BLOCKS - 1, margin, images=IMAGES, power=0.97)


def test_pairing_needs_a_fifth_of_the_images():
    assert designed(0.5, paired=True) == pytest.approx((1 - CORRELATION) * designed(0.5, paired=False))


def test_with_the_images_of_the_paired_design_the_unpaired_gate_misses(gates):
    size = math.ceil(designed(0.5, paired=True) / BLOCKS)
    caught = gates(paired=False, margin=0.5, shift=1.0, size=size, seed=4)
    assert share_of(caught, "regression") < 0.6


@pytest.mark.parametrize("correlation", [0.0, CORRELATION])
@pytest.mark.parametrize("rules", [1, 4])
def test_many_quick_trials_keep_the_level_too(correlation, rules):
    design = TrialDesign(
        images=IMAGES,
        blocks=BLOCKS,
        spread=SPREAD,
        shift=0.0,
        margin=0.0,
        correlation=correlation,
        rules=rules,
    )
    found = rates(design, trials=TRIALS, seed=5)
    assert 0 < found.regression <= MOST_ALARMS
    assert found.regression + found.passed + found.inconclusive == pytest.approx(1)


@pytest.mark.parametrize("correlation", [0.0, CORRELATION])
def test_a_candidate_worse_by_just_the_margin_seldom_passes_or_alarms(correlation):
    """Both claims, not worse by more than the margin and worse by more, are wrong at most at the level."""
    design = TrialDesign(
        images=IMAGES, blocks=BLOCKS, spread=SPREAD, shift=0.4, margin=0.4, correlation=correlation
    )
    found = rates(design, trials=TRIALS, seed=6)
    assert 0 < found.passed <= MOST_ALARMS
    assert 0 < found.regression <= MOST_ALARMS


def test_a_trial_is_the_same_for_the_same_seed():
    design = TrialDesign(images=1024, blocks=16, spread=3.0, shift=0.1, margin=0.1, correlation=0.5, rules=2)
    first, again = (trial(design, np.random.default_rng(7)) for _ in range(2))
    assert first == again
    assert len(first) == 2
    assert trial(design, np.random.default_rng(8)) != first


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_synthetic_pairs_have_the_spread_shift_and_correlation_of_their_design(correlation):
    design = TrialDesign(images=1024, blocks=16, spread=3.2, shift=0.3, margin=0.0, correlation=correlation)
    rng = np.random.default_rng(9)
    pairs = [synthetic_pair(design, rng) for _ in range(2000)]
    values = np.array([(ours.value, theirs.value) for ours, theirs in pairs])
    assert values.std(axis=0) == pytest.approx([0.1, 0.1], rel=0.06)  # 3.2 / sqrt(1024)
    assert (values[:, 0] - values[:, 1]).mean() == pytest.approx(0.3, abs=0.011)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(correlation, abs=0.07)
    assert np.mean([ours.se**2 for ours, _ in pairs]) == pytest.approx(0.01, rel=0.03)
    ours, _ = pairs[0]
    bar = jackknife(ours.value, ours.loo, sizes=ours.sizes)
    assert ours.se == pytest.approx(bar.stderr, rel=1e-12)
