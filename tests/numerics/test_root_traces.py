"""The rule for roots, band matrices and determinants without some rows, each against plain eigenvalues."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import (
    LEAVE_OUT_ERROR,
    banded,
    downdates,
    frechet,
    frechet_distance,
    frechet_distance_between,
    frechet_distance_from_features,
    frechet_distance_to,
    frechet_without_blocks,
    frechet_without_slices,
    gaussian_factor,
    gaussian_factor_from_features,
    leave_out,
)
from evalkit.numerics.banded import band_of, root_trace
from evalkit.numerics.downdates import Spectrum, without_members, without_rows, worth_it
from evalkit.numerics.leave_out import Whole, distances_without, rests_without
from evalkit.numerics.products import products_on
from evalkit.numerics.root_traces import ROUNDING, root_rule
from evalkit.numerics.triangles import cholesky, congruence


def covariance(x):
    return np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def moments(x):
    return x.mean(axis=0), covariance(x)


def whole_of(band):
    count = band.shape[1]
    lower = sum(np.diag(band[row, : count - row], -row) for row in range(min(len(band), count)))
    return np.tril(lower) + np.tril(lower, -1).T


def positive(rng, d, *, decades):
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.asfortranarray((turn * np.logspace(0, -decades, d)) @ turn.T)


@given(low=st.floats(1e-12, 1e12), ratio=st.floats(1, 1e16), digits=st.integers(2, 12), part=st.floats(0, 1))
def test_a_rule_holds_for_every_number_between_its_ends(low, ratio, digits, part):
    rule = root_rule(low, low * ratio, error=10.0**-digits)
    assert rule.error <= 10.0**-digits
    number = low * ratio**part
    found = rule.root_trace(np.log(number + rule.shifts), count=1)
    assert found == pytest.approx(
        math.sqrt(number), rel=3 * rule.error + 1e-14, abs=3 * ROUNDING * math.sqrt(max(16, ratio) * low)
    )
    assert (rule.weights > 0).all()


@pytest.mark.parametrize("number", [0.0, 1e-9, 0.3])
def test_below_its_ends_a_rule_errs_by_less_than_the_lower_root(number):
    rule = root_rule(1.0, 1e6, error=1e-10)
    assert abs(rule.root_trace(np.log(number + rule.shifts), count=1) - math.sqrt(number)) < 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (-1.0, 1.0)])
def test_ends_in_no_order_are_refused(low, high):
    with pytest.raises(InvalidInputError, match="low <= high"):
        root_rule(low, high, error=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 40), width=st.integers(1, 9), rank=st.integers(0, 40))
def test_a_band_matrix_keeps_the_eigenvalues(seed, d, width, rank):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((d, min(rank, d)))
    matrix = np.asfortranarray(x @ x.T)
    together, banded.TOGETHER = banded.TOGETHER, 2 * width
    try:
        band = band_of(matrix.copy(order="F"), width=width)
    finally:
        banded.TOGETHER = together
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(whole_of(band)), expected, atol=1e-13 * max(1.0, expected[-1])
    )


@pytest.mark.parametrize("decades", [0, 2, 6, 10])
def test_the_trace_of_a_root_by_determinants(decades):
    matrix = positive(np.random.default_rng(decades), 150, decades=decades)
    known = -decades * math.log(10) * 150 / 2
    trace, error = root_trace(matrix.copy(order="F"), log_determinant=known)
    expected = float(np.sqrt(np.logspace(0, -decades, 150)).sum())
    assert abs(trace - expected) <= error
    assert trace == pytest.approx(expected, rel=1e-11)
    # A determinant that is not met must show in the error.
    _, wrong = root_trace(matrix.copy(order="F"), log_determinant=known + 1e-3)
    assert wrong > 1e-6


def test_what_is_not_positive_definite_has_no_trace():
    matrix = np.asfortranarray(np.diag([1.0, -1.0, 2.0]))
    assert root_trace(matrix, log_determinant=0.0) is None
    assert cholesky(np.diag([1.0, 0.0])) is None


@pytest.mark.parametrize("scale", [1e-90, 1e-82, 1e78, 1e90])
def test_numbers_whose_squares_are_none_have_no_trace_by_determinants(scale):
    sides = [moments(np.random.default_rng(seed).standard_normal((900, 300))) for seed in (0, 1)]
    scaled = [(mean, scale * cov) for mean, cov in sides]
    assert root_trace(np.asfortranarray(scaled[0][1]), log_determinant=0.0) is None
    (mean_a, cov_a), (mean_b, cov_b) = scaled
    found = frechet_distance(0 * mean_a, cov_a, 0 * mean_b, cov_b)
    plain = frechet_distance(0 * mean_a, sides[0][1], 0 * mean_b, sides[1][1])
    assert found / scale == pytest.approx(plain, rel=1e-9)


def test_congruence_is_two_products():
    rng = np.random.default_rng(1)
    s = covariance(rng.standard_normal((30, 7)))
    triangle = np.asfortranarray(np.tril(rng.standard_normal((7, 7))))
    kept = s.copy()
    np.testing.assert_allclose(
        np.tril(congruence(triangle, s)), np.tril(triangle.T @ s @ triangle), atol=1e-13
    )
    np.testing.assert_array_equal(s, kept)


@pytest.fixture
def no_problem_is_small(monkeypatch):
    monkeypatch.setattr(frechet, "SMALL", 0)
    monkeypatch.setattr(downdates, "FEWEST_DIMENSIONS", 1)
    monkeypatch.setattr(downdates, "FEWEST_GROUPS", 1)
    monkeypatch.setattr(downdates, "LARGEST_GROUP", 10.0)


@pytest.mark.usefixtures("no_problem_is_small")
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("decades", [0, 2, 5])
@pytest.mark.parametrize("d", [1, 2, 33, 90])
def test_the_shortcut_between_moments(d, decades, offset):
    rng = np.random.default_rng([d, decades])
    spread, turn = np.logspace(0, -decades, d), np.linalg.qr(rng.standard_normal((d, d)))[0]
    a = rng.standard_normal((4 * d + 9, d)) * spread @ turn + offset
    b = 1.3 * rng.standard_normal((5 * d + 9, d)) * spread @ turn + offset
    sides = moments(a), moments(b)
    kept = [array.copy() for side in sides for array in side]
    plain = frechet_distance_between(gaussian_factor(*sides[0]), gaussian_factor(*sides[1]))
    assert frechet_distance(*sides[0], *sides[1]) == pytest.approx(plain, rel=2e-9)
    cached = gaussian_factor(*sides[1])
    assert frechet_distance_to(cached, mean=sides[0][0], cov=sides[0][1]) == pytest.approx(plain, rel=2e-9)
    for array, before in zip((array for side in sides for array in side), kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.usefixtures("no_problem_is_small")
@pytest.mark.parametrize("n", [3, 20, 21, 25])
def test_moments_of_few_rows_equal_sets_and_duplicates_go_the_plain_way(n):
    x = np.random.default_rng(n).standard_normal((n, 20))
    sets = [x, x, np.repeat(x, 2, axis=0), x + 1e-7]
    for other in sets:
        found = frechet_distance(*moments(x), *moments(other))
        plain = frechet_distance_between(gaussian_factor(*moments(x)), gaussian_factor(*moments(other)))
        assert found == pytest.approx(plain, rel=1e-9, abs=1e-20)


def test_usual_moments_need_no_pivots_and_no_eigenvalues(monkeypatch):
    rng = np.random.default_rng(3)
    sides = [moments(scale * rng.standard_normal((1500, 300))) for scale in (1, 1.1)]
    plain = frechet_distance_between(*(gaussian_factor(*side) for side in sides))
    monkeypatch.setattr(frechet, "psd_triangle", pytest.fail)
    monkeypatch.setattr(frechet, "symmetric_eigenvalues", pytest.fail)
    assert frechet_distance(*sides[0], *sides[1]) == pytest.approx(plain, rel=1e-12)


def test_shifted_sets_of_wide_spectra_reach_what_is_promised():
    """Condition numbers up to 1e10 of the covariances, against singular values of the features."""
    rng, d = np.random.default_rng(4), 280
    for decades in (1, 3, 5):
        spread, turn = np.logspace(0, -decades, d), np.linalg.qr(rng.standard_normal((d, d)))[0]
        a = rng.standard_normal((1200, d)) * spread @ turn
        b = rng.standard_normal((1300, d)) * spread * 1.2 @ turn
        exact = frechet_distance_from_features(a, b)
        assert frechet_distance(*moments(a), *moments(b)) == pytest.approx(exact, rel=1e-9)


def spectrum_and_rule(matrix):
    spectrum = Spectrum.of(matrix)
    return spectrum, spectrum.rule(1e-9 * spectrum.nuclear)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 12), m=st.integers(1, 9), decades=st.integers(0, 3))
def test_a_nuclear_norm_without_rows(seed, d, m, decades):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40 + m, d)) * np.logspace(0, -decades, d)
    spectrum, rule = spectrum_and_rule(x.T @ x)
    found, error = without_rows(spectrum, x[:m] @ spectrum.vectors, rule)
    expected = np.linalg.svd(x[m:], compute_uv=False).sum()
    assert math.isinf(error) or abs(found - expected) <= error
    assert math.isinf(error) or error < 1e-6 * expected


def test_rows_that_hold_nearly_everything_are_not_proven():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 4))
    spectrum, rule = spectrum_and_rule(x.T @ x)
    assert without_rows(spectrum, x[:1] @ spectrum.vectors, rule)[1] < math.inf
    x[:20] *= 1e3
    spectrum, rule = spectrum_and_rule(x.T @ x)
    assert math.isinf(without_rows(spectrum, x[:20] @ spectrum.vectors, rule)[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 14), m=st.integers(1, 11))
def test_a_recentred_gram_matrix_without_members(seed, n, m):
    m = min(m, n - 2)
    x = np.random.default_rng(seed).standard_normal((n, 20))
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    noise = 1e-15 * float(values[-1])
    spectrum = Spectrum(values[1:], vectors[:, 1:], float(np.sqrt(values[1:]).sum()), 0.0, noise)
    rule = spectrum.rule(1e-9 * spectrum.nuclear)
    found, error = without_members(spectrum, vectors[:m, 1:], rule, count=n)
    expected = np.linalg.svd(x[m:] - x[m:].mean(axis=0), compute_uv=False).sum()
    assert abs(found - expected) <= error + 1e-13 * expected
    assert error < 1e-8 * spectrum.nuclear


def reflected(n):
    """Columns that are orthonormal to each other and to the ones, float64 [n, n - 1]."""
    ones = np.full(n, 1 / np.sqrt(n))
    ones[0] += 1
    return (np.eye(n) - np.outer(ones, ones) / ones[0])[:, 1:]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 40),
    d=st.integers(2, 60),
    m=st.integers(1, 11),
    decades=st.integers(0, 24),
    gap=st.sampled_from([1.0, 1e-6, 1e-14]),
    repeated=st.booleans(),
)
def test_singular_values_serve_for_spectra_that_a_gram_matrix_loses(seed, n, d, m, decades, gap, repeated):
    m, rng = min(m, n - 2), np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(0, -decades, d)
    x[:, d // 2 :] *= gap
    if repeated:
        x[1] = x[0]
    rows, vectors = x - x.mean(axis=0), reflected(n)
    spectrum = Spectrum.of_rows(vectors.T @ rows)
    whole = np.linalg.svd(rows, compute_uv=False)
    assert spectrum.nuclear == pytest.approx(whole.sum(), abs=spectrum.error)
    rule = spectrum.rule(1e-9 * spectrum.nuclear)
    taken = (vectors @ spectrum.vectors)[:m]
    found, error = without_members(spectrum, taken, rule, count=n)
    expected = np.linalg.svd(x[m:] - x[m:].mean(axis=0), compute_uv=False).sum()
    assert abs(found - expected) <= error + 1e-13 * whole[0]
    assert error < 1e-8 * whole[0] or decades > 6 or gap < 1 or repeated or d < n


def test_rows_without_a_spectrum():
    assert Spectrum.of_rows(np.zeros((3, 5))) is None
    assert Spectrum.of_rows(np.full((3, 5), 1e-160)) is None
    assert Spectrum.of_rows(np.full((3, 5), 1e160)) is None


def test_when_determinants_pay():
    assert worth_it(501, rank=2048, groups=20)
    assert not worth_it(1001, rank=2048, groups=19)
    assert not worth_it(120, rank=600, groups=20)
    assert not worth_it(5, rank=100, groups=20)
    assert not worth_it(5, rank=2048, groups=2)


@pytest.mark.usefixtures("no_problem_is_small")
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 9),
    offset=st.sampled_from([0.0, 100.0]),
    repeated=st.booleans(),
    scale=st.sampled_from([1.0, 1e3]),
)
def test_distances_without_blocks_by_determinants(seed, d, offset, repeated, scale):
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((int(size), d)) + offset for size in rng.integers(0, 9, 4)]
    blocks += [rng.standard_normal((d + 20, d)) + offset]
    blocks[0] = (blocks[0] - offset) * scale + offset
    if repeated:
        blocks[1] = np.repeat(blocks[1][:1], len(blocks[1]), axis=0)
    x, other = np.concatenate(blocks), rng.standard_normal((d + 30, d)) * 1.4 + offset
    reference = gaussian_factor(*moments(other))

    def measure(group):
        rest = np.concatenate([block for number, block in enumerate(blocks) if number not in group])
        return frechet_distance_to(reference, mean=rest.mean(axis=0), cov=covariance(rest))

    groups = [(0,), (1,), (2,), (3,), (0, 1), ()]
    whole = Whole(len(x), *moments(x))
    found = distances_without(blocks, groups, reference, whole=whole, measure=measure)
    for value, group in zip(found, groups, strict=True):
        assert value == pytest.approx(measure(group), rel=2 * LEAVE_OUT_ERROR)


@pytest.mark.usefixtures("no_problem_is_small")
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(8, 24),
    d=st.integers(2, 30),
    blocks=st.integers(2, 5),
    offset=st.sampled_from([0.0, 100.0]),
    repeated=st.booleans(),
)
def test_few_rows_without_blocks_by_determinants(seed, n, d, blocks, offset, repeated):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(0, -2, d) + offset
    if repeated:
        x[n // 2 :] = x[: n - n // 2]
    other = 1.3 * rng.standard_normal((40, d)) + offset
    reference = gaussian_factor(*moments(other))
    edges = [i * n // blocks for i in range(blocks + 1)]
    found = frechet_without_blocks(x, edges, reference)
    for block in range(blocks):
        rest = np.delete(x, np.s_[edges[block] : edges[block + 1]], axis=0)
        assert found[block] == pytest.approx(frechet_distance_from_features(rest, other), rel=1e-6)


def test_many_blocks_are_left_out_without_eigenvalues_of_each(monkeypatch):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((260, 300))
    other = 1.2 * rng.standard_normal((900, 300))
    reference = gaussian_factor(*moments(other))
    edges = np.linspace(0, 260, 21).astype(int).tolist()
    monkeypatch.setattr(downdates, "FEWEST_DIMENSIONS", 200)
    expected = [
        frechet_distance_from_features(np.delete(x, np.s_[a:b], axis=0), other)
        for a, b in itertools.pairwise(edges[:4])
    ]
    monkeypatch.setattr("evalkit.numerics.leave_out_few.symmetric_eigenvalues", pytest.fail)
    found = frechet_without_blocks(x, edges, reference)
    np.testing.assert_allclose(found[:3], expected, rtol=LEAVE_OUT_ERROR)


@pytest.mark.parametrize("decay", [4, 10, 20, 30])
def test_few_rows_of_wide_spectra_without_blocks(decay, monkeypatch):
    """Of features of a network with random weights Gram matrices lose most eigenvalues."""
    rng, d, n = np.random.default_rng(decay), 400, 320
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    spread = np.exp(-np.arange(d) / d * decay)
    x, real = (rng.standard_normal((n, d)) * spread @ turn * scale + 3 for scale in (1, 1.1))
    monkeypatch.setattr(downdates, "FEWEST_DIMENSIONS", 300)
    edges = np.linspace(0, n, 41).astype(int).tolist()
    parts = [slice(*ends) for ends in zip(edges, edges[2:], strict=False)]
    plain = [frechet_distance_from_features(np.delete(x, part, axis=0), real) for part in parts]
    monkeypatch.setattr("evalkit.numerics.leave_out_few.symmetric_eigenvalues", pytest.fail)
    found = frechet_without_slices(x, parts, gaussian_factor_from_features(real))
    np.testing.assert_allclose(found, plain, rtol=LEAVE_OUT_ERROR)


@pytest.mark.parametrize("decay", [2, 8, 14, 20])
def test_wide_spectra_without_blocks(decay, monkeypatch):
    rng, d, n = np.random.default_rng(decay), 300, 1200
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    spread = np.exp(-np.arange(d) / d * decay)
    real = rng.standard_normal((n, d)) * spread @ turn
    blocks = np.array_split(rng.standard_normal((n, d)) * spread @ turn * 1.1, 20)
    reference = gaussian_factor(*moments(real))
    whole = Whole(n, *moments(np.concatenate(blocks)))
    groups = [(0,), (3,), (7,), (19,)]
    found = distances_without(blocks, groups, reference, whole=whole, measure=pytest.fail)
    plain = [
        rest.distance for rest in rests_without(blocks, groups, reference, whole=whole, measure=pytest.fail)
    ]
    np.testing.assert_allclose(found, plain, rtol=LEAVE_OUT_ERROR)
    for value, group in zip(found, groups, strict=True):
        rest = np.concatenate([block for number, block in enumerate(blocks) if number not in group])
        assert value == pytest.approx(frechet_distance_from_features(rest, real), rel=LEAVE_OUT_ERROR)


def test_groups_side_by_side_give_the_same(monkeypatch):
    """By determinants on one thread and on three, but for one group that is not proven."""
    rng, d, n = np.random.default_rng(8), 120, 600
    monkeypatch.setattr(downdates, "FEWEST_DIMENSIONS", 60)
    x, real = rng.standard_normal((n, d)) * 1.1, rng.standard_normal((n, d))
    blocks = np.split(x, [12, 21, *range(33, 589, 12)])  # the second has 9 rows
    reference, groups = gaussian_factor(*moments(real)), [(number,) for number in range(len(blocks))]
    by_determinants = []

    def proven(spectrum, rows, rule):
        by_determinants.append(len(rows))
        return (0.0, math.inf) if len(rows) == 9 + 1 else without_rows(spectrum, rows, rule)

    monkeypatch.setattr(leave_out, "without_rows", proven)
    asked = {"reference": reference, "whole": Whole(n, *moments(x)), "measure": pytest.fail}
    here = distances_without(blocks, groups, **asked)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with products_on("cpu"):
                found.append(distances_without(blocks, groups, **asked))
    finally:
        torch.set_num_threads(before)
    assert len(by_determinants) == 3 * len(groups)
    assert by_determinants.count(9 + 1) == 3
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], here, rtol=LEAVE_OUT_ERROR)
    for number, (value, block) in enumerate(zip(found[0], blocks, strict=True)):
        rest = np.concatenate([*blocks[:number], *blocks[number + 1 :]])
        assert len(rest) == n - len(block)
        assert value == pytest.approx(frechet_distance_from_features(rest, real), rel=LEAVE_OUT_ERROR)
