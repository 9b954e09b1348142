"""Square roots and factors of positive semidefinite matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import psd_factor, sqrtm_psd
from evalkit.numerics.linalg import (
    gram_nuclear_norm,
    lower_gram,
    polar_rows,
    psd_triangle,
    root_sum,
    root_sum_error,
    symmetric_eigenvalues,
    times_triangle,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 9), rank=st.integers(1, 9))
def test_root_and_factor_square_back(seed, d, rank):
    f = np.random.default_rng(seed).standard_normal((d, min(rank, d)))
    matrix = f @ f.T
    root, factor = sqrtm_psd(matrix), psd_factor(matrix)
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(root @ root, matrix, atol=1e-13 * scale)
    np.testing.assert_array_equal(root, root.T)
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-13 * scale)
    assert factor.shape == (d, min(rank, d))
    assert np.linalg.eigvalsh(root)[0] >= -1e-13 * scale


def test_root_of_known_matrices():
    np.testing.assert_allclose(sqrtm_psd(np.diag([4.0, 9.0])), np.diag([2.0, 3.0]), atol=1e-15)
    np.testing.assert_allclose(sqrtm_psd(np.array([[2.0, 2.0], [2.0, 2.0]])), np.ones((2, 2)), atol=1e-14)
    np.testing.assert_array_equal(sqrtm_psd(np.zeros((2, 2))), np.zeros((2, 2)))


def test_small_negative_eigenvalues_are_clipped_and_large_ones_refused():
    assert sqrtm_psd(np.diag([1.0, -1e-9]))[1, 1] == 0.0
    with pytest.raises(InvalidInputError, match="lowest eigenvalue"):
        sqrtm_psd(np.diag([1.0, -1e-3]))
    with pytest.raises(InvalidInputError, match="not positive semidefinite"):
        psd_factor(np.diag([1.0, -1e-3]))


def test_graded_factor_is_accurate_to_the_last_entry():
    variances = np.logspace(0, -12, 7)
    turn = np.eye(7) + np.triu(np.full((7, 7), 0.1), 1)
    exact = np.sqrt(variances)[:, None] * turn
    factor = psd_factor(exact @ exact.T)
    np.testing.assert_allclose(np.square(factor).sum(axis=1), np.square(exact).sum(axis=1), rtol=1e-13)


def test_root_sum_bounds_its_error():
    value, error = root_sum(np.array([4.0, 1.0, 0.0]))
    assert value == 3.0
    assert 0 < error < 1e-6
    assert root_sum(np.zeros(3)) == (0.0, 0.0)
    assert root_sum(np.zeros(0)) == (0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 8), n=st.integers(1, 8), decay=st.integers(0, 12))
def test_gram_norm_is_within_its_bound(seed, m, n, decay):
    matrix = np.random.default_rng(seed).standard_normal((m, n)) * np.logspace(0, -decay, n)
    value, error = gram_nuclear_norm(matrix)
    exact = np.linalg.svd(matrix, compute_uv=False).sum()
    assert abs(value - exact) <= error + 1e-14 * exact


def test_the_determinant_tells_lost_eigenvalues():
    true = np.logspace(0, -12, 40)
    known = float(np.log(true).sum())
    assert root_sum_error(true, known) < 1e-13 * np.sqrt(true).sum()
    spoilt = true + 1e-13
    assert root_sum_error(spoilt, known) > abs(np.sqrt(spoilt).sum() - np.sqrt(true).sum()) / 10
    assert root_sum_error(np.append(true, 0.0), known) == math.inf


def test_polar_rows_are_orthonormal_and_align():
    matrix = np.random.default_rng(0).standard_normal((3, 5))
    u = polar_rows(matrix)
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-14)
    assert np.trace(matrix @ u.T) == pytest.approx(np.linalg.svd(matrix, compute_uv=False).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 9), rank=st.integers(0, 9), m=st.integers(0, 6))
def test_triangle_squares_back_and_multiplies(seed, d, rank, m):
    rng = np.random.default_rng(seed)
    f = rng.standard_normal((d, min(rank, d)))
    matrix = f @ f.T
    triangle, order = psd_triangle(matrix)
    assert sorted(order) == list(range(d))
    assert len(triangle) == d
    assert min(rank, d) <= triangle.shape[1] <= d
    # The product f f^T is rounded, so that a column more may be found: of the size of that rounding.
    beyond = np.square(triangle[:, min(rank, d) :])
    assert beyond.max(initial=0.0) <= 4 * d * np.finfo(float).eps * np.abs(matrix).max(initial=1e-300)
    np.testing.assert_array_equal(triangle, np.tril(triangle))
    np.testing.assert_allclose(triangle @ triangle.T, matrix[np.ix_(order, order)], atol=1e-12)
    rows = rng.standard_normal((m, d))
    for layout in ("C", "F"):
        given_rows = np.array(rows, order=layout)
        np.testing.assert_allclose(times_triangle(given_rows, triangle), rows @ triangle, atol=1e-12)
        np.testing.assert_array_equal(given_rows, rows)
        scratch = times_triangle(given_rows, triangle, overwrite=True)
        np.testing.assert_allclose(scratch, rows @ triangle, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(0, 8), n=st.integers(0, 8))
def test_gram_and_eigenvalues_read_one_triangle_of_any_layout(seed, m, n):
    matrix = np.random.default_rng(seed).standard_normal((m, n))
    for layout in ("C", "F"):
        gram = lower_gram(np.array(matrix, order=layout))
        np.testing.assert_allclose(np.tril(gram), np.tril(matrix @ matrix.T), atol=1e-13)
        spoilt = np.array(np.tril(gram) + 9 * np.triu(np.ones((m, m)), 1), order=layout)
        kept, expected = spoilt.copy(), np.linalg.eigvalsh(matrix @ matrix.T)
        np.testing.assert_allclose(symmetric_eigenvalues(spoilt), expected, atol=1e-12)
        np.testing.assert_array_equal(spoilt, kept)
        np.testing.assert_allclose(symmetric_eigenvalues(spoilt, overwrite=True), expected, atol=1e-12)


@pytest.mark.parametrize("place", [(0, 299), (140, 3), (299, 298)])
def test_asymmetry_is_found_in_any_tile(place):
    matrix = np.eye(300)
    matrix[place] += 1e-9
    averaged = psd_factor(matrix)
    np.testing.assert_allclose(
        (averaged @ averaged.T)[place], matrix[place] / 2 + matrix.T[place] / 2, rtol=1e-6
    )
    matrix[place] += 1e-3
    with pytest.raises(InvalidInputError, match="not symmetric"):
        psd_factor(matrix)
