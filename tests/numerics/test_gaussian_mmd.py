"""Gaussian MMD against a plain double loop, closed forms and leave-one-block-out by hand."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import gram, tiles
from evalkit.numerics.gaussian_mmd import gaussian_mmd, gaussian_sums

seeds = st.integers(0, 2**32 - 1)


def features(seed, n, d=7, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def by_loops(x, y, sigma):
    """Formula as published, kernel value by kernel value, in 40 digits."""
    with mpmath.workdps(40):

        def unit(rows):
            exact = [[mpmath.mpf(float(v)) for v in row] for row in rows]
            return [[v / mpmath.sqrt(sum(w * w for w in row)) for v in row] for row in exact]

        def mean(a, b):
            values = [
                mpmath.exp(
                    -sum((p - q) ** 2 for p, q in zip(u, v, strict=True)) / (2 * mpmath.mpf(sigma) ** 2)
                )
                for u in a
                for v in b
            ]
            return sum(values) / len(values)

        a, b = unit(x), unit(y)
        return float(mean(a, a) + mean(b, b) - 2 * mean(a, b))


def published(x, y, sigma):
    """The released code's arithmetic, in float64."""
    x, y = (
        np.asarray(z, np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
        for z in (x, y)
    )
    gamma = 1 / (2 * sigma**2)
    xx, yy = np.diag(x @ x.T), np.diag(y @ y.T)
    k_xx = np.exp(-gamma * (-2 * x @ x.T + xx[:, None] + xx[None, :])).mean()
    k_xy = np.exp(-gamma * (-2 * x @ y.T + xx[:, None] + yy[None, :])).mean()
    k_yy = np.exp(-gamma * (-2 * y @ y.T + yy[:, None] + yy[None, :])).mean()
    return k_xx + k_yy - 2 * k_xy


@pytest.mark.parametrize("sigma", [0.3, 1.0, 10.0])
def test_equals_the_formula_in_forty_digits(sigma):
    x, y = features(0, 9), features(1, 12, shift=0.5)
    assert gaussian_mmd(x, y, sigma=sigma) == pytest.approx(by_loops(x, y, sigma), rel=1e-11)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(1, 30), m=st.integers(1, 30), sigma=st.floats(0.2, 20))
def test_equals_the_released_arithmetic(seed, n, m, sigma):
    x, y = features([seed, 0], n), features([seed, 1], m, shift=1)
    # Sums of k near 1 lose digits to their ones: an absolute 1e-14 is their rounding, not ours.
    assert gaussian_mmd(x, y, sigma=sigma) == pytest.approx(published(x, y, sigma), rel=1e-9, abs=1e-14)


def test_point_masses_have_a_closed_form():
    up, right = np.tile([[0.0, 3.0]], (4, 1)), np.tile([[5.0, 0.0]], (7, 1))
    assert gaussian_mmd(up, right, sigma=10) == pytest.approx(-2 * math.expm1(-2 / 200), rel=1e-12)
    assert gaussian_mmd(up, -up, sigma=10) == pytest.approx(-2 * math.expm1(-4 / 200), rel=1e-12)
    assert gaussian_mmd(up, 9 * up, sigma=10) == 0


def test_a_share_of_two_points_has_a_closed_form():
    """With p and q the shares of one of two points, MMD^2 = 2 (p - q)^2 (1 - k)."""
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    x = np.repeat(np.concatenate([a, b]), [3, 1], axis=0)
    y = np.repeat(np.concatenate([a, b]), [1, 4], axis=0)
    expected = -2 * (3 / 4 - 1 / 5) ** 2 * math.expm1(-2 / (2 * 0.7**2))
    assert gaussian_mmd(x, y, sigma=0.7) == pytest.approx(expected, rel=1e-13)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, sizes=st.lists(st.integers(1, 8), min_size=2, max_size=5))
def test_blocks_do_not_matter_and_leave_one_out_is_exact(seed, sizes):
    blocks = [features([seed, i], n) for i, n in enumerate(sizes)]
    y = features([seed, 99], 11, shift=0.4)
    sums = gaussian_sums(blocks, y, sigma=2.0)
    assert sums.value() == pytest.approx(
        gaussian_mmd(np.concatenate(blocks), y, sigma=2.0), rel=1e-10, abs=1e-15
    )
    for block, value in enumerate(sums.without_blocks()):
        rest = np.concatenate(blocks[:block] + blocks[block + 1 :])
        assert value == pytest.approx(gaussian_mmd(rest, y, sigma=2.0), rel=1e-10, abs=1e-15)
    if len(blocks) < 3:
        with pytest.raises(InvalidInputError, match="without two blocks"):
            sums.without_pairs()
        return
    pairs = sums.without_pairs()
    assert not np.tril(pairs).any()
    for one, other in zip(*np.triu_indices(len(blocks), 1), strict=True):
        rest = np.concatenate([block for i, block in enumerate(blocks) if i not in (one, other)])
        assert pairs[one, other] == pytest.approx(gaussian_mmd(rest, y, sigma=2.0), rel=1e-10, abs=1e-15)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(1, 12), m=st.integers(1, 12))
def test_laws(seed, n, m):
    x, y = features([seed, 0], n), features([seed, 1], m)
    value = gaussian_mmd(x, y)
    assert value >= 0
    assert gaussian_mmd(y, x) == pytest.approx(value, rel=1e-9, abs=1e-16)
    assert gaussian_mmd(x, x) == pytest.approx(0, abs=1e-16)
    lengths = np.random.default_rng(seed).uniform(0.1, 9, (n, 1))
    assert gaussian_mmd(x * lengths, y) == pytest.approx(value, rel=1e-8, abs=1e-15)


def test_tiles_do_not_matter(monkeypatch):
    x, y = features(0, 33), features(1, 21)
    whole = gaussian_mmd(x, y, sigma=1)
    monkeypatch.setattr(tiles, "ROWS", 11)
    monkeypatch.setattr(tiles, "COLUMNS", 8)
    monkeypatch.setattr(gram, "PIECE", 3)
    assert gaussian_mmd(x, y, sigma=1) == pytest.approx(whole, rel=1e-12)


def test_what_cannot_work_is_refused():
    x = features(0, 3)
    for sigma in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="bandwidth"):
            gaussian_mmd(x, x, sigma=sigma)
    with pytest.raises(InvalidInputError, match="zeros"):
        gaussian_mmd(np.zeros((2, 7)), x)
    with pytest.raises(InvalidInputError, match="dimensions"):
        gaussian_mmd(x, features(0, 3, 4))
    with pytest.raises(InvalidInputError, match="no blocks"):
        gaussian_sums([], x, sigma=1)
    with pytest.raises(InvalidInputError, match="only block"):
        gaussian_sums([x], x, sigma=1).without_blocks()
