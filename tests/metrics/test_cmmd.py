"""What ``cmmd`` reports: the published scale, and a bias that is known exactly."""

import itertools

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics.cmmd import GaussianKernelDistance
from evalkit.numerics import block_edges
from evalkit.numerics.gaussian_mmd import gaussian_mmd
from evalkit.references.heads import Bank, HeadStatistics


def features(seed, n, d=6, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def reference(x):
    bank = Bank.of(x, np.arange(len(x)))
    return HeadStatistics(len(x), x.mean(axis=0, dtype=float), np.cov(x.T.astype(float)), bank)


def compute(x, y, blocks=1, **options):
    edges = block_edges(len(x), blocks)
    parts = tuple(x[i:j] for i, j in itertools.pairwise(edges))
    metric = GaussianKernelDistance(**options)
    return metric.compute(FeatureSet(parts), reference(y), rng=np.random.default_rng(0))


def test_the_headline_is_the_published_scale():
    x, y = features(0, 30), features(1, 40, shift=0.5)
    score = compute(x, y, blocks=5)
    assert score.value == pytest.approx(1000 * gaussian_mmd(x, y, sigma=10), rel=1e-11)
    assert (score.n, score.n_reference, score.better) == (30, 40, "lower")
    other = compute(x, y, sigma=0.5, scale=1.0)
    assert other.value == pytest.approx(gaussian_mmd(x, y, sigma=0.5), rel=1e-12)
    assert dict(GaussianKernelDistance().spec.params) == {"sigma": 10.0, "scale": 1000.0}


def test_point_masses_have_the_published_largest_value():
    up = np.tile(np.float32([[0, 2]]), (6, 1))
    score = compute(up, -up, blocks=2)
    assert score.value == pytest.approx(-2000 * np.expm1(-4 / 200), rel=1e-12)
    assert score.stderr == pytest.approx(0, abs=1e-12)


def test_one_image_a_block_removes_the_bias_of_the_generated_side():
    """The corrected V-statistic is then the U-statistic of that side: the mean over distinct pairs."""
    x, y = features(0, 20), features(1, 30, shift=0.5)
    score = compute(x, y, blocks=20, sigma=1.0, scale=1.0)
    u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x.astype(float), y.astype(float)))

    def kernel(a, b):
        return np.exp(-np.square(a[:, None] - b[None]).sum(axis=2) / 2)

    distinct = (kernel(u, u).sum() - 20) / (20 * 19)
    expected = distinct + kernel(v, v).mean() - 2 * kernel(u, v).mean()
    assert score.bias_corrected == pytest.approx(expected, rel=1e-9)


def test_leave_one_block_out_is_exact():
    x, y = features(2, 24), features(3, 15, shift=1)
    score = compute(x, y, blocks=4)
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[6 * block : 6 * block + 6], axis=0)
        assert value == pytest.approx(compute(rest, y).value, rel=1e-10)


def test_what_cannot_be_scored_is_refused():
    x = features(0, 10)
    with pytest.raises(InvalidInputError, match="at least 2 generated"):
        compute(x[:1], x)
    moments = HeadStatistics(10, np.zeros(6), np.eye(6))
    with pytest.raises(NothingMeasuredError, match="no individual features"):
        GaussianKernelDistance().compute(FeatureSet((x,)), moments, rng=np.random.default_rng(0))
    for options in ({"sigma": 0.0}, {"scale": -1.0}, {"sigma": float("nan")}):
        with pytest.raises(UsageError, match="positive"):
            GaussianKernelDistance(**options)
