"""Nearest neighbours against plain loops, ties, duplicates and tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import distances
from evalkit.numerics.distances import nearest_other_rows, nearest_rows, squared_distances


def by_loops(x, y, k, *, skip_self=False):
    rows, lengths = [], []
    for i, a in enumerate(x):
        found = sorted(
            (np.float32(np.linalg.norm(a - b)), j) for j, b in enumerate(y) if not skip_self or i != j
        )
        rows.append([j for _, j in found[:k]])
        lengths.append([length for length, _ in found[:k]])
    return np.array(rows), np.array(lengths)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), m=st.integers(3, 14), tile=st.integers(1, 60),
    grid=st.booleans(),
)  # fmt: skip
def test_definition_in_tiles_of_any_size_and_first_on_ties(seed, n, m, tile, grid):
    rng = np.random.default_rng(seed)
    # Points of a small grid have many equal distances and duplicates.
    x, y = ((rng.integers(0, 3, (c, 2)) * 1.0 if grid else rng.standard_normal((c, 2))) for c in (n, m))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "TILE_ENTRIES", tile)
        patch.setattr(distances, "PAIRS", 3)
        found, other = nearest_rows(x, y, count=3), nearest_other_rows(y)
    rows, lengths = by_loops(x, y, 3)
    np.testing.assert_array_equal(found.index, rows)
    np.testing.assert_allclose(found.distance, lengths, rtol=1e-6)
    rows, lengths = by_loops(y, y, 1, skip_self=True)
    np.testing.assert_array_equal(other.index, rows)
    np.testing.assert_allclose(other.distance, lengths, rtol=1e-6)


def test_against_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((80, 30)), rng.standard_normal((120, 30))
    lengths, rows = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(y).kneighbors(x)
    found = nearest_rows(x.astype(np.float32), y.astype(np.float32), count=2)
    np.testing.assert_array_equal(found.index, rows)
    np.testing.assert_allclose(found.distance, lengths, rtol=1e-6)


def test_equal_rows_are_at_distance_zero_far_from_the_origin():
    y = (np.random.default_rng(2).standard_normal((50, 8)) + 1e4).astype(np.float32)
    found = nearest_rows(y, y)
    np.testing.assert_array_equal(found.index[:, 0], np.arange(50))
    assert not found.distance.any()
    assert nearest_other_rows(np.concatenate([y, y])).distance.max() == 0


def test_squares_keep_their_digits_where_rows_are_nearly_equal():
    x = np.random.default_rng(3).standard_normal((5, 20)) + 100
    y = x + 1e-6
    np.testing.assert_allclose(np.diag(squared_distances(x, y)), 20e-12, rtol=1e-6)


def test_errors():
    x = np.zeros((4, 2))
    with pytest.raises(InvalidInputError, match="count"):
        nearest_rows(x, x, count=0)
    with pytest.raises(InvalidInputError, match="at least 5"):
        nearest_rows(x, x, count=5)
    with pytest.raises(InvalidInputError, match="at least 2"):
        nearest_other_rows(x[:1])
    with pytest.raises(InvalidInputError, match="dimensions"):
        nearest_rows(x[:, :1], x)
    with pytest.raises(InvalidInputError, match="NaN"):
        nearest_rows(x * np.nan, x)
