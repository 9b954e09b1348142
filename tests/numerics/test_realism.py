"""Realism scores against the printed formula, the authors' convention of pruning, and precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import distances, precision_recall_density_coverage
from evalkit.numerics.realism import realism_scores


def by_formula(generated, reference, k):
    radii = []
    for i, r in enumerate(reference):
        others = sorted(np.float32(np.linalg.norm(r - s)) for j, s in enumerate(reference) if j != i)
        radii.append(others[k - 1])
    kept = [(r, radius) for r, radius in zip(reference, radii, strict=True) if radius <= np.median(radii)]
    return np.array(
        [max(float(radius) / np.float32(np.linalg.norm(g - r)) for r, radius in kept) for g in generated]
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), m=st.integers(6, 15), k=st.integers(1, 4))
def test_definition(seed, n, m, k):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    np.testing.assert_allclose(realism_scores(x, y, k=k), by_formula(x, y, k), rtol=1e-6)


def test_tiles_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((25, 4))
    whole = realism_scores(x, y, k=3)
    monkeypatch.setattr(distances, "TILE_ENTRIES", 30)
    np.testing.assert_array_equal(realism_scores(x, y, k=3), whole)


def test_at_least_one_exactly_inside_a_kept_ball():
    # k = 1: balls 0 and 1 of radius 1, ball 11 of radius 10, which is above the median and dropped.
    reference = np.array([[0.0], [1.0], [11.0]])
    generated = np.array([[2.0], [2.001], [11.0], [-0.5], [0.0]])
    np.testing.assert_allclose(
        realism_scores(generated, reference, k=1), [1, 1 / 1.001, 0.1, 2, np.inf], rtol=1e-6
    )


def test_never_more_than_precision():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 5)) * 1.2, rng.standard_normal((150, 5))
    share = (realism_scores(x, y, k=3) >= 1).mean()
    assert 0 < share <= precision_recall_density_coverage(x, y, k=3).precision


def test_a_ball_without_extent_holds_its_centre_only():
    reference = np.zeros((5, 2))
    assert realism_scores(np.array([[0.0, 0.0], [1.0, 0.0]]), reference, k=2).tolist() == [1.0, 0.0]


def test_errors():
    x = np.zeros((5, 2))
    with pytest.raises(InvalidInputError, match="k must be"):
        realism_scores(x, x, k=0)
    with pytest.raises(InvalidInputError, match="at least 6"):
        realism_scores(x, x, k=5)
    with pytest.raises(InvalidInputError, match="NaN"):
        realism_scores(x * np.nan, x, k=1)
