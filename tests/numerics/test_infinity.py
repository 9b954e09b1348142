"""Subset sizes, the line in 1/N and the keyed order, against numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics.infinity import keyed_order, leave_out_order, line_in_inverse, subset_sizes


def test_published_sizes():
    # Chong & Forsyth 2020: 15 sizes from 5 000 to 50 000
    sizes = subset_sizes(50_000, start=5_000, points=15)
    assert (len(sizes), sizes[0], sizes[1], sizes[-1]) == (15, 5_000, 8_214, 50_000)


@given(total=st.integers(3, 10**6), share=st.floats(0.01, 0.99), points=st.integers(2, 40))
def test_sizes_rise_from_start_to_total(total, share, points):
    start = max(1, int(share * total))
    sizes = subset_sizes(total, start=start, points=points)
    assert (sizes[0], sizes[-1]) == (start, total)
    assert len(sizes) <= points
    assert (np.diff(sizes) > 0).all()


@pytest.mark.parametrize(("total", "start", "points"), [(10, 10, 5), (10, 0, 5), (10, 2, 1)])
def test_sizes_that_leave_nothing_to_fit_are_refused(total, start, points):
    with pytest.raises(InvalidInputError):
        subset_sizes(total, start=start, points=points)


@given(limit=st.floats(-100, 100), slope=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
def test_line_is_numpy_polyfit(limit, slope, seed):
    rng = np.random.default_rng(seed)
    sizes = np.sort(rng.choice(np.arange(100, 5000), 9, replace=False))
    values = limit + slope / sizes + rng.normal(size=9)
    expected = np.polyfit(1 / sizes, values, 1)
    assert line_in_inverse(sizes, values) == pytest.approx((expected[1], expected[0]), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("sizes", "values"), [([5, 5], [1, 2]), ([5], [1]), ([5, 6], [1]), ([5, 6], [1, np.nan])]
)
def test_lines_without_enough_points_are_refused(sizes, values):
    with pytest.raises(InvalidInputError):
        line_in_inverse(np.array(sizes), np.array(values))


def test_order_follows_the_rows_and_the_key():
    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    order = keyed_order(x, b"a")
    assert sorted(order) == list(range(60))
    assert not np.array_equal(order, keyed_order(x, b"b"))
    shuffle = np.random.default_rng(1).permutation(60)
    np.testing.assert_array_equal(x[shuffle][keyed_order(x[shuffle], b"a")], x[order])
    rest = leave_out_order(order, start=10, stop=25)
    without = np.delete(x, np.s_[10:25], axis=0)
    np.testing.assert_array_equal(x[rest], without[keyed_order(without, b"a")])


def test_minus_zero_is_zero_and_the_order_is_spread_evenly():
    zeros = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    signs = np.array([[-1, 1], [1, -1], [1, 1]], dtype=np.float32)
    np.testing.assert_array_equal(keyed_order(zeros, b"k"), keyed_order(zeros * signs, b"k"))
    x = np.arange(4000.0)[:, None]
    half = keyed_order(x, b"k")[:2000]
    assert abs(half.mean() - 1999.5) < 4 * 4000 / np.sqrt(12 * 4000)  # 4 standard errors without replacement
