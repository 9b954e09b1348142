"""``intra-fd``: the mean of Fréchet distances within classes, and what it refuses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.metrics.intra_frechet import IntraFrechetDistance
from evalkit.numerics import block_edges, frechet_distance_from_features, jackknife
from evalkit.references.heads import HeadStatistics

D = 4


def moments(x, classes=None):
    wide = x.astype(np.float64)
    return HeadStatistics(len(x), wide.mean(axis=0), np.cov(wide.T), classes=classes or {})


def reference(x, labels):
    return moments(x, {int(c): moments(x[labels == c]) for c in np.unique(labels)})


def sample(seed, n, classes=3, spread=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    centres = np.random.default_rng(99).standard_normal((classes, D)) * spread
    return (rng.standard_normal((n, D)) + centres[labels]).astype(np.float32), labels


def compute(x, labels, real, blocks=1):
    edges = list(itertools.pairwise(block_edges(len(x), blocks)))
    features = FeatureSet(tuple(x[i:j] for i, j in edges), labels=tuple(labels[i:j] for i, j in edges))
    return IntraFrechetDistance().compute(features, real, rng=np.random.default_rng(0))


def published(x, y):
    """Fréchet distance by scipy's matrix square root."""
    a, b = np.cov(x.T.astype(float)), np.cov(y.T.astype(float))
    shift = x.mean(axis=0, dtype=float) - y.mean(axis=0, dtype=float)
    return float(shift @ shift + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def test_is_the_mean_over_classes_of_the_published_distance():
    (x, mine), (y, theirs) = sample(0, 90), sample(1, 120)
    score = compute(x, mine, reference(y, theirs), blocks=5)
    by_hand = [published(x[mine == c], y[theirs == c]) for c in range(3)]
    assert score.value == pytest.approx(np.mean(by_hand), rel=1e-8)
    assert score.details == pytest.approx({f"class_{c}": v for c, v in enumerate(by_hand)}, rel=1e-8)
    assert (score.n, score.n_reference) == (90, 120)
    assert score.stderr > 0


def test_classes_count_the_same_however_rare():
    (x, mine), (y, theirs) = sample(0, 90), sample(1, 120)
    keep = (mine != 2) | (np.cumsum(mine == 2) <= 10)
    by_hand = [frechet_distance_from_features(x[keep][mine[keep] == c], y[theirs == c]) for c in range(3)]
    score = compute(x[keep], mine[keep], reference(y, theirs))
    assert score.value == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_ignored_labels_are_seen_where_the_plain_distance_sees_nothing():
    (x, mine), (y, theirs) = sample(0, 300, spread=6), sample(1, 300, spread=6)
    shuffled = np.random.default_rng(2).permutation(mine)
    real = reference(y, theirs)
    assert compute(x, shuffled, real).value > 20 * compute(x, mine, real).value


def test_collapse_within_a_class_is_seen():
    (x, mine), (y, theirs) = sample(0, 300), sample(1, 300)
    real = reference(y, theirs)
    collapsed = x.copy()
    collapsed[mine == 1] = x[mine == 1].mean(axis=0)
    good, bad = compute(x, mine, real), compute(collapsed, mine, real)
    assert bad.details["class_1"] > 10 * good.details["class_1"]
    assert bad.details["class_0"] == good.details["class_0"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 6))
def test_laws(seed, blocks):
    rng = np.random.default_rng(seed)
    (x, mine), (y, theirs) = sample([seed, 0], 60), sample([seed, 1], 45)
    value = compute(x, mine, reference(y, theirs), blocks).value
    assert value >= 0
    assert compute(y, theirs, reference(x, mine)).value == pytest.approx(value, rel=1e-8)
    order = rng.permutation(60)
    assert compute(x[order], mine[order], reference(y, theirs)).value == pytest.approx(value, rel=1e-8)
    assert compute(x, mine, reference(x, mine), blocks).value == pytest.approx(0, abs=1e-10)
    renamed = np.array([7, 0, 3])
    again = compute(x, renamed[mine], reference(y, renamed[theirs]), blocks)
    assert again.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("n", [12, 90])  # with no more images in a class than dimensions, and with more
def test_blocks_are_the_metric_without_each_block(n):
    (x, mine), (y, theirs) = sample(3, n), sample(4, 120)
    real = reference(y, theirs)
    score = compute(x, mine, real, blocks=3)
    assert len(score.blocks) == 3
    for block, (start, stop) in enumerate(itertools.pairwise(block_edges(n, 3))):
        keep = np.r_[0:start, stop:n]
        assert score.blocks[block] == pytest.approx(compute(x[keep], mine[keep], real).value, rel=1e-6)


def test_a_block_without_a_class_takes_nothing_from_it():
    (x, mine), (y, theirs) = sample(3, 90), sample(4, 120)
    order = np.concatenate(
        [np.flatnonzero(mine != 0)[:30], np.flatnonzero(mine == 0), np.flatnonzero(mine != 0)[30:]]
    )
    x, mine = x[order], mine[order]
    score = compute(x, mine, reference(y, theirs), blocks=3)
    assert set(mine[:30]) == {1, 2}
    assert score.blocks == ()  # the middle block holds all of class 0, and nothing is left of it without
    uneven = np.concatenate([np.arange(10, 45), np.arange(10), np.arange(45, 90)])
    score = compute(x[uneven], mine[uneven], reference(y, theirs), blocks=9)
    assert len(score.blocks) == 9
    for block, (start, stop) in enumerate(itertools.pairwise(block_edges(90, 9))):
        keep = np.r_[0:start, stop:90]
        rest = compute(x[uneven][keep], mine[uneven][keep], reference(y, theirs))
        assert score.blocks[block] == pytest.approx(rest.value, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "start", "corrected"),
    [(12, "small sample, rank-deficient: 3 of 3 classes", False), (30, "small sample: 3 of 3", False),
     (57, "small sample: 3 of 3", True), (60, None, True)],
)  # fmt: skip
def test_says_what_its_classes_are_good_for(n, start, corrected):
    (x, mine), (y, theirs) = sample(0, n), sample(1, 120)
    score = compute(x, mine, reference(y, theirs), blocks=2)
    assert [w.startswith(start or "-") for w in score.warnings] == ([True] if start else [])
    assert (score.bias_corrected is not None) == corrected


def test_a_rank_deficient_reference_is_flagged_too():
    (x, mine), (y, theirs) = sample(0, 90), sample(1, 120)
    keep = (theirs != 1) | (np.cumsum(theirs == 1) <= D)
    score = compute(x, mine, reference(y[keep], theirs[keep]))
    assert score.warnings[0].startswith("small sample, rank-deficient: 1 of 3 classes")


def test_what_does_not_fit_is_refused():
    (x, mine), (y, theirs) = sample(0, 60), sample(1, 60)
    real = reference(y, theirs)
    with pytest.raises(InvalidInputError, match="class 1 among the generated"):
        compute(x[mine != 1], mine[mine != 1], real)
    with pytest.raises(InvalidInputError, match="class 1 among the reference"):
        compute(x, mine, reference(y[theirs != 1], theirs[theirs != 1]))
    keep = (mine != 2) | (np.cumsum(mine == 2) == 1)
    with pytest.raises(InvalidInputError, match="at least 2 generated images of class 2, not 1"):
        compute(x[keep], mine[keep], real)
    with pytest.raises(InvalidInputError, match="at least 2 generated images, not 1"):
        compute(x[:1], mine[:1], real)
    with pytest.raises(NothingMeasuredError, match="no moments by class"):
        compute(x, mine, moments(y))
    with pytest.raises(InvalidInputError, match="class label of every"):
        IntraFrechetDistance().compute(FeatureSet((x,)), real, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="do not fit"):
        IntraFrechetDistance().compute(
            FeatureSet((x,), labels=(mine[:5],)), real, rng=np.random.default_rng(0)
        )


def test_many_missing_classes_are_cut_short():
    x = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
    with pytest.raises(InvalidInputError, match="class 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 19 more among"):
        compute(x, np.zeros(60, np.int64), reference(x, np.arange(60) % 30))


@pytest.mark.parametrize("n", [36, 240])  # 12 images a class in 16 dimensions, and 80
def test_error_bar_of_a_perfect_model_is_the_spread(n):
    """Known to 6 % from 160 repetitions; the jackknife alone is 1.25 and 1.5 times the spread.

    A share is not let below one half, which makes the mean share of so few pairs a little too large.
    """
    width = 16
    rng = np.random.default_rng(0)
    real = reference(rng.standard_normal((3000, width)), np.arange(3000) % 3)
    scores = [
        compute(
            np.random.default_rng(100 + r).standard_normal((n, width)).astype(np.float32),
            np.arange(n) % 3,
            real,
            blocks=12,
        )
        for r in range(160)
    ]
    spread = np.std([s.value for s in scores], ddof=1)
    bars = np.sqrt(np.mean([s.stderr**2 for s in scores]))
    plain = np.sqrt(np.mean([jackknife(s.value, s.blocks, sizes=s.block_sizes).stderr ** 2 for s in scores]))
    assert bars == pytest.approx(spread, rel=0.25)
    assert plain > 1.15 * bars


def test_a_model_far_from_the_reference_keeps_the_jackknife():
    (x, mine), (y, theirs) = sample(0, 300), sample(1, 300)
    score = compute(x + 3, mine, reference(y, theirs), blocks=10)
    plain = jackknife(score.value, score.blocks, sizes=score.block_sizes)
    assert score.stderr == pytest.approx(plain.stderr, rel=1e-12)
