"""Metrics of pairs: means, error bars, infinite and missing values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics import METRICS
from evalkit.numerics import block_edges
from evalkit.perceptual import PAIR_MEASURES

NAMES = ("psnr", "ssim", "ms-ssim", "lpips", "pd", "style")
every = pytest.mark.parametrize("name", NAMES)


def values(seed=0, n=30):
    return np.random.default_rng(seed).uniform(0.1, 0.9, n).astype(np.float32)


def compute(metric, column, *, blocks=5):
    edges = block_edges(len(column), blocks)
    parts = tuple(np.asarray(column, dtype=np.float32)[i:j, None] for i, j in itertools.pairwise(edges))
    return metric.compute(FeatureSet(parts), None, rng=np.random.default_rng(0))


@every
def test_mean_error_and_blocks(name):
    column = values()
    score = compute(METRICS[name](), column)
    wide = column.astype(np.float64)
    assert score.value == pytest.approx(wide.mean(), rel=1e-12)
    assert score.stderr == pytest.approx(stats.sem(wide), rel=1e-12)
    low, high = stats.t.interval(0.95, 29, loc=wide.mean(), scale=stats.sem(wide))
    assert (score.ci.low, score.ci.high) == pytest.approx((low, high), rel=1e-12)
    assert score.ci.method == "mean-t"
    for number, left_out in enumerate(score.blocks):
        rest = np.delete(wide.reshape(5, 6), number, axis=0)
        assert left_out == pytest.approx(rest.mean(), rel=1e-12)
    assert score.block_sizes == (6,) * 5
    assert score.n == 30
    assert score.details["std"] == pytest.approx(wide.std(ddof=1), rel=1e-12)
    assert not score.warnings


@every
def test_facts(name):
    metric = METRICS[name]
    assert metric.reads == "pairs"
    assert not metric.needs_reference
    assert metric.minimum_images is not None
    about = metric.about
    for text in (about.meaning, about.values, about.pitfalls, about.cost, about.source):
        assert len(text) > 10
    assert METRICS[name](**dict(metric().spec.params)) == metric()


@every
def test_the_head_is_a_pair_measure(name):
    metric = METRICS[name]()
    assert PAIR_MEASURES[metric.head].metric == name
    assert METRICS[name](region="inside").head == f"{metric.head}/inside"
    assert METRICS[name](region="inside").spec != metric.spec


def test_every_pair_measure_is_the_head_of_a_metric():
    heads = {METRICS[name](channels=channels).head for name in ("psnr", "ssim") for channels in ("rgb", "y")}
    heads |= {METRICS["lpips"](network=net).head for net in ("alex", "vgg", "squeeze")}
    networks = ("efficientnet-lite0", "vgg16", "alexnet", "squeezenet1_1")
    heads |= {METRICS["pd"](network=net).head for net in networks}
    heads |= {METRICS["style"](network=net).head for net in networks[:2]}
    assert heads | {METRICS["ms-ssim"]().head} == set(PAIR_MEASURES)


def test_unknown_channels_are_refused():
    with pytest.raises(UsageError, match="'rgb' or 'y'"):
        _ = METRICS["ssim"](channels="lab").head


def test_identical_pairs_are_counted_and_left_out():
    column = values()
    column[[3, 17]] = np.inf
    score = compute(METRICS["psnr"](), column)
    finite = column[np.isfinite(column)].astype(np.float64)
    assert score.value == pytest.approx(finite.mean(), rel=1e-12)
    assert score.stderr == pytest.approx(stats.sem(finite), rel=1e-12)
    assert score.details["identical_pairs"] == 2
    assert score.n == 30
    assert any("2 of 30 pairs are identical" in warning for warning in score.warnings)
    assert all(math.isfinite(value) for value in (*score.blocks, *score.details.values()))
    assert compute(METRICS["psnr"](), values()).details["identical_pairs"] == 0


def test_nothing_but_identical_pairs_has_no_mean():
    with pytest.raises(NothingMeasuredError, match="30 of 30 pairs are identical"):
        compute(METRICS["psnr"](), np.full(30, np.inf))


@every
def test_pairs_without_the_region_are_counted_and_left_out(name):
    column = values()
    column[:6] = np.nan
    score = compute(METRICS[name](region="face"), column)
    assert score.value == pytest.approx(column[6:].astype(np.float64).mean(), rel=1e-12)
    assert score.details["pairs_without_region"] == 6
    assert any("6 of 30 pairs have no pixel" in warning for warning in score.warnings)
    assert score.blocks[0] == pytest.approx(score.value, rel=1e-12)
    with pytest.raises(NothingMeasuredError, match="30 have no pixel"):
        compute(METRICS[name](region="face"), np.full(30, np.nan))


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_other_values_that_are_not_finite_are_refused(name, bad):
    if name == "psnr" and bad == np.inf:
        return
    column = values()
    column[4] = bad
    with pytest.raises(InvalidInputError, match="1 pairs"):
        compute(METRICS[name](), column)


def test_few_pairs():
    one = compute(METRICS["ssim"](), values(n=1), blocks=1)
    assert (one.stderr, one.ci, one.blocks, one.block_sizes) == (None, None, (), ())
    wrong = ((np.empty((0, 1), np.float32), "at least 1 pairs"), (np.ones((4, 2), np.float32), r"\[n, 1\]"))
    for block, message in wrong:
        with pytest.raises(InvalidInputError, match=message):
            METRICS["ssim"]().compute(FeatureSet((block,)), None, rng=np.random.default_rng(0))


@every
def test_order_does_not_matter(name):
    mixed = np.random.default_rng(5).permutation(values())
    assert compute(METRICS[name](), mixed).value == pytest.approx(compute(METRICS[name](), values()).value)


def test_two_pairs_in_one_block_have_an_error_bar():
    one, two = (compute(METRICS["ssim"](), values(n=2), blocks=b) for b in (1, 2))
    assert (one.stderr, one.ci) == (two.stderr, two.ci)
    assert one.stderr > 0
    assert (one.blocks, one.block_sizes) == ((), ())
