"""Linear and spherical interpolation: laws, 50-digit oracle, the published form and torch-fidelity's."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics.interpolation import ANTIPODAL, lerp, slerp

seeds = st.integers(0, 2**32 - 1)
positions = st.floats(0, 1)


def pair(seed, d, shape=()):
    return np.random.default_rng(seed).standard_normal((2, *shape, d))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def angle_between(a, b):
    u, v = unit(a), unit(b)
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def exact(a, b, t, norm):
    """Shoemake's formula with 50 digits, from the very doubles."""
    with mpmath.workdps(50):
        x, y = mpmath.matrix([mpmath.mpf(v) for v in a]), mpmath.matrix([mpmath.mpf(v) for v in b])
        t = mpmath.mpf(t)
        length_x, length_y = mpmath.norm(x), mpmath.norm(y)
        u, v = x / length_x, y / length_y
        w = 2 * mpmath.atan2(mpmath.norm(u - v), mpmath.norm(u + v))
        if w < mpmath.mpf(10) ** -40:
            p, q = 1 - t, t
        else:
            p, q = mpmath.sin((1 - t) * w) / mpmath.sin(w), mpmath.sin(t * w) / mpmath.sin(w)
        if norm == "any":
            out = p * x + q * y
        else:
            out = p * u + q * v
            if norm == "linear":
                out *= (1 - t) * length_x + t * length_y
        return np.array([float(value) for value in out])


@settings(max_examples=60, deadline=None)
@given(seed=seeds, d=st.integers(2, 20), t=positions)
def test_unit_vectors_stay_on_the_sphere(seed, d, t):
    a, b = pair(seed, d, (3,))
    np.testing.assert_allclose(np.linalg.norm(slerp(a, b, t, norm="unit"), axis=-1), 1, rtol=4e-16)
    np.testing.assert_allclose(np.linalg.norm(slerp(unit(a), unit(b), t), axis=-1), 1, rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, d=st.integers(2, 20), t=positions, norm=st.sampled_from(["linear", "unit", "any"]))
def test_ends_and_mirror(seed, d, t, norm):
    a, b = pair(seed, d, (3,))
    ends = (unit(a), unit(b)) if norm == "unit" else (a, b)
    tolerance = {"rtol": 0, "atol": 4e-16} if norm == "unit" else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(slerp(a, b, 0.0, norm=norm), ends[0], **tolerance)
    np.testing.assert_allclose(slerp(a, b, 1.0, norm=norm), ends[1], **tolerance)
    forward, backward = slerp(a, b, t, norm=norm), slerp(b, a, 1 - t, norm=norm)
    # 1 - t rounds: below t = 1e-16 the mirror is another position.
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, d=st.integers(2, 20), t=positions, norm=st.sampled_from(["linear", "unit"]))
def test_the_angle_grows_evenly(seed, d, t, norm):
    """Constant angular speed, whatever the two lengths: the angle from a is t times the whole."""
    a, b = pair(seed, d)
    b = 7 * b
    assume(angle_between(a, b) < 3.1)
    point = slerp(a, b, t, norm=norm)
    assert angle_between(a, point) == pytest.approx(t * angle_between(a, b), abs=1e-14)
    assert angle_between(point, b) == pytest.approx((1 - t) * angle_between(a, b), abs=1e-14)
    length = 1 if norm == "unit" else (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
    assert np.linalg.norm(point) == pytest.approx(length, rel=1e-14)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, d=st.integers(2, 12), s=positions, t=positions)
def test_a_part_of_an_arc_is_an_arc(seed, d, s, t):
    a, b = (unit(x) for x in pair(seed, d))
    assume(angle_between(a, b) < 3.1)
    np.testing.assert_allclose(slerp(a, slerp(a, b, s), t), slerp(a, b, s * t), rtol=0, atol=3e-14)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, d=st.integers(2, 8), t=positions, scale=st.floats(1e-3, 1e3))
def test_scale_and_rotation(seed, d, t, scale):
    a, b = pair(seed, d)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    np.testing.assert_allclose(slerp(scale * a, scale * b, t), scale * slerp(a, b, t), rtol=1e-11)
    np.testing.assert_allclose(slerp(a @ turn, b @ turn, t), slerp(a, b, t) @ turn, rtol=0, atol=1e-12)
    np.testing.assert_allclose(slerp(scale * a, b, t, norm="unit"), slerp(a, b, t, norm="unit"), atol=1e-13)


@pytest.mark.parametrize("norm", ["linear", "unit", "any"])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-6, 1e-3, 0.5, np.pi / 2, 2.5, 3.1, np.pi - 1e-4])
def test_fifty_digits(norm, angle):
    """1e-15 of the longer vector, over (pi - angle) where the ends are nearly opposite."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.standard_normal((6, 2)))[0].T
    a, b = 2.0 * basis[0], 3.0 * (np.cos(angle) * basis[0] + np.sin(angle) * basis[1])
    for t in (0.0, 1e-9, 1e-4, 0.25, 0.5, 0.5001, 1.0):
        got, wanted = slerp(a, b, t, norm=norm), exact(a, b, t, norm)
        # "any" near the antipode adds two vectors that do not cancel, divided by sin: large itself.
        size = max(1, np.abs(wanted).max())
        np.testing.assert_allclose(got, wanted, rtol=0, atol=6e-15 * size / min(1, np.pi - angle))


def test_a_step_of_the_path_length_keeps_its_digits():
    """The difference of two points 1e-4 apart, relative to itself: what a float32 path cannot hold."""
    a, b = pair(0, 512)
    step = slerp(a, b, 0.5 + 1e-4, norm="unit") - slerp(a, b, 0.5, norm="unit")
    wanted = exact(a, b, 0.5 + 1e-4, "unit") - exact(a, b, 0.5, "unit")
    assert np.linalg.norm(step - wanted) < 1e-11 * np.linalg.norm(wanted)


def test_the_published_form_is_the_unit_arc():
    """u cos(t w) + c sin(t w) with c the unit part of v across u, in float64."""
    a, b = pair(1, 32, (50,))
    t = np.random.default_rng(2).random(50)
    u, v = unit(a), unit(b)
    cosine = (u * v).sum(-1, keepdims=True)
    turn = t[:, None] * np.arccos(cosine)
    published = unit(u * np.cos(turn) + unit(v - cosine * u) * np.sin(turn))
    np.testing.assert_allclose(slerp(a, b, t, norm="unit"), published, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("ours", "theirs"), [("any", "batch_slerp_any"), ("unit", "batch_slerp_unit")])
def test_torch_fidelity(ours, theirs):
    """In float64. Its "unit" weighs the vectors as they are: the published arc for unit vectors only."""
    import torch_fidelity.noise as module

    a, b = pair(3, 16, (40,))
    if ours == "unit":
        a, b = unit(a), unit(b)
    wanted = getattr(module, theirs)(torch.from_numpy(a), torch.from_numpy(b), 0.3).numpy()
    np.testing.assert_allclose(slerp(a, b, 0.3, norm=ours), wanted, rtol=0, atol=2e-15)


def test_quarter_circle_and_norms():
    east, north = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    half = np.array([np.sqrt(3) / 2, 0.5])
    np.testing.assert_allclose(slerp(east, north, 1 / 3), (5 / 3) * half, rtol=1e-12)
    np.testing.assert_allclose(slerp(east, north, 1 / 3, norm="unit"), half, rtol=1e-12)
    np.testing.assert_allclose(slerp(east, north, 1 / 3, norm="any"), half * [1, 3], rtol=1e-12)


def test_parallel_vectors_are_lerped():
    a = np.array([1.0, 2.0])
    np.testing.assert_allclose(slerp(a, 3 * a, 0.25), 1.5 * a, rtol=1e-15)
    np.testing.assert_allclose(slerp(a, a, 0.3), lerp(a, a, 0.3), rtol=4e-16)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, shift=st.floats(1e-18, 1e-3), t=positions)
@example(seed=0, shift=1e-16, t=0.5)
def test_tiny_angles_join_smoothly(seed, shift, t):
    a, side = (unit(x) for x in pair(seed, 5))
    b = a + shift * side
    point = slerp(a, b, t)
    np.testing.assert_allclose(point, lerp(a, b, t), rtol=0, atol=shift**2 + 5e-16)


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-170, 1e170, 1e300])
def test_neither_overflow_nor_underflow(size):
    a, b = size * np.array([1.0, 0.0]), size * np.array([0.0, 1.0])
    np.testing.assert_allclose(slerp(a, b, 0.5, norm="unit"), np.sqrt([0.5, 0.5]), rtol=1e-15)
    assert np.isfinite(slerp(a, b, 0.25)).all()


def test_positions_and_batches():
    a, b = pair(4, 3, (2, 5))
    t = np.linspace(0, 1, 10).reshape(2, 5)
    many = slerp(a, b, t)
    assert many.shape == (2, 5, 3)
    for i in np.ndindex(2, 5):
        np.testing.assert_array_equal(many[i], slerp(a[i], b[i], t[i]))
    half = slerp(a.astype(np.float32), b.astype(np.float32), 0.5)
    assert half.dtype == np.float64
    beyond = slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 1.5, norm="unit")
    np.testing.assert_allclose(beyond, [-np.sqrt(0.5), np.sqrt(0.5)], rtol=1e-14)


def test_lerp_is_exact_at_both_ends():
    a, b = np.array([0.1, 1e16]), np.array([0.7, 1.0])
    np.testing.assert_array_equal(lerp(a, b, 0.0), a)
    np.testing.assert_array_equal(lerp(a, b, 1.0), b)


def test_almost_antipodal_is_the_limit():
    a = np.array([1.0, 0.0])
    near = np.pi - 2 * ANTIPODAL
    np.testing.assert_allclose(
        slerp(a, np.array([np.cos(near), np.sin(near)]), 0.5), [np.cos(near / 2), np.sin(near / 2)], atol=1e-9
    )
    nearer = np.pi - ANTIPODAL / 2
    with pytest.raises(InvalidInputError, match="antipodal"):
        slerp(a, np.array([np.cos(nearer), np.sin(nearer)]), 0.5)


@pytest.mark.parametrize(
    ("a", "b", "t"),
    [([1.0, 0.0], [-2.0, 0.0], 0.5), ([0.0, 0.0], [1.0, 0.0], 0.5), ([np.nan, 0.0], [1.0, 0.0], 0.5),
     ([1.0, 0.0], [1.0, 0.0, 0.0], 0.5), ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]), (1.0, 1.0, 0.5),
     ([], [], 0.5), ([1.0, 0.0], [0.0, 1.0], np.inf)],
    ids=["antipodal", "zero", "nan", "shape", "positions", "scalar", "empty", "position"],
)  # fmt: skip
def test_errors(a, b, t):
    with pytest.raises(InvalidInputError):
        slerp(np.array(a), np.array(b), np.array(t))


def test_an_unknown_norm_is_refused():
    with pytest.raises(InvalidInputError, match="unknown norm"):
        slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.5, norm="spherical")
