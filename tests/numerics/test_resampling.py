"""The jackknife: closed forms, the published formula, and its coverage by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalkit.errors import InvalidInputError
from evalkit.numerics import (
    block_edges,
    first_order_share,
    frechet_distance_between,
    frechet_without_blocks,
    gaussian_factor,
    gaussian_factor_from_features,
    jackknife,
)
from evalkit.numerics.resampling import balanced_halves, second_degree_share, second_degree_share_of_some


@given(n=st.integers(1, 500), blocks=st.integers(1, 40))
def test_block_edges_cover_evenly(n, blocks):
    if n < blocks:
        with pytest.raises(InvalidInputError):
            block_edges(n, blocks)
        return
    edges = block_edges(n, blocks)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1], len(edges)) == (0, n, blocks + 1)
    assert sizes.max() - sizes.min() <= 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 9), min_size=2, max_size=8))
def test_published_formula(seed, sizes):
    rng = np.random.default_rng(seed)
    value, without = rng.standard_normal(), rng.standard_normal(len(sizes))
    m, n, g = np.array(sizes, dtype=float), sum(sizes), len(sizes)
    h = n / m
    corrected = g * value - ((1 - m / n) * without).sum()
    variance = ((h * value - (h - 1) * without - corrected) ** 2 / (h - 1)).mean()
    result = jackknife(value, without, sizes=sizes)
    assert result.bias_corrected == pytest.approx(corrected, rel=1e-9, abs=1e-9)
    assert result.stderr == pytest.approx(np.sqrt(variance), rel=1e-9, abs=1e-9)
    reach = stats.t.ppf(0.975, g - 1) * result.stderr
    assert (result.low, result.high) == pytest.approx((value - reach, value + reach))


def test_single_rows_give_the_textbook_standard_error_of_a_mean():
    x = np.random.default_rng(0).standard_normal(25)
    result = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(25)], sizes=[1] * 25)
    assert result.stderr == pytest.approx(x.std(ddof=1) / 5, rel=1e-12)
    assert result.bias_corrected == pytest.approx(x.mean(), rel=1e-12)


def test_removes_the_bias_of_a_variance():
    x = np.random.default_rng(1).standard_normal(20)
    result = jackknife(x.var(), [np.delete(x, i).var() for i in range(20)], sizes=[1] * 20)
    assert result.bias_corrected == pytest.approx(x.var(ddof=1), rel=1e-12)


@pytest.mark.parametrize("sizes", [[5] * 12, [2, 3, 4, 5, 6, 7, 8, 9, 3, 4, 5, 4]])
def test_interval_of_a_mean_covers(sizes):
    rng, edges = np.random.default_rng(2), np.cumsum([0, *sizes])
    hits, trials = 0, 1500
    for _ in range(trials):
        x = rng.standard_normal(edges[-1])
        without = [np.delete(x, np.s_[i:j]).mean() for i, j in itertools.pairwise(edges)]
        result = jackknife(x.mean(), without, sizes=sizes)
        hits += result.low <= 0 <= result.high
    assert hits / trials == pytest.approx(0.95, abs=0.025)


def test_corrects_the_frechet_distance_and_its_error_bar_is_honest():
    rng, d, n, blocks = np.random.default_rng(3), 6, 120, 12
    reference = gaussian_factor(np.zeros(d), np.eye(d))
    truth = d * 0.3**2 + d * 0.2**2  # means 0.3 apart, standard deviations 1.2 and 1
    edges, raw, corrected, errors = block_edges(n, blocks), [], [], []
    for _ in range(200):
        x = rng.standard_normal((n, d)) * 1.2 + 0.3
        value = frechet_distance_between(gaussian_factor_from_features(x), reference)
        result = jackknife(value, frechet_without_blocks(x, edges, reference), sizes=np.diff(edges).tolist())
        raw.append(value)
        corrected.append(result.bias_corrected)
        errors.append(result.stderr)
    bias = np.mean(raw) - truth
    assert bias > 5 * np.std(raw) / np.sqrt(200)
    assert abs(np.mean(corrected) - truth) < 0.15 * bias
    assert np.mean(errors) == pytest.approx(np.std(raw), rel=0.2)


@pytest.mark.parametrize(
    ("value", "without", "sizes"),
    [(1.0, [1.0], [3]), (1.0, [1.0, 2.0], [3]), (1.0, [1.0, 2.0], [3, 0]), (np.nan, [1.0, 2.0], [3, 3]),
     (1.0, [np.inf, 2.0], [3, 3]), (1.0, [], [])],
)  # fmt: skip
def test_errors(value, without, sizes):
    with pytest.raises(InvalidInputError):
        jackknife(value, without, sizes=sizes)


def test_level_must_be_a_probability():
    with pytest.raises(InvalidInputError):
        jackknife(1.0, [1.0, 2.0], sizes=[1, 1], level=1.0)


def test_pairs_count_higher_orders_once():
    """The share of cells that a Poisson process reaches: plain is far too wide, corrected is right."""
    cells, rate, blocks, repetitions = 400, 1.5, 10, 300
    rng = np.random.default_rng(0)
    values, plain, corrected = [], [], []
    for _ in range(repetitions):
        hits = rng.poisson(rate / blocks, size=(blocks, cells)) > 0
        value = hits.any(axis=0).mean()
        without = np.array([np.delete(hits, b, axis=0).any(axis=0).mean() for b in range(blocks)])
        pairs = np.zeros((blocks, blocks))
        for b, c in zip(*np.triu_indices(blocks, 1), strict=True):
            pairs[b, c] = np.delete(hits, [b, c], axis=0).any(axis=0).mean()
        values.append(value)
        plain.append(jackknife(value, without, sizes=[1] * blocks).stderr)
        share = first_order_share(value, without, pairs)
        corrected.append(jackknife(value, without, sizes=[1] * blocks, share=share).stderr)
    spread = np.std(values, ddof=1)
    assert np.sqrt(np.mean(np.square(plain))) > 1.25 * spread
    assert np.sqrt(np.mean(np.square(corrected))) == pytest.approx(spread, rel=0.1)


def test_pairs_change_nothing_for_a_mean():
    x = np.random.default_rng(1).standard_normal((6, 5))
    without = [np.delete(x, b, axis=0).mean() for b in range(6)]
    pairs = np.zeros((6, 6))
    for b, c in zip(*np.triu_indices(6, 1), strict=True):
        pairs[b, c] = np.delete(x, [b, c], axis=0).mean()
    assert first_order_share(x.mean(), without, pairs) == pytest.approx(1.0)


@pytest.mark.parametrize("pairs", [np.zeros((2, 3)), np.full((3, 3), np.nan)])
def test_pairs_that_cannot_be_are_refused(pairs):
    with pytest.raises(InvalidInputError):
        first_order_share(1.0, [1.0, 2.0, 3.0], pairs)


def squared_mean_without(x, sizes):
    """The V-statistic ``|mean|^2`` of all rows, without each block and without each two."""
    blocks = np.split(x, np.cumsum(sizes)[:-1])
    every = range(len(blocks))

    def value(*left_out):
        mean = np.concatenate([blocks[b] for b in every if b not in left_out]).mean(axis=0)
        return float(mean @ mean)

    pairs = np.zeros((len(blocks), len(blocks)))
    for b, c in itertools.combinations(every, 2):
        pairs[b, c] = value(b, c)
    return value(), [value(b) for b in every], pairs


@pytest.mark.parametrize(("centre", "plain_ratio"), [(0.0, np.sqrt(2)), (3.0, 1.0)])
def test_the_second_degree_is_counted_once(centre, plain_ratio):
    """A squared mean in 30 dimensions: nothing but second order at 0, next to linear at 3."""
    values, plain, corrected = [], [], []
    for seed in range(300):
        x = np.random.default_rng(seed).standard_normal((60, 30)) + centre
        value, without, pairs = squared_mean_without(x, [3] * 20)
        share = second_degree_share(value, without, pairs)
        assert 0.5 <= share <= 1
        values.append(value)
        plain.append(jackknife(value, without, sizes=[3] * 20).stderr)
        corrected.append(jackknife(value, without, sizes=[3] * 20, share=share).stderr)
    spread = np.std(values, ddof=1)
    assert np.sqrt(np.mean(np.square(plain))) / spread == pytest.approx(plain_ratio, rel=0.1)
    assert np.sqrt(np.mean(np.square(corrected))) / spread == pytest.approx(1.0, rel=0.1)


def test_second_degree_of_a_mean_and_of_what_cannot_be():
    _, (a, b, c), pairs = squared_mean_without(np.array([[1.0], [4.0], [9.0]]), [1, 1, 1])
    x = np.random.default_rng(1).standard_normal(6)
    without = [np.delete(x, i).mean() for i in range(6)]
    of_mean = np.zeros((6, 6))
    for i, j in itertools.combinations(range(6), 2):
        of_mean[i, j] = np.delete(x, [i, j]).mean()
    assert second_degree_share(x.mean(), without, of_mean) == pytest.approx(1.0)
    assert second_degree_share(2.0, [2.0] * 3, np.full((3, 3), 2.0)) == 1.0
    with pytest.raises(InvalidInputError):
        second_degree_share(1.0, [a, b, c], pairs[:2])


def test_balanced_halves_give_the_variance_of_a_mean_exactly():
    cuts = balanced_halves()
    assert cuts.shape == (19, 20)
    assert (cuts.sum(axis=1) == 10).all()
    x = np.random.default_rng(2).standard_normal(20)
    halves = np.array([x[cut].mean() - x[~cut].mean() for cut in cuts])
    assert np.mean(halves**2) / 4 == pytest.approx(x.var(ddof=1) / 20, rel=1e-12)


def squared_mean(seed, groups=12, dimension=30):
    """A statistic that is nothing but second order: |mean|^2 of centred rows, without blocks and pairs."""
    x = np.random.default_rng(seed).standard_normal((groups, 10, dimension))

    def of(*left_out):
        return float((np.delete(x, left_out, axis=0).mean(axis=(0, 1)) ** 2).sum())

    pairs = [(b, c, of(b, c)) for b, c in zip(*np.triu_indices(groups, 1), strict=True)]
    return of(), [of(b) for b in range(groups)], pairs


def test_some_pairs_estimate_the_share_of_all():
    for seed in range(5):
        value, without, pairs = squared_mean(seed)
        table = np.zeros((12, 12))
        for b, c, estimate in pairs:
            table[b, c] = estimate
        whole = second_degree_share(value, without, table)
        # An unbiased variance over 66 pairs against a plain mean: 66 / 65 of the excess.
        assert second_degree_share_of_some(value, without, pairs) == pytest.approx(whole, abs=0.02)


def test_neighbouring_pairs_find_a_statistic_of_second_order():
    shares = []
    for seed in range(60):
        value, without, pairs = squared_mean(seed)
        near = [pair for pair in pairs if pair[1] - pair[0] in {1, 11}]
        shares.append(second_degree_share_of_some(value, without, near))
    assert 0.5 <= np.mean(shares) < 0.75


def test_some_pairs_change_nothing_for_a_mean():
    x = np.random.default_rng(1).standard_normal((6, 5))
    without = [np.delete(x, b, axis=0).mean() for b in range(6)]
    pairs = [(b, b + 1, np.delete(x, [b, b + 1], axis=0).mean()) for b in range(5)]
    assert second_degree_share_of_some(x.mean(), without, pairs) == pytest.approx(1.0)
    for bad in (pairs[:1], [(0, 1, np.nan), (1, 2, 1.0)]):
        with pytest.raises(InvalidInputError):
            second_degree_share_of_some(x.mean(), without, bad)
