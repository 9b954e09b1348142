"""Authenticity and the memorisation table against plain loops; shares against SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from evalkit.errors import InvalidInputError
from evalkit.numerics.memorisation import authentic_rows, memorisation_table
from evalkit.numerics.shares import shares_without_blocks, wilson_proportion


def distance(a, b):
    return np.float32(np.linalg.norm(a - b))


def authentic_by_loops(generated, training):
    flags = []
    for g in generated:
        r = min(range(len(training)), key=lambda j: distance(g, training[j]))
        own = min(distance(training[r], training[j]) for j in range(len(training)) if j != r)
        flags.append(own < distance(g, training[r]))
    return flags


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 10), m=st.integers(2, 12), grid=st.booleans())
def test_authenticity_is_its_definition(seed, n, m, grid):
    rng = np.random.default_rng(seed)
    x, y = ((rng.integers(0, 4, (c, 2)) * 1.0 if grid else rng.standard_normal((c, 3))) for c in (n, m))
    assert authentic_rows(x, y).tolist() == authentic_by_loops(x, y)


def test_authenticity_against_the_published_formulation_in_torch():
    import torch

    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((n, 16))) for n in (300, 200))
    real, cross = torch.cdist(y, y), torch.cdist(y, x)
    real.fill_diagonal_(float("inf"))
    nearest = cross.min(dim=0)
    peer = real.min(dim=0).values[nearest.indices] < nearest.values
    np.testing.assert_array_equal(authentic_rows(x.numpy(), y.numpy()), peer.numpy())


def test_conventions_of_authenticity():
    training = np.array([[0.0], [1.0], [5.0]])
    #           copy   nearer   as far as the neighbour   farther, judged by 5's neighbour at 4
    generated = np.array([[1.0], [-0.5], [-1.0], [-1.01], [8.9], [9.1]])
    assert authentic_rows(generated, training).tolist() == [False, False, False, True, False, True]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), m=st.integers(3, 10))
def test_table_is_its_definition(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    x[0] = y[1]
    numbers = np.arange(m) * 10 + 3
    table = memorisation_table(x, y, numbers, near_quantile=0.4)
    own = np.array([min(distance(y[i], y[j]) for j in range(m) if j != i) for i in range(m)])
    assert table.threshold == pytest.approx(np.quantile(own, 0.4), rel=1e-6)
    for i, g in enumerate(x):
        order = sorted(range(m), key=lambda j: distance(g, y[j]))
        first, second = (distance(g, y[j]) for j in order[:2])
        assert table.nearest[i] == numbers[order[0]]
        assert table.distance[i] == pytest.approx(first, rel=1e-6)
        assert table.ratio_to_second[i] == pytest.approx(first / second, rel=1e-5)
        assert table.ratio_to_own[i] == pytest.approx(first / own[order[0]], rel=1e-5)
        assert table.exact[i] == (i == 0)
        assert table.near[i] == (i > 0 and first <= table.threshold)
    np.testing.assert_array_equal(table.authentic, authentic_rows(x, y))
    assert table.most_alike(1).tolist() == [0]
    assert table.training_rows == m


def test_summary_counts_and_order():
    training = np.arange(100.0)[:, None]
    training[1::2] += 0.5
    generated = np.array([[0.2], [4.0], [50.0], [-30.0]])
    table = memorisation_table(generated, training)
    assert table.threshold == 0.5
    summary = table.summary()
    assert {name: p.count for name, p in summary.items()} == {"exact": 2, "near": 1, "authentic": 1}
    assert summary["near"].share == 0.25
    assert summary["near"].low < 0.25 < summary["near"].high
    assert table.most_alike(3).tolist() == [1, 2, 0]
    assert table.most_alike(99).tolist() == [1, 2, 0, 3]


def test_training_duplicates_do_not_move_the_threshold():
    training = np.random.default_rng(0).standard_normal((60, 4))
    doubled = np.concatenate([training[:20], training])
    table = memorisation_table(training[:3] + 1e-3, doubled)
    own = [min(distance(a, b) for b in training if b is not a and (b != a).any()) for a in training[20:]]
    assert table.threshold == pytest.approx(np.quantile(own, 0.01), rel=1e-6)
    assert table.near.all()
    same = memorisation_table(training[:1], np.repeat(training[:1], 3, axis=0))
    assert same.threshold is None
    assert (same.exact[0], same.near[0], same.ratio_to_second[0], same.ratio_to_own[0]) == (
        True,
        False,
        0.0,
        0.0,
    )


def test_table_errors():
    x = np.random.default_rng(0).standard_normal((6, 2))
    for near_quantile in (0.0, 1.0, np.nan):
        with pytest.raises(InvalidInputError, match="quantile"):
            memorisation_table(x, x, near_quantile=near_quantile)
    with pytest.raises(InvalidInputError, match="numbers"):
        memorisation_table(x, x, np.arange(5))
    with pytest.raises(InvalidInputError, match="at least 2"):
        memorisation_table(x, x[:1])
    with pytest.raises(InvalidInputError, match="NaN"):
        authentic_rows(x * np.nan, x)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 10), (10, 10), (37, 1024), (500, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_wilson_against_scipy(count, total, level):
    ours = wilson_proportion(count, total, level=level)
    theirs = binomtest(count, total).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-15)
    assert 0 <= ours.low <= ours.share <= ours.high <= 1


def test_wilson_errors():
    for count, total, level in ((-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0)):
        with pytest.raises(InvalidInputError):
            wilson_proportion(count, total, level=level)


def test_shares_without_blocks():
    flags = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    assert shares_without_blocks(flags, (1, 2, 3)) == (2 / 5, 2 / 4, 2 / 3)
    assert shares_without_blocks(flags, (6,)) == ()
