"""Means and their errors against scipy, statistics and the jackknife."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evalkit.errors import InvalidInputError
from evalkit.numerics import block_edges, jackknife
from evalkit.numerics.sample_mean import sample_mean


def in_blocks(values, count):
    return [values[i:j] for i, j in itertools.pairwise(block_edges(len(values), count))]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60),
    st.integers(1, 10),
)
def test_agrees_with_scipy(numbers, count):
    values = np.array(numbers)
    found = sample_mean(in_blocks(values, min(count, len(values))))
    assert found.value == pytest.approx(math.fsum(numbers) / len(numbers), rel=1e-12, abs=1e-9)
    assert found.stderr == pytest.approx(stats.sem(values), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)
    reach = stats.t(len(values) - 1).ppf(0.975) * stats.sem(values)
    assert found.high - found.value == pytest.approx(reach, rel=1e-9, abs=1e-9)
    assert found.value - found.low == pytest.approx(reach, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=60), st.integers(2, 4))
def test_left_out_means_are_means_of_the_rest(numbers, count):
    blocks = in_blocks(np.array(numbers), count)
    without = sample_mean(blocks).without
    for number, value in enumerate(without):
        rest = np.concatenate(blocks[:number] + blocks[number + 1 :])
        assert value == pytest.approx(rest.mean(), rel=1e-9, abs=1e-9)


def test_blocks_of_one_give_the_standard_error_by_jackknife():
    values = np.random.default_rng(0).normal(3, 2, 40)
    found = sample_mean(list(values[:, None]))
    bar = jackknife(found.value, found.without, sizes=[1] * 40)
    assert bar.stderr == pytest.approx(found.stderr, rel=1e-12)
    assert bar.bias_corrected == pytest.approx(found.value, rel=1e-12)


def test_edges():
    one = sample_mean([np.array([2.5], dtype=np.float32)])
    assert (one.value, one.count, one.stderr, one.std, one.without) == (2.5, 1, None, None, ())
    assert (one.low, one.high) == (2.5, 2.5)
    assert sample_mean([np.array([1.0, 3.0]), np.array([])]).without == ()
    assert sample_mean([np.array([1.0]), np.array([]), np.array([3.0])]).without == (3.0, 2.0, 1.0)
    with pytest.raises(InvalidInputError, match="at least 1"):
        sample_mean([np.array([])])
    with pytest.raises(InvalidInputError, match="finite"):
        sample_mean([np.array([1.0, np.inf])])


def test_a_large_offset_costs_no_digits():
    values = np.random.default_rng(1).normal(size=(8, 25)) + 1e8
    found = sample_mean(list(values))
    for number, value in enumerate(found.without):
        rest = np.delete(values, number, axis=0)
        assert value - 1e8 == pytest.approx(math.fsum((rest - 1e8).ravel()) / rest.size, abs=5e-8)
