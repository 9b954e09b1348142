"""Vendi score against the vendi-score package, closed forms and its proven bounds."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import vendi as module
from evalkit.numerics.vendi import effective_number, vendi_score, vendi_scores

peer = pytest.importorskip("vendi_score.vendi")
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture
def iterated(monkeypatch):
    """Low ranks take effect at any size."""
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)


def features(seed, n, d, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 40), d=st.integers(2, 40), shift=st.floats(0, 3))
def test_equals_the_package_in_both_of_its_forms(seed, n, d, shift):
    x = features(seed, n, d, shift)
    value = vendi_score(x).value
    wide = x.astype(np.float64)
    assert value == pytest.approx(peer.score_dual(wide), rel=1e-10)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the package names a scipy class that moved
        assert value == pytest.approx(peer.score_K(unit @ unit.T), rel=1e-10)


@pytest.mark.parametrize("q", [0.5, 2, 3.7, 20])
def test_orders_equal_the_package(q):
    # d below n and full rank, so that no eigenvalue is rounding, which the package counts for q < 1.
    x = features(0, 60, 8, 0.5)
    assert vendi_score(x, order=q).value == pytest.approx(
        peer.score_dual(x.astype(np.float64), q=q), rel=1e-9
    )


def test_the_infinite_order_equals_the_package():
    x = features(1, 30, 8, 0.5)
    expected = peer.score_dual(x.astype(np.float64), q="inf")
    assert vendi_score(x, order=math.inf).value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("order", [0.01, 0.5, 1.0, 2.0, 7.5, math.inf])
@pytest.mark.parametrize("modes", [1, 3, 6])
def test_mode_collapse_counts_the_modes(order, modes):
    x = np.repeat(np.eye(8)[:modes] * np.arange(1, modes + 1)[:, None], 5, axis=0)
    assert vendi_score(x, order=order).value == pytest.approx(modes, rel=1e-12)


def test_shares_of_modes_give_the_hill_number():
    shares = np.array([6, 3, 1]) / 10
    x = np.repeat(np.eye(4)[:3], [6, 3, 1], axis=0)
    assert vendi_score(x).value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)
    assert vendi_score(x, order=2).value == pytest.approx(1 / (shares**2).sum(), rel=1e-12)
    assert vendi_score(x, order=math.inf).value == pytest.approx(1 / 0.6, rel=1e-12)


def test_two_directions_have_a_closed_form():
    """Eigenvalues of two rows at cosine c are (1 +- c) / 2."""
    c = 0.3
    x = np.array([[1.0, 0.0], [c, math.sqrt(1 - c * c)]])
    w = np.array([(1 + c) / 2, (1 - c) / 2])
    assert vendi_score(x).value == pytest.approx(np.exp(-(w * np.log(w)).sum()), rel=1e-13)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(2, 20), d=st.integers(2, 20))
def test_laws(seed, n, d):
    rng = np.random.default_rng(seed)
    x = features(seed, n, d)
    value = vendi_score(x).value
    assert 1 <= value <= min(n, d) * (1 + 1e-12)
    assert vendi_score(rng.permutation(x)).value == pytest.approx(value, rel=1e-10)
    assert vendi_score(x * rng.uniform(0.1, 9, (n, 1))).value == pytest.approx(value, rel=1e-6)
    assert vendi_score(np.concatenate([x, x])).value == pytest.approx(value, rel=1e-10)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert vendi_score(x @ turn).value == pytest.approx(value, rel=1e-9)
    orders = [vendi_score(x, order=q).value for q in (0.5, 1.0, 2.0, 5.0, math.inf)]
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(orders))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, sizes=st.lists(st.integers(1, 12), min_size=2, max_size=5), d=st.sampled_from([3, 60]))
def test_without_a_block_is_the_score_of_the_others(seed, sizes, d):
    blocks = [features([seed, i], n, d, 0.5) for i, n in enumerate(sizes)]
    whole, without = vendi_scores(blocks)
    assert whole.value == pytest.approx(vendi_score(np.concatenate(blocks)).value, rel=1e-10)
    for block, part in enumerate(without):
        rest = np.concatenate(blocks[:block] + blocks[block + 1 :])
        assert part.value == pytest.approx(vendi_score(rest).value, rel=1e-9)


@pytest.mark.parametrize("shape", [(70, 40), (40, 70)])
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
@pytest.mark.parametrize("rank", [1, 5, 20, 39])
@pytest.mark.usefixtures("iterated")
def test_low_rank_bounds_hold(shape, order, rank):
    decay = 0.8 ** np.arange(shape[1])
    x = features(3, *shape) * decay
    exact = vendi_score(x, order=order).value
    found = vendi_score(x, order=order, rank=rank, rng=np.random.default_rng(0))
    assert found.lower <= exact * (1 + 1e-9)
    assert found.upper >= exact * (1 - 1e-9)
    assert found.lower <= found.value <= found.upper
    if order == 1 and rank >= 20:
        assert found.upper / found.lower < 1.02


@pytest.mark.usefixtures("iterated")
def test_low_rank_narrows_and_ends_exact():
    x = features(4, 60, 30) * 0.7 ** np.arange(30)
    rng = np.random.default_rng
    gaps = [(s := vendi_score(x, rank=r, rng=rng(0))).upper / s.lower for r in (2, 6, 12, 24)]
    assert gaps == sorted(gaps, reverse=True)
    assert vendi_score(x, rank=30, rng=rng(0)) == vendi_score(x)
    assert vendi_score(x, rank=9, rng=rng(0)).value == pytest.approx(
        vendi_score(x, rank=9, rng=rng(5)).value, rel=1e-10
    )


@pytest.mark.usefixtures("iterated")
def test_low_rank_without_blocks():
    blocks = [features(i, 15, 40) * 0.8 ** np.arange(40) for i in range(4)]
    whole, without = vendi_scores(blocks, rank=12, rng=np.random.default_rng(0))
    assert whole.lower < whole.upper
    for block, part in enumerate(without):
        rest = np.concatenate(blocks[:block] + blocks[block + 1 :])
        assert part.lower <= vendi_score(rest).value <= part.upper


@pytest.mark.usefixtures("iterated")
def test_a_block_less_may_leave_no_more_than_the_rank():
    blocks = [features(i, 4, 30) for i in range(2)]
    _, without = vendi_scores(blocks, rank=5, rng=np.random.default_rng(0))
    assert without[0] == vendi_score(blocks[1])


def test_small_sets_are_exact_at_any_rank():
    x = features(4, 60, 30)
    assert vendi_score(x, rank=3, rng=np.random.default_rng(0)) == vendi_score(x)


def test_rounding_below_zero_is_no_eigenvalue():
    assert effective_number(np.array([0.5, 0.5, -1e-17, 1e-18]), order=0.01) == pytest.approx(2, rel=1e-12)


def test_what_cannot_work_is_refused():
    x = features(0, 5, 3)
    for order in (0, -1, math.nan):
        with pytest.raises(InvalidInputError, match="order"):
            vendi_score(x, order=order)
    with pytest.raises(InvalidInputError, match="zeros"):
        vendi_score(np.zeros((3, 2)))
    for options in ({"rank": -1}, {"rank": 2}):
        with pytest.raises(InvalidInputError, match="rank"):
            vendi_score(x, **options)
    with pytest.raises(InvalidInputError, match="eigenvalues"):
        effective_number(np.array([-1.0, 0.0]))
