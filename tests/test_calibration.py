"""The gate keeps its word: false alarms as rare as its level says, and shifts caught.

A gate of level alpha that is tried n times alarms falsely at most ``alpha + 3 sqrt(alpha (1 - alpha) / n)``
of the time, but for about three in a thousand such counts: 9.6 % of 200 trials, 16.9 % (5 alarms) of 30.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evalkit.calibration import Rate, highest_rate
from evalkit.calibration.real import DEFAULT, TOGETHER, real_trials, rules_of_all
from evalkit.calibration.synthetic import (
    CASES,
    LAWS,
    Case,
    SyntheticTrials,
    judged,
    record_of,
    record_of_influences,
    synthetic_trials,
)
from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.gate.facts import Rule
from evalkit.gate.rules import parse_rule
from evalkit.metrics import METRICS, compute_all
from evalkit.record import MetricResult, RunRecord
from evalkit.references import load_reference
from evalkit.shards import ShardLayout
from tests import gan_features

ALPHA = 0.05
POWER = Path(__file__).parents[1] / "benchmarks" / "gate_power.csv"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_200_synthetic_trials(case):
    found = synthetic_trials(case, trials=200, images=256, alpha=ALPHA)
    assert found.alarms.share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 200)
    assert found.caught.share >= 0.95
    assert found.holds


PAIRS, IMAGES = 30, 64


@pytest.fixture(scope="module")
def runs_of_the_bundled_gan():
    """60 runs of 64 images each: run k is images 64 k to 64 k + 63 of one stream of seeds.

    Features of the embedded protocol against its reference, the real photographs of CIFAR-10.
    """
    features = gan_features.kept()
    assert len(features) == 2 * PAIRS * IMAGES
    reference = load_reference("cifar10-jpeg-train").head("block", dimension=features.shape[1])
    metrics = [METRICS[name]() for name in ("fd", "kd", "cmmd", "precision", "density")]
    layout, records = ShardLayout(IMAGES), []
    for number, rows in enumerate(features.reshape(2 * PAIRS, IMAGES, -1)):
        blocks = [np.concatenate([rows[layout.indices(shard)] for shard in part]) for part in layout.blocks()]
        scores = compute_all(
            [(metric, FeatureSet(tuple(blocks)), reference) for metric in metrics],
            rng=lambda: np.random.default_rng(0),
        )
        results = tuple(
            MetricResult.from_score(score, metric=metric.name, variant="block")
            for metric, score in zip(metrics, scores, strict=True)
            if score is not None
        )
        records.append(record_of(results, images=IMAGES, base_seed=number))
    return tuple(records)


def test_the_features_of_the_bundled_gan_are_its_own():
    """What the file holds is what the GAN and the network give today, but for float16."""
    np.testing.assert_allclose(gan_features.kept()[:16], gan_features.drawn(16), rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_30_real_pairs_of_the_bundled_gan(runs_of_the_bundled_gan):
    found = real_trials(runs_of_the_bundled_gan, (), alpha=ALPHA)
    assert [trials.name for trials in found][-2:] == [TOGETHER, DEFAULT]
    assert len(found) == 7
    for trials in found:
        assert trials.alarms.trials == PAIRS
        assert trials.alarms.share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / PAIRS), trials
        assert trials.caught is None or trials.caught.share >= 0.95, trials
    for trials in found[:5]:
        assert trials.ratio is not None
        assert 0.6 < trials.ratio < 1.5, trials  # 3 errors of 13 % each, and what few blocks add


@pytest.mark.slow
def test_error_bars_that_lie_are_found(runs_of_the_bundled_gan):
    """The same pairs with error bars of a third: a regression is then found in three pairs of ten."""
    lying = [_with_errors(record, 1 / 3) for record in runs_of_the_bundled_gan]
    found = real_trials(lying, (), alpha=ALPHA)
    assert sum(not trials.holds for trials in found) >= 4
    assert all(trials.ratio < 0.6 for trials in found if trials.ratio is not None)


def test_the_same_seeds_need_fewer_images():
    """A shift is caught more often with 64 images from the same seeds than with 256 from others."""
    shift = 2.5 * math.sqrt(2 / 256)
    few, many = _power(paired=True, images=64, shift=shift), _power(paired=False, images=256, shift=shift)
    assert few > many + 0.1
    assert few > 0.95


@pytest.mark.parametrize("metric", ["cmmd", "fd"])
def test_the_measured_figure_says_the_same(metric):
    """`benchmarks/gate_power.csv`: images a side from which four of five regressions are found."""
    rows = _measured(metric)

    def needed(mode):
        found = [row for row in rows if row["mode"] == mode and float(row["share"]) >= 0.8]
        return min(int(row["images"]) for row in found)

    assert needed("paired") * 4 <= needed("unpaired")
    equal = [row for row in rows if row["mode"] == "equal"]
    trials = sum(int(row["disjoint"]) for row in equal)
    alarms = sum(float(row["share"]) * int(row["disjoint"]) for row in equal)
    assert alarms / trials <= highest_rate(ALPHA, trials)


def test_the_measured_saving_of_the_anytime_mode():
    early = [row for row in _measured("cmmd") if row["mode"].startswith("anytime")]
    assert len(early) == 12
    for row in early:
        assert float(row["drawn"]) < int(row["images"])
        assert row["wrong"] == "0"
        if int(row["images"]) >= 512:
            assert float(row["drawn"]) <= 0.55 * int(row["images"])
            assert float(row["share"]) == 1


def _measured(metric):
    with POWER.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["metric"] == metric]


def _power(*, paired, images, shift):
    caught = 0
    for trial in range(100):
        rng = np.random.default_rng([3, trial])
        before, own = rng.standard_normal((2, 1, images))
        after = (0.9 * before + math.sqrt(1 - 0.9**2) * own if paired else own) + shift
        baseline = record_of_influences(before, base_seed=0)
        candidate = record_of_influences(after, base_seed=0 if paired else 1)
        rules = [Rule(metric="distance-0", mode="stat")]
        caught += judged(candidate, baseline, rules, ALPHA).status == "regression"
    return caught / 100


def _with_errors(record, factor):
    results = tuple(replace(result, se=result.se * factor) for result in record.results)
    return replace(record, results=results)


@given(st.integers(1, 400), st.data())
def test_intervals_are_the_exact_binomial_ones(trials, data):
    rate = Rate(data.draw(st.integers(0, trials)), trials)
    low, high = rate.interval()
    exact = binomtest(rate.count, trials).proportion_ci(0.95, "exact")
    assert low == pytest.approx(exact.low, abs=1e-9)
    assert high == pytest.approx(exact.high, abs=1e-9)
    assert low <= rate.share <= high


@pytest.mark.parametrize(("count", "trials"), [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_no_rate_from_nothing(count, trials):
    with pytest.raises(InvalidInputError, match="no rate"):
        Rate(count, trials)


def test_the_highest_rate():
    assert highest_rate(0.05, 200) == pytest.approx(0.0962, abs=1e-4)
    assert highest_rate(0.05, 30) == pytest.approx(0.1694, abs=1e-4)
    # A gate that keeps its level shows more in about three of a thousand counts.
    for trials in (30, 200, 2000):
        beyond = math.floor(highest_rate(0.05, trials) * trials) + 1
        assert binomtest(beyond, trials, 0.05, alternative="greater").pvalue < 0.006


@pytest.mark.parametrize("law", LAWS)
def test_influences_are_standard(law):
    drawn = LAWS[law](np.random.default_rng(0), (1, 200_000))
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.06)


def test_a_synthetic_record_is_that_of_a_run():
    influences = np.random.default_rng(0).standard_normal((2, 256))
    record = record_of_influences(influences, base_seed=4)
    assert [result.metric for result in record.results] == ["distance-0", "distance-1"]
    for result, row in zip(record.results, influences, strict=True):
        assert result.value == pytest.approx(10 + row.mean())
        assert result.se == pytest.approx(row.std() / 16, rel=0.5)
        assert result.blocks.sizes == (16,) * 16
        assert result.blocks.loo[0] == pytest.approx(10 + row[16:].mean())
    assert record.sampling.seeds.base == 4
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("caught", "trials", "holds"),
    [(2, 3, True), (1, 3, False), (18, 19, True), (19, 20, True), (18, 20, False), (189, 200, False)],
)
def test_one_shift_in_twenty_may_be_missed(caught, trials, holds):
    found = SyntheticTrials(CASES[0], 64, ALPHA, alarms=Rate(0, trials), caught=Rate(caught, trials))
    assert found.holds is holds


def test_the_same_seed_gives_the_same_trials():
    case = Case("skewed", paired=True)
    one = synthetic_trials(case, trials=20, images=64, alpha=0.2, seed=3)
    assert one == synthetic_trials(case, trials=20, images=64, alpha=0.2, seed=3)
    assert one.alarms.trials == one.caught.trials == 20


def test_pairs_are_judged_as_pairs():
    rules = [Rule(metric="distance-0", mode="stat")]
    influences = np.random.default_rng(0).standard_normal((1, 64))
    before = record_of_influences(influences, base_seed=0)
    same = judged(record_of_influences(influences + 0.1, base_seed=0), before, rules, ALPHA).outcomes[0]
    other = judged(record_of_influences(influences + 0.1, base_seed=1), before, rules, ALPHA).outcomes[0]
    assert (same.errors, other.errors) == ("paired", "unpaired")
    assert same.status == "regression"
    assert other.status == "inconclusive"
    assert same.se == pytest.approx(0, abs=1e-9)


def _equals(count, *, images=64, metrics=1, seed=0):
    rng = np.random.default_rng(seed)
    return [
        record_of_influences(rng.standard_normal((metrics, images)), base_seed=number)
        for number in range(count)
    ]


def test_every_score_is_a_rule_of_its_own():
    found = real_trials(_equals(8, metrics=3), (), alpha=ALPHA)
    assert [trials.name for trials in found] == ["distance-0", "distance-1", "distance-2", TOGETHER, DEFAULT]
    assert all(trials.alarms.trials == 4 for trials in found)
    assert [trials.ratio is None for trials in found] == [False, False, False, True, True]


def test_given_rules_are_judged_as_they_are():
    rules = (parse_rule("distance-0 rel=5%"), parse_rule("distance-1 abs"))
    found = real_trials(_equals(40, metrics=2), rules, alpha=ALPHA)
    assert [trials.name for trials in found] == ["distance-0 rel=5%", "distance-1 abs", TOGETHER]
    within, plain, _ = found
    assert within.alarms.count == 0
    assert within.holds
    assert plain.alarms.count > 4  # a plain difference without a margin is a toss
    assert not plain.holds
    assert plain.stderr is None


def test_one_pair_is_in_one_trial():
    """A run that is far off spoils its own pair and no other."""
    records = _equals(6, seed=2)
    records[3] = record_of_influences(np.random.default_rng(9).standard_normal((1, 64)) + 9, base_seed=3)
    (found,) = real_trials(records, (parse_rule("distance-0"),), alpha=ALPHA)
    assert found.alarms == Rate(1, 3)


def test_scores_without_error_bars_are_no_rules():
    record = _equals(1, metrics=2)[0]
    bare = replace(record, results=(record.results[0], replace(record.results[1], se=None)))
    assert [rule.metric for rule in rules_of_all(bare)] == ["distance-0"]
    with pytest.raises(NothingMeasuredError, match="no score has an error bar"):
        rules_of_all(replace(record, results=tuple(replace(r, se=None) for r in record.results)))


def test_a_rule_that_nothing_fits():
    with pytest.raises(NothingMeasuredError, match="'fidd'") as caught:
        real_trials(_equals(2), (parse_rule("fidd"),), alpha=ALPHA)
    assert "distance-0" in caught.value.hint


def test_a_shift_of_a_score_that_is_better_when_higher():
    records = [
        replace(record, results=tuple(replace(r, direction="higher") for r in record.results))
        for record in _equals(20)
    ]
    (found,) = real_trials(records, (parse_rule("distance-0"),), alpha=ALPHA)
    assert found.caught.count >= 9


def test_scores_that_never_vary_alarm_never():
    results = tuple(replace(r, value=0.0, se=0.0, ci=None) for r in _equals(1)[0].results)
    records = [record_of(results, images=64, base_seed=number) for number in range(4)]
    (found,) = real_trials(records, (parse_rule("distance-0"),), alpha=ALPHA)
    assert found.alarms.count == 0
    assert found.ratio is None
    assert found.caught is None
