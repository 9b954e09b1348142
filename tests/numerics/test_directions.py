"""Directions and nearest cosine distances against plain formulas and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from evalkit.errors import InvalidInputError
from evalkit.numerics import directions
from evalkit.numerics.directions import nearest_cosine_distances, unit_rows

seeds = st.integers(0, 2**32 - 1)


def features(seed, n, d=5):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, exponent=st.integers(-35, 35))
def test_unit_rows_have_length_one_at_any_scale(seed, exponent):
    x = features(seed, 6)
    units = unit_rows(x * np.float32(10.0**exponent), "x")
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(units, unit_rows(x, "x"), atol=1e-6)  # float32 holds the scaled rows


def test_unit_rows_do_not_overflow_where_squares_would():
    np.testing.assert_allclose(unit_rows(np.array([[3e200, 4e200]]), "x"), [[0.6, 0.8]], rtol=1e-15)
    np.testing.assert_allclose(unit_rows(np.array([[3e-200, 4e-200]]), "x"), [[0.6, 0.8]], rtol=1e-15)


def test_unit_rows_refuse_what_has_no_direction():
    with pytest.raises(InvalidInputError, match="2 rows of zeros of 3"):
        unit_rows(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -0.0]]), "x")
    with pytest.raises(InvalidInputError, match="at least 2"):
        unit_rows(features(0, 1), "x", minimum=2)
    with pytest.raises(InvalidInputError, match="NaN"):
        unit_rows(np.array([[np.nan, 1.0]]), "x")


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(1, 9), m=st.integers(1, 9))
def test_nearest_distances_equal_scikit_learn(seed, n, m):
    x, y = features([seed, 0], n).astype(np.float64), features([seed, 1], m).astype(np.float64)
    both_ends = np.minimum(cosine_distances(x, y), cosine_distances(x, -y))
    np.testing.assert_allclose(nearest_cosine_distances(x, y), both_ends.min(axis=1), rtol=1e-9, atol=1e-14)


def test_tiles_do_not_matter(monkeypatch):
    x, y = features(0, 23), features(1, 17)
    whole = nearest_cosine_distances(x, y)
    monkeypatch.setattr(directions, "TILE_ENTRIES", 40)
    np.testing.assert_allclose(nearest_cosine_distances(x, y), whole, rtol=1e-13)


def test_conventions():
    reference = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    generated = np.array([[5.0, 0, 0], [-1.0, 0, 0], [0, 0, 1.0], [1.0, 1.0, 0]])
    expected = [0.0, 0.0, 1.0, 1 - np.sqrt(0.5)]  # a copy, its negative, perpendicular, between
    np.testing.assert_allclose(nearest_cosine_distances(generated, reference), expected, atol=1e-15)


def test_near_copies_keep_their_digits():
    x = features(0, 4, 300).astype(np.float64)
    step = 1e-9
    moved = x + step * np.random.default_rng(1).standard_normal(x.shape)
    exact = [_mpmath_distance(a, b) for a, b in zip(moved, x, strict=True)]
    np.testing.assert_allclose(nearest_cosine_distances(moved, x), exact, rtol=1e-5)
    assert (nearest_cosine_distances(x, x) == 0).all()


def _mpmath_distance(a, b):
    import mpmath

    with mpmath.workdps(50):
        a, b = (mpmath.matrix([mpmath.mpf(float(v)) for v in row]) for row in (a, b))
        dot = mpmath.fdot(a, b)
        return float(1 - abs(dot) / mpmath.sqrt(mpmath.fdot(a, a) * mpmath.fdot(b, b)))


def test_other_dimensions_are_refused():
    with pytest.raises(InvalidInputError, match="dimensions"):
        nearest_cosine_distances(features(0, 3), features(0, 3, 4))
