"""The variance of a share of cells: against leaving out rows and pairs of rows, and by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import first_order_share, jackknife
from evalkit.numerics.occupancy import Occupancy


def tallied(inside, cuts=()):
    tally = Occupancy.of(inside.shape[1])
    edges = [0, *cuts, len(inside)]
    for start, stop in itertools.pairwise(edges):
        rows, cells = np.nonzero(inside[start:stop])
        tally.add(rows + start, cells)
    return tally


def by_leaving_out(inside):
    n = len(inside)

    def share(*left_out):
        return float(np.delete(inside, left_out, axis=0).any(axis=0).mean())

    without, pairs = [share(i) for i in range(n)], np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        pairs[i, j] = share(i, j)
    plain = jackknife(share(), without, sizes=[1] * n).stderr ** 2
    return plain * first_order_share(share(), without, pairs)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(3, 14), m=st.integers(1, 30), rate=st.floats(0.01, 0.9),
    cut=st.integers(0, 14),
)  # fmt: skip
def test_is_the_jackknife_over_rows_and_pairs(seed, n, m, rate, cut):
    inside = np.random.default_rng(seed).random((n, m)) < rate
    tally = tallied(inside, [min(cut, n)])
    assert tally.share == inside.any(axis=0).mean()
    assert tally.variance(n) == pytest.approx(by_leaving_out(inside), rel=1e-9, abs=1e-15)


def test_parts_and_order_do_not_matter():
    inside = np.random.default_rng(0).random((60, 40)) < 0.03
    whole = tallied(inside).variance(60)
    assert tallied(inside, [1, 2, 30, 30, 59]).variance(60) == pytest.approx(whole, rel=1e-12)
    assert tallied(inside[::-1]).variance(60) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("rate", [0.3, 1.0, 2.0])
def test_is_the_spread_of_repeated_draws(rate):
    rng, shares, variances = np.random.default_rng(1), [], []
    for _ in range(600):
        centre = rng.integers(0, 300, size=150)  # each row reaches two neighbouring cells of 300
        inside = np.zeros((150, 300), dtype=bool)
        inside[np.arange(150), centre] = True
        inside[np.arange(150), (centre + 1) % 300] = rate > 0.5
        if rate > 1:
            inside |= np.roll(inside, 150, axis=1)
        tally = tallied(inside)
        shares.append(tally.share)
        variances.append(tally.variance(150))
    # The spread of 600 draws is known to 3 %.
    assert np.sqrt(np.mean(variances)) == pytest.approx(np.std(shares, ddof=1), rel=0.1)


def test_ends_and_errors():
    assert tallied(np.zeros((5, 4), dtype=bool)).variance(5) == 0.0
    assert tallied(np.ones((5, 4), dtype=bool)).variance(5) == 0.0
    with pytest.raises(InvalidInputError, match="three rows"):
        Occupancy.of(4).variance(2)
