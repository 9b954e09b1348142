"""fd-infinity against a closed form, an oracle with scipy's general matrix root, and its own conventions."""

import hashlib
import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics.frechet_infinity import FrechetInfinity
from evalkit.numerics import block_edges, jackknife


class Reference:
    def __init__(self, mean, covariance, count=1000):
        self.mean, self.covariance, self.count = mean, covariance, count


def features(seed, n, d=4, scale=1.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale).astype(np.float32)


def compute(metric, x, reference, blocks=1, seed=0):
    parts = tuple(x[i:j] for i, j in itertools.pairwise(block_edges(len(x), blocks)))
    return metric.compute(FeatureSet(parts), reference, rng=np.random.default_rng(seed))


def frechet_by_sqrtm(x, reference):
    mean, cov = x.mean(axis=0), np.cov(x, rowvar=False)
    root = sqrtm(cov @ reference.covariance)
    gap = mean - reference.mean
    return float(gap @ gap + np.trace(cov) + np.trace(reference.covariance) - 2 * np.trace(root).real)


def oracle(x, reference, *, points, fraction, seed):
    """Chong & Forsyth 2020, section 3.1, written from the paper with numpy and scipy only."""
    key = np.random.default_rng(seed).bytes(32)
    order = np.argsort([hashlib.blake2b(r.tobytes(), digest_size=16, key=key).hexdigest() for r in x])
    smallest = max(int(np.ceil(fraction * len(x))), 2 * x.shape[1])
    sizes = np.linspace(smallest, len(x), points).astype("int32")
    distances = [frechet_by_sqrtm(x[order[:n]].astype(np.float64), reference) for n in sizes]
    design = np.stack([np.ones(points), 1 / sizes], axis=1)
    return np.linalg.lstsq(design, np.asarray(distances), rcond=None)[0]


@pytest.mark.parametrize(
    ("points", "fraction", "n", "d"), [(15, 0.1, 400, 5), (6, 0.3, 300, 12), (2, 0.5, 64, 16)]
)
def test_oracle(points, fraction, n, d):
    rng = np.random.default_rng(d)
    mixing = rng.standard_normal((d, d))
    reference = Reference(rng.standard_normal(d), mixing @ mixing.T + 0.1 * np.eye(d))
    x = features(1, n, d)
    score = compute(FrechetInfinity(points=points, fraction=fraction), x, reference, seed=3)
    limit, slope = oracle(x, reference, points=points, fraction=fraction, seed=3)
    assert score.value == pytest.approx(limit, rel=1e-7)
    assert score.details["slope"] == pytest.approx(slope, rel=1e-6)


def test_limit_of_gaussians_is_the_closed_form():
    # |m|^2 + sum (s - s_r)^2 for diagonal covariances; 1 500 images of 6 dimensions, 25 repetitions
    scale = np.linspace(0.5, 2, 6)
    reference = Reference(np.full(6, 0.3), np.diag((scale + 0.4) ** 2))
    truth = 6 * 0.09 + 6 * 0.16
    scores = [compute(FrechetInfinity(), features(s, 1500, 6, scale), reference) for s in range(25)]
    values = np.array([s.value for s in scores])
    assert abs(values.mean() - truth) < 3 * values.std() / 5


def test_error_bar_is_the_spread():
    reference = Reference(np.full(6, 0.3), 2 * np.eye(6))
    scores = [
        compute(FrechetInfinity(points=6), features(s, 600, 6), reference, blocks=12) for s in range(60)
    ]
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.mean([s.stderr for s in scores]) == pytest.approx(spread, rel=0.25)  # 9 % from 60 repetitions
    assert scores[0].ci.low + scores[0].ci.high == pytest.approx(2 * scores[0].value)


def test_error_bar_of_a_perfect_model_is_the_spread():
    """1.3 to 1.5 times too wide before the second order counted once."""
    reference = Reference(np.zeros(8), np.eye(8))
    scores = [
        compute(FrechetInfinity(points=6), features(s, 120, 8), reference, blocks=12) for s in range(80)
    ]
    spread = np.std([s.value for s in scores], ddof=1)
    bars = np.sqrt(np.mean([s.stderr**2 for s in scores]))
    assert bars == pytest.approx(spread, rel=0.24)  # 8 % from 80 repetitions
    plain = [jackknife(s.value, s.blocks, sizes=s.block_sizes).stderr for s in scores]
    assert np.sqrt(np.mean(np.square(plain))) > 1.2 * bars


def test_blocks_take_the_block_out_of_each_subset():
    x, n = features(2, 100), 100
    reference = Reference(np.full(4, 0.1), np.diag([1.0, 2.0, 0.5, 1.5]))
    score = compute(FrechetInfinity(points=4), x, reference, blocks=5, seed=7)
    key = np.random.default_rng(7).bytes(32)
    order = np.argsort([hashlib.blake2b(r.tobytes(), digest_size=16, key=key).hexdigest() for r in x])
    for block in range(5):
        subsets = [order[:size] for size in np.linspace(10, n, 4).astype(int)]
        subsets = [s[(s < 20 * block) | (s >= 20 * block + 20)] for s in subsets]
        distances = [frechet_by_sqrtm(x[s].astype(np.float64), reference) for s in subsets]
        limit = np.polyfit([1 / len(s) for s in subsets], distances, 1)[1]
        assert score.blocks[block] == pytest.approx(limit, rel=1e-6)


def test_seed_is_the_only_chance():
    x, reference = features(0, 300), Reference(np.zeros(4), np.eye(4))
    first, again, other = (compute(FrechetInfinity(), x, reference, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.value != other.value
    assert abs(first.value - other.value) < 0.2


def test_few_images():
    reference = Reference(np.zeros(4), np.eye(4))
    with pytest.raises(InvalidInputError, match="at least 16"):
        compute(FrechetInfinity(), features(0, 15), reference)
    # Two rows missing leave each subset its full rank; four may be half of the smallest one, and are here.
    assert compute(FrechetInfinity(), features(0, 16), reference, blocks=8).stderr is not None
    assert compute(FrechetInfinity(), features(0, 16), reference, blocks=4).stderr is None
    assert compute(FrechetInfinity(), features(0, 16), reference, blocks=3).stderr is None


@pytest.mark.parametrize("options", [{"points": 1}, {"fraction": 0.0}, {"fraction": 1.0}])
def test_options(options):
    with pytest.raises(UsageError):
        FrechetInfinity(**options)


def test_spec_holds_what_moves_the_number():
    assert dict(FrechetInfinity().spec.params) == {"points": 15, "fraction": 0.1}
