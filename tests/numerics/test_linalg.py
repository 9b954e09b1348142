"""Square roots and factors of positive semidefinite matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import psd_factor, sqrtm_psd
from evalkit.numerics.linalg import gram_nuclear_norm, polar_rows, root_sum


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


def test_polar_rows_are_orthonormal_and_align():
    matrix = np.random.default_rng(0).standard_normal((3, 5))
    u = polar_rows(matrix)
    np.testing.assert_allclose(u @ u.T, np.eye(3), atol=1e-14)
    assert np.trace(matrix @ u.T) == pytest.approx(np.linalg.svd(matrix, compute_uv=False).sum())
