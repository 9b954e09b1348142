"""What each metric reports beyond the contract: warnings, published forms, conditions of its error bar."""

import itertools

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics.frechet import FrechetDistance
from evalkit.metrics.inception_score import InceptionScoreMetric
from evalkit.metrics.kernel import KernelDistance
from evalkit.metrics.precision_recall import Coverage, Density, Precision, Recall
from evalkit.numerics import (
    block_edges,
    frechet_distance_from_features,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
    precision_recall_density_coverage,
)


class Reference:
    def __init__(self, bank):
        self.bank = bank
        self.count = len(bank)
        self.mean = bank.astype(np.float64).mean(axis=0)
        self.covariance = np.cov(bank.astype(np.float64), rowvar=False)


class MomentsOnly:
    count, mean, covariance = 1000, np.zeros(4), np.eye(4)

    @property
    def bank(self):
        raise NothingMeasuredError("moments only")


def features(seed, n, d=4):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def compute(metric, x, reference, blocks=1, seed=0):
    edges = block_edges(len(x), blocks)
    parts = tuple(x[i:j] for i, j in itertools.pairwise(edges))
    return metric.compute(FeatureSet(parts), reference, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("n", "warning", "corrected"),
    [(4, "small sample, rank-deficient", False), (5, "small sample", False), (11, "small sample", False),
     (12, "small sample", True), (19, "small sample", True), (20, None, True)],
)  # fmt: skip
def test_frechet_says_what_its_sample_is_good_for(n, warning, corrected):
    score = compute(FrechetDistance(), features(0, n), Reference(features(1, 50)), blocks=2)
    assert [w.split(":")[0] for w in score.warnings] == ([warning] if warning else [])
    assert (score.bias_corrected is not None) == corrected
    assert score.value == pytest.approx(
        frechet_distance_from_features(features(0, n), features(1, 50)), rel=1e-9
    )


def test_frechet_bias_correction_moves_towards_the_truth():
    raw, corrected = [], []
    for seed in range(40):
        score = compute(FrechetDistance(), features(seed, 60), MomentsOnly(), blocks=10)
        raw.append(score.value)
        corrected.append(score.bias_corrected)
    assert abs(np.mean(corrected)) < 0.25 * np.mean(raw)


def test_frechet_of_two_images_has_no_error_bar():
    score = compute(FrechetDistance(), features(0, 2), Reference(features(1, 50)), blocks=2)
    assert score.stderr is None


def test_frechet_takes_uneven_blocks():
    x = features(0, 30)
    score = FrechetDistance().compute(
        FeatureSet((x[:5], x[5:21], x[21:])), MomentsOnly(), rng=np.random.default_rng(0)
    )
    assert score.block_sizes == (5, 16, 9)
    assert score.stderr > 0


def test_kernel_headline_is_exact_or_the_published_mean():
    x, y = features(0, 40), features(1, 50)
    exact = compute(KernelDistance(), x, Reference(y), blocks=4)
    assert exact.value == pytest.approx(kernel_distance(x, y), rel=1e-11)
    assert exact.bias_corrected is None
    assert exact.details == {}
    published = compute(KernelDistance(subsets=9, subset_size=20), x, Reference(y), blocks=4)
    by_hand = kernel_distance_subsets(x, y, subsets=9, subset_size=20, rng=np.random.default_rng(0))
    assert published.value == by_hand.mean
    assert published.details["subset_std"] == by_hand.std
    assert published.details["exact"] == pytest.approx(exact.value, rel=1e-12)
    assert published.stderr == exact.stderr
    assert published.ci.low + published.ci.high == pytest.approx(2 * published.value)


def test_kernel_needs_whole_subsets():
    with pytest.raises(InvalidInputError, match="at least 1000"):
        compute(KernelDistance(subsets=100), features(0, 40), Reference(features(1, 50)))


@pytest.mark.parametrize("metric", [KernelDistance(), Precision(), Recall(), Density(), Coverage()])
def test_moments_are_not_enough_for_neighbours_and_kernels(metric):
    with pytest.raises(NothingMeasuredError, match="moments only"):
        compute(metric, features(0, 40), MomentsOnly())


def test_kernel_spec_names_a_subset_size_only_where_it_counts():
    assert dict(KernelDistance().spec.params) == {"subsets": None}
    assert dict(KernelDistance(subsets=7).spec.params) == {"subsets": 7, "subset_size": 1000}


def test_inception_score_forms():
    x = features(0, 60, 7) * 4
    assert compute(InceptionScoreMetric(), x, None).value == pytest.approx(inception_score(x).mean, rel=1e-12)
    chunks = compute(InceptionScoreMetric(chunk_size=25), x, None, blocks=3)
    assert chunks.value == pytest.approx(inception_score(x, chunk=25).mean, rel=1e-12)
    assert len(chunks.blocks) == 3
    shuffled = compute(InceptionScoreMetric(splits=5, shuffle_seed=2020), x, None)
    expected = inception_score(x, 5, shuffle_seed=2020)
    assert (shuffled.value, shuffled.details["split_std"]) == pytest.approx((expected.mean, expected.std))
    assert dict(InceptionScoreMetric(chunk_size=9).spec.params) == {"chunk_size": 9, "shuffle_seed": None}


@pytest.mark.parametrize("options", [{"splits": 0}, {"chunk_size": 0}])
def test_inception_score_options(options):
    with pytest.raises(UsageError):
        InceptionScoreMetric(**options)


def test_inception_score_without_spare_images_has_no_error_bar():
    assert compute(InceptionScoreMetric(), features(0, 11), None, blocks=2).stderr is None


@pytest.mark.parametrize("metric", [Precision, Recall, Density, Coverage])
def test_neighbour_metrics_are_views_of_one_function(metric):
    x, y = features(0, 40), features(1, 50)
    for k, inclusive in ((3, True), (5, False)):
        scores = precision_recall_density_coverage(x, y, k=k, inclusive=inclusive)
        measured = compute(metric(k=k, inclusive=inclusive), x, Reference(y))
        assert measured.value == getattr(scores, metric.name)
    with pytest.raises(UsageError, match="must be 1 or more"):
        metric(k=0)


def test_published_defaults():
    assert [(m().k, m().inclusive) for m in (Precision, Recall)] == [
        (3, True)
    ] * 2  # Kynkäänniemi et al. 2019
    assert [(m().k, m().inclusive) for m in (Density, Coverage)] == [(5, False)] * 2  # Naeem et al. 2020


def test_mode_collapse_fixes_the_direction():
    rng = np.random.default_rng(0)
    reference = np.concatenate([c + rng.standard_normal((30, 4)) for c in (0, 50, 100)]).astype(np.float32)
    collapsed = (rng.standard_normal((90, 4)) * 0.5).astype(np.float32)
    assert compute(Precision(), collapsed, Reference(reference)).value > 0.95
    assert compute(Recall(), collapsed, Reference(reference)).value < 0.4
