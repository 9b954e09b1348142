"""The trimmed mean of path distances against a plain second writing, and its laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import block_edges
from evalkit.numerics.path_length import DISCARDS_FROM, path_length, path_length_without_blocks


def distances(seed, n):
    return np.random.default_rng(seed).lognormal(3, 1.5, n).astype(np.float32)


def by_sorting(x, lower=1, higher=99):
    """The percentiles as elements of the sorted list: floor and ceiling of their position."""
    ordered = np.sort(x.astype(np.float64))
    low = ordered[int(np.floor(lower * (len(x) - 1) / 100))]
    high = ordered[int(np.ceil(higher * (len(x) - 1) / 100))]
    kept = [v for v in ordered if low <= v <= high]
    return sum(kept) / len(kept), len(x) - len(kept)


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 102, 201, 1000, 5001])
def test_against_sorting(n):
    x = distances(n, n)
    result = path_length(x)
    mean, discarded = by_sorting(x)
    assert result.mean == pytest.approx(mean, rel=1e-13)
    assert result.discarded == discarded
    assert result.median == np.median(x.astype(np.float64))


def test_what_the_published_percentiles_discard():
    assert path_length(np.arange(DISCARDS_FROM - 1.0)).discarded == 0
    assert path_length(np.arange(float(DISCARDS_FROM))).discarded == 2
    assert path_length(np.arange(50_000.0)).discarded == 998  # 499 on each side
    outlier = np.append(np.ones(1000), 1e9)
    assert path_length(outlier).mean == 1.0
    assert path_length(np.ones(500)).discarded == 0  # ties with a percentile stay
    everything = path_length(outlier, lower=0, higher=100)
    assert (everything.discarded, everything.mean) == (0, pytest.approx(1e9 / 1001, rel=1e-5))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), factor=st.floats(1e-3, 1e3))
def test_scale_order_and_range(seed, n, factor):
    x = distances(seed, n).astype(np.float64)
    result = path_length(x)
    assert path_length(factor * x).mean == pytest.approx(factor * result.mean, rel=1e-12)
    assert path_length(np.random.default_rng(seed).permutation(x)).mean == pytest.approx(
        result.mean, rel=1e-12
    )
    assert x.min() <= result.mean <= x.max() * (1 + 1e-15)


def test_without_blocks_recomputes_the_percentiles():
    x, edges = distances(0, 700), block_edges(700, 7)
    for (start, stop), part in zip(
        itertools.pairwise(edges), path_length_without_blocks(x, edges), strict=True
    ):
        assert part == path_length(np.delete(x, np.s_[start:stop]))


@pytest.mark.parametrize(
    "x", [np.empty(0), np.ones((2, 2)), np.array([1, np.nan]), np.array([1, np.inf]), np.array([1.0, -1.0])]
)
def test_errors(x):
    with pytest.raises(InvalidInputError):
        path_length(x)


@pytest.mark.parametrize(("lower", "higher"), [(-1, 99), (1, 101), (50, 50), (99, 1)])
def test_percentiles_must_rise(lower, higher):
    with pytest.raises(InvalidInputError, match="percentiles"):
        path_length(np.ones(5), lower=lower, higher=higher)
