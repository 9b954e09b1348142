"""What ``vendi`` reports: modes counted, an exact error bar, bounds at a low rank."""

import itertools

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics.vendi import VendiMetric
from evalkit.numerics import block_edges
from evalkit.numerics import vendi as module
from evalkit.numerics.vendi import vendi_score


def features(seed, n, d=6):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def compute(metric, x, blocks=1):
    edges = block_edges(len(x), blocks)
    parts = tuple(x[i:j] for i, j in itertools.pairwise(edges))
    return metric.compute(FeatureSet(parts), None, rng=np.random.default_rng(0))


def test_collapsed_modes_are_counted():
    modes = np.repeat(np.eye(6, dtype=np.float32)[:4], 10, axis=0) * 3
    score = compute(VendiMetric(), modes, blocks=5)
    assert score.value == pytest.approx(4, rel=1e-12)
    assert "36 of 40" in score.warnings[0]
    collapsed = compute(VendiMetric(), np.tile(features(0, 1), (20, 1)), blocks=4)
    assert collapsed.value == pytest.approx(1, rel=1e-12)
    assert collapsed.stderr == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [4, 80])
@pytest.mark.parametrize(("order", "q"), [(1.0, 1.0), (0.5, 0.5), ("inf", np.inf)])
def test_blocks_are_exact_on_both_sides_of_n_equals_d(d, order, q):
    x = features(1, 40, d)
    score = compute(VendiMetric(order=order), x, blocks=4)
    assert score.value == pytest.approx(vendi_score(x, order=q).value, rel=1e-12)
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[10 * block : 10 * block + 10], axis=0)
        assert value == pytest.approx(vendi_score(rest, order=q).value, rel=1e-9)
    assert score.stderr > 0
    assert score.bias_corrected is None


def test_a_low_rank_says_how_far_off_it_can_be(monkeypatch):
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)  # low ranks take effect at any size
    x = features(2, 60, 30) * 0.8 ** np.arange(30, dtype=np.float32)
    score, exact = compute(VendiMetric(rank=12), x, blocks=3), compute(VendiMetric(), x)
    assert score.details["lower"] <= exact.value <= score.details["upper"]
    assert score.details["lower"] <= score.value <= score.details["upper"]
    assert exact.details == {}
    assert compute(VendiMetric(rank=12), x, blocks=3) == score


def test_the_spec_holds_every_parameter():
    assert dict(VendiMetric().spec.params) == {"order": 1.0, "rank": 0}
    assert VendiMetric(order="inf").spec.digest() != VendiMetric().spec.digest()


@pytest.mark.parametrize(
    "options", [{"order": 0.0}, {"order": -1.0}, {"order": float("inf")}, {"order": "all"}, {"rank": -1}]
)
def test_options(options):
    with pytest.raises(UsageError, match="positive order"):
        VendiMetric(**options)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(VendiMetric(), features(0, 1))
    x = features(0, 10)
    x[3] = 0
    with pytest.raises(InvalidInputError, match="zeros"):
        compute(VendiMetric(), x)
