"""Linear and spherical interpolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import lerp, slerp


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 20), t=st.floats(0, 1))
def test_sphere_ends_and_mirror(seed, d, t):
    a, b = np.random.default_rng(seed).standard_normal((2, 3, d))
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    np.testing.assert_allclose(np.linalg.norm(slerp(u, v, t), axis=-1), 1, rtol=1e-9)
    np.testing.assert_array_equal(slerp(a, b, 0.0), a)
    np.testing.assert_array_equal(slerp(a, b, 1.0), b)
    np.testing.assert_allclose(slerp(a, b, t), slerp(b, a, 1 - t), rtol=1e-7, atol=1e-9)


def test_quarter_circle_and_norms():
    east, north = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    third = slerp(east, north, 1 / 3)
    np.testing.assert_allclose(third, (5 / 3) * np.array([np.sqrt(3) / 2, 0.5]), rtol=1e-12)


def test_angle_grows_evenly():
    a, b = np.array([1.0, 0.0, 0.0]), np.array([np.cos(2.5), np.sin(2.5), 0.0])
    path = slerp(np.tile(a, (11, 1)), np.tile(b, (11, 1)), np.linspace(0, 1, 11))
    np.testing.assert_allclose(np.diff(np.arctan2(path[:, 1], path[:, 0])), 0.25, rtol=1e-12)


def test_parallel_vectors_are_lerped():
    a = np.array([1.0, 2.0])
    np.testing.assert_allclose(slerp(a, 3 * a, 0.25), 1.5 * a, rtol=1e-12)
    np.testing.assert_array_equal(slerp(a, a, 0.3), lerp(a, a, 0.3))


def test_lerp_is_exact_at_both_ends():
    a, b = np.array([0.1, 1e16]), np.array([0.7, 1.0])
    np.testing.assert_array_equal(lerp(a, b, 0.0), a)
    np.testing.assert_array_equal(lerp(a, b, 1.0), b)


@pytest.mark.parametrize(
    ("a", "b", "t"),
    [([1.0, 0.0], [-2.0, 0.0], 0.5), ([0.0, 0.0], [1.0, 0.0], 0.5), ([np.nan, 0.0], [1.0, 0.0], 0.5),
     ([1.0, 0.0], [1.0, 0.0, 0.0], 0.5), ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]), (1.0, 1.0, 0.5)],
    ids=["antipodal", "zero", "nan", "shape", "positions", "scalar"],
)  # fmt: skip
def test_errors(a, b, t):
    with pytest.raises(InvalidInputError):
        slerp(np.array(a), np.array(b), np.array(t))
