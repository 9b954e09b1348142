"""Leave-one-block-out Fréchet distances in one batch against each measured by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import (
    LEAVE_OUT_ERROR,
    frechet_distance,
    frechet_distance_from_features,
    frechet_without_blocks,
    gaussian_factor,
    gaussian_factor_from_features,
)
from evalkit.numerics.extrapolation import distance_shifts, spectrum_shifts
from evalkit.numerics.leave_out import Whole, rests_without


def covariance(x):
    return np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def rest_of(blocks, group):
    return np.concatenate([block for number, block in enumerate(blocks) if number not in group])


def measured(blocks, groups, reference):
    """The batch's rests, and for which groups it went the plain way."""
    x, plain = np.concatenate(blocks), []

    def measure(group):
        plain.append(tuple(group))
        rest = rest_of(blocks, group)
        return frechet_distance(
            rest.mean(0), covariance(rest), reference.mean, reference.factor @ reference.factor.T
        )

    whole = Whole(len(x), x.mean(axis=0), covariance(x))
    return list(rests_without(blocks, groups, reference, whole=whole, measure=measure)), plain


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 9), min_size=2, max_size=6),
    rank=st.integers(0, 9),
    offset=st.sampled_from([0.0, 100.0]),
    graded=st.booleans(),
)
def test_rests_are_the_distances_of_the_rest(seed, d, sizes, rank, offset, graded):
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((size, d)) + offset for size in [*sizes, d + 2]]
    f = rng.standard_normal((d, min(rank, d)))
    mean = rng.standard_normal(d) + offset
    moments = gaussian_factor(mean, f @ f.T)
    other = mean + rng.standard_normal((d + 5, d))
    reference = moments if graded else gaussian_factor_from_features(other)
    groups = [(block,) for block in range(len(sizes))] + [(0, 1), ()]
    rests, _ = measured(blocks, groups, reference)
    for rest, group in zip(rests, groups, strict=True):
        x = rest_of(blocks, group)
        cov = covariance(x)
        plain = frechet_distance(x.mean(0), cov, reference.mean, reference.factor @ reference.factor.T)
        assert rest.count == len(x)
        assert rest.trace == pytest.approx(np.trace(cov), rel=1e-11)
        assert rest.distance == pytest.approx(plain, rel=LEAVE_OUT_ERROR)
        inner = reference.factor.T @ cov @ reference.factor
        expected = np.linalg.eigvalsh(inner) if inner.size else np.zeros(0)
        scale = float(expected[-1]) if inner.size else 0.0
        np.testing.assert_allclose(rest.eigenvalues, expected, atol=1e-12 * max(scale, 1e-300))


@pytest.mark.parametrize("decay", [2, 8, 14, 20])
@pytest.mark.parametrize("rotated", [False, True])
def test_wide_spectra_are_proven_good_enough_and_are(decay, rotated):
    rng, d, n = np.random.default_rng([decay, rotated]), 300, 1200
    turns = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2)]
    spread = np.exp(-np.arange(d) / d * decay)
    real = rng.standard_normal((n, d)) * spread @ turns[0]
    blocks = np.array_split(rng.standard_normal((n, d)) * spread @ turns[int(rotated)] * 1.1, 5)
    reference = gaussian_factor(real.mean(0), covariance(real))
    rests, plain = measured(blocks, [(0,), (3,), (1, 2)], reference)
    assert not plain
    for rest, group in zip(rests, [(0,), (3,), (1, 2)], strict=True):
        exact = frechet_distance_from_features(rest_of(blocks, group), real)
        assert rest.distance == pytest.approx(exact, rel=1e-10)


def test_a_block_of_nearly_all_the_variance_is_measured_by_itself():
    rng = np.random.default_rng(4)
    blocks = [rng.standard_normal((40, 6)) for _ in range(4)]
    blocks[2] *= 1e9
    reference = gaussian_factor(np.zeros(6), np.eye(6))
    groups = [(block,) for block in range(4)]
    rests, plain = measured(blocks, groups, reference)
    assert plain == [(2,)]
    for rest, group in zip(rests, groups, strict=True):
        x = rest_of(blocks, group)
        expected = frechet_distance(x.mean(0), covariance(x), np.zeros(6), np.eye(6))
        assert rest.distance == pytest.approx(expected, rel=LEAVE_OUT_ERROR)


def test_a_distance_of_nothing_is_measured_by_itself():
    half = np.random.default_rng(5).standard_normal((30, 4))
    blocks = [half, half, half]
    reference = gaussian_factor(half.mean(0), covariance(np.concatenate([half, half])))
    rests, plain = measured(blocks, [(0,), (1,)], reference)
    assert plain == [(0,), (1,)]
    assert max(rest.distance for rest in rests) < 1e-25


def test_shifts_of_the_spectrum_are_those_of_the_covariance():
    rng = np.random.default_rng(6)
    blocks = [rng.standard_normal((50, 8)) for _ in range(4)]
    reference = gaussian_factor(np.zeros(8), np.diag(np.arange(1.0, 9.0)))
    (rest,), _ = measured(blocks, [(1,)], reference)
    cov = covariance(rest_of(blocks, (1,)))
    found = spectrum_shifts(rest.eigenvalues, trace=rest.trace, count=rest.count, at=[np.inf, 1000.0])
    expected = distance_shifts(reference, cov=cov, count=150, at=[np.inf, 1000.0])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_cannot_be_left_out_is_refused():
    x = np.random.default_rng(7).standard_normal((6, 3))
    whole = Whole(6, x.mean(0), covariance(x))
    unused = pytest.fail
    wide = gaussian_factor(np.zeros(4), np.eye(4))
    with pytest.raises(InvalidInputError, match="3 features against 4"):
        list(rests_without([x], [()], wide, whole=whole, measure=unused))
    fitting = gaussian_factor(np.zeros(3), np.eye(3))
    with pytest.raises(InvalidInputError, match="1 rows are left"):
        list(rests_without([x[:5], x[5:]], [(0,)], fitting, whole=whole, measure=unused))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(8, 24),
    d=st.integers(2, 30),
    blocks=st.integers(2, 4),
    offset=st.sampled_from([0.0, 100.0]),
    graded=st.booleans(),
)
def test_few_rows_in_many_dimensions(seed, n, d, blocks, offset, graded):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(0, -2, d) + offset
    other = 1.3 * rng.standard_normal((40, d)) + offset
    by_moments = gaussian_factor(other.mean(0), covariance(other))
    reference = by_moments if graded else gaussian_factor_from_features(other)
    edges = [i * n // blocks for i in range(blocks + 1)]
    found = frechet_without_blocks(x, edges, reference)
    for block in range(blocks):
        rest = np.delete(x, np.s_[edges[block] : edges[block + 1]], axis=0)
        expected = frechet_distance_from_features(rest, other)
        assert found[block] == pytest.approx(expected, rel=LEAVE_OUT_ERROR)


def test_few_rows_without_blocks_some_of_which_are_empty():
    """In so many dimensions the batch goes by determinants; nothing taken away changes nothing."""
    rng = np.random.default_rng(3)
    x, real = rng.standard_normal((340, 400)), rng.standard_normal((900, 400))
    reference = gaussian_factor_from_features(real)
    edges = [0, 20, 40, 40, 40, *range(60, 341, 20)]
    found = frechet_without_blocks(x, edges, reference)
    whole = frechet_distance_from_features(x, real)
    np.testing.assert_allclose(found[2:4], whole, rtol=1e-9)
    np.testing.assert_allclose(found[0], frechet_distance_from_features(x[20:], real), rtol=1e-9)
