"""Cosines by row: against scikit-learn and mpmath, laws, and what has no direction."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evalkit.errors import InvalidInputError
from evalkit.numerics.cosine import cosine_rows, directional_cosine, unit_rows

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
matrices = arrays(np.float64, (4, 3), elements=finite)


def normal(seed: int, n: int = 20, d: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_agrees_with_scikit_learn() -> None:
    from sklearn.metrics.pairwise import paired_cosine_distances

    a, b = normal(0), normal(1)
    assert np.allclose(cosine_rows(a, b), 1 - paired_cosine_distances(a, b), rtol=1e-12, atol=1e-14)


def test_agrees_with_fifty_digits() -> None:
    a, b = normal(2, 1, 30)[0] * 1e-3, normal(3, 1, 30)[0] * 1e5
    with mpmath.workdps(50):
        dot = mpmath.fsum(mpmath.mpf(x) * mpmath.mpf(y) for x, y in zip(a, b, strict=True))
        lengths = [mpmath.sqrt(mpmath.fsum(mpmath.mpf(x) ** 2 for x in v)) for v in (a, b)]
        expected = float(dot / (lengths[0] * lengths[1]))
    assert cosine_rows(a[None], b[None])[0] == pytest.approx(expected, rel=1e-13)


@given(matrices, matrices)
def test_laws(a: np.ndarray, b: np.ndarray) -> None:
    value = cosine_rows(a, b)
    defined = a.any(axis=1) & b.any(axis=1)
    assert np.array_equal(np.isfinite(value), defined)
    assert (np.abs(value[defined]) <= 1).all()
    assert np.allclose(value[defined], cosine_rows(b, a)[defined])
    assert np.allclose(value[defined], -cosine_rows(-a, b)[defined])
    assert np.allclose(value[defined], cosine_rows(a * 3.5, b * 0.25)[defined], atol=1e-12)
    assert np.allclose(cosine_rows(a, a)[a.any(axis=1)], 1)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_lengths_neither_vanish_nor_overflow(scale: float) -> None:
    a = normal(4)
    assert np.allclose(cosine_rows(a * scale, normal(5)), cosine_rows(a, normal(5)), rtol=1e-12)


def test_float32_rows_are_measured_in_float64() -> None:
    a, b = normal(6).astype(np.float32), normal(7).astype(np.float32)
    assert np.array_equal(cosine_rows(a, b), cosine_rows(a.astype(np.float64), b.astype(np.float64)))


def test_zero_has_no_direction() -> None:
    a = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert np.array_equal(np.isnan(cosine_rows(a, np.ones((2, 2)))), [True, False])
    assert np.isnan(unit_rows(a, "a")[0]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    a = normal(0)
    a[3, 2] = bad
    with pytest.raises(InvalidInputError):
        cosine_rows(a, normal(1))


def test_shapes_that_do_not_pair_up_are_refused() -> None:
    for other in (normal(1, 19), normal(1, 20, 6), normal(1)[0]):
        with pytest.raises(InvalidInputError):
            cosine_rows(normal(0), other)
        with pytest.raises(InvalidInputError):
            directional_cosine(
                source_image=normal(0), edited_image=other, source_text=normal(0), edited_text=normal(0)
            )


def test_directional_is_instructpix2pixs_formula() -> None:
    """clip_similarity.py: normalised features, then torch's cosine of the two differences."""
    import torch
    import torch.nn.functional as F

    sides = [torch.from_numpy(normal(seed)) for seed in range(4)]
    image0, image1, text0, text1 = (side / side.norm(dim=1, keepdim=True) for side in sides)
    expected = F.cosine_similarity(image1 - image0, text1 - text0)
    ours = directional_cosine(
        source_image=normal(0), edited_image=normal(1), source_text=normal(2), edited_text=normal(3)
    )
    assert np.allclose(ours, expected.numpy(), rtol=1e-10)


def test_directional_conventions() -> None:
    """An edit along the text's direction scores 1, against it -1, and nothing done has no score."""
    e = np.eye(4)
    source, target = e[[0, 0, 0, 0, 0]], e[[1, 1, 1, 1, 0]]
    edited = np.stack([e[1], 5 * e[1], e[0], e[2], e[1]])
    value = directional_cosine(
        source_image=source, edited_image=edited, source_text=source, edited_text=target
    )
    assert value[:2] == pytest.approx([1, 1])
    assert np.isnan(value[2])  # the image did not change
    assert value[3] == pytest.approx(0.5)  # half of it: away from the source
    assert np.isnan(value[4])  # the text did not change
    back = directional_cosine(
        source_image=edited[:1], edited_image=source[:1], source_text=source[:1], edited_text=target[:1]
    )
    assert back == pytest.approx([-1])
