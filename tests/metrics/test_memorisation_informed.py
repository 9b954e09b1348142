"""``mifd`` against torchmetrics on equal features, and what it says about copies."""

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics.frechet import FrechetDistance
from evalkit.metrics.memorisation_informed import MemorisationInformedDistance
from evalkit.numerics import block_edges
from evalkit.references.heads import Bank, HeadStatistics


def features(seed, n, d=5, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def reference(x, count=None):
    bank = Bank.of(x, np.arange(len(x)))
    return HeadStatistics(count or len(x), x.mean(axis=0, dtype=float), np.cov(x.T.astype(float)), bank)


def compute(x, real, blocks=1, **options):
    edges = block_edges(len(x), blocks)
    parts = tuple(x[i:j] for i, j in itertools.pairwise(edges))
    metric = MemorisationInformedDistance(**options)
    return metric.compute(FeatureSet(parts), real, rng=np.random.default_rng(0))


def peer(generated, real, epsilon):
    """torchmetrics on given features.

    It takes the nearest *generated* row of each real one; the paper takes the nearest real row of each
    generated one. So the sides are handed over swapped: the Fréchet distance does not notice.
    """
    metric = MemorizationInformedFrechetInceptionDistance(torch.nn.Identity(), cosine_distance_eps=epsilon)
    metric.update(torch.from_numpy(generated).double(), real=True)
    metric.update(torch.from_numpy(real).double(), real=False)
    return float(metric.compute())


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("shift", "seed"), [(0.0, 0), (1.0, 1), (4.0, 2)])
def test_equals_torchmetrics_on_both_sides_of_the_threshold(epsilon, shift, seed):
    x, y = features(seed, 60, shift=shift), features(seed + 10, 80, shift=shift)
    score = compute(x, reference(y), epsilon=epsilon)
    assert score.value == pytest.approx(peer(x, y, epsilon), rel=1e-8)


def test_the_oracle_covers_both_branches_and_knows_no_abs_of_ours_alone():
    x, y = features(0, 60), features(10, 80)
    distance = compute(x, reference(y)).details["memorisation_distance"]
    assert 0.01 < distance < 0.1
    negated = compute(-x, reference(y))
    assert negated.details["memorisation_distance"] == pytest.approx(distance, rel=1e-12)
    assert negated.value == pytest.approx(peer(-x, y, 0.1), rel=1e-8)


def test_the_direction_is_from_generated_to_reference():
    """A generator that copies one image is punished, though the other reference images have no copy."""
    y = np.concatenate([features(0, 50, 8), features(1, 50, 8)])
    collapsed = y[:1] * np.random.default_rng(2).uniform(0.5, 2, (40, 1)).astype(np.float32)
    score = compute(collapsed, reference(y))
    assert score.details["memorisation_distance"] < 1e-12
    assert score.value > 1e6 * score.details["frechet_distance"]
    other_way = MemorizationInformedFrechetInceptionDistance(torch.nn.Identity())
    other_way.update(torch.from_numpy(y).double(), real=True)
    other_way.update(torch.from_numpy(collapsed).double(), real=False)
    assert float(other_way.compute()) == pytest.approx(score.details["frechet_distance"], rel=1e-6)


def test_above_the_threshold_it_is_the_frechet_distance():
    x, y = features(0, 60, 40), features(1, 80, 40)
    score, plain = compute(x, reference(y), blocks=6), _frechet(x, y, 6)
    assert score.value == pytest.approx(plain.value, rel=1e-13)
    assert score.stderr == pytest.approx(plain.stderr, rel=1e-10)
    assert not any("memorisation" in warning for warning in score.warnings)


def _frechet(x, y, blocks):
    edges = block_edges(len(x), blocks)
    parts = tuple(x[i:j] for i, j in itertools.pairwise(edges))
    return FrechetDistance().compute(FeatureSet(parts), reference(y), rng=np.random.default_rng(0))


def test_copies_are_punished_and_named():
    y = features(0, 100)
    copies = y[np.random.default_rng(1).choice(100, 50, replace=False)]
    fresh = features(2, 50)
    copied, honest = compute(copies, reference(y), blocks=5), compute(fresh, reference(y), blocks=5)
    assert copied.details["memorisation_distance"] == 0
    assert copied.value == pytest.approx(copied.details["frechet_distance"] / 1e-14, rel=1e-9)
    assert copied.value > 1e6 * honest.value
    assert any(w.startswith("memorisation: the mean cosine distance") for w in copied.warnings)


def test_identity_is_zero_as_published():
    y = features(0, 60)
    assert compute(y, reference(y)).value == 0
    assert peer(y, y, 0.1) == 0


def test_leave_one_block_out_is_exact():
    x, y = features(0, 60), features(10, 80)
    score = compute(x, reference(y), blocks=6)
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[10 * block : 10 * block + 10], axis=0)
        assert value == pytest.approx(compute(rest, reference(y)).value, rel=1e-6)


def test_zeros_have_no_nearest_image_as_in_torchmetrics():
    x, y = features(0, 30), features(10, 40)
    x[:3], y[5] = 0, 0
    score = compute(x, reference(y), epsilon=0.5)
    assert score.value == pytest.approx(peer(x, y, 0.5), rel=1e-8)
    assert any("3 of 30" in w and "zeros" in w for w in score.warnings)
    with pytest.raises(InvalidInputError, match="zero"):
        compute(np.zeros((4, 5), np.float32), reference(y))


def test_a_bank_of_some_images_is_said():
    y = features(1, 40)
    score = compute(features(0, 30), reference(y, count=50_000))
    assert any("among 40 of 50000" in warning for warning in score.warnings)
    assert score.n_reference == 40


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(NothingMeasuredError, match="individual features"):
        compute(features(0, 9), HeadStatistics(9, np.zeros(5), np.eye(5)))
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(features(0, 1), reference(features(1, 9)))
    for epsilon in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="epsilon"):
            MemorisationInformedDistance(epsilon=epsilon)
