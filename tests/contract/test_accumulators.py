"""The laws of state, for every registered accumulator."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.accumulators import ACCUMULATORS
from evalkit.accumulators.bank import FeatureBank
from evalkit.accumulators.grouped import GroupedMoments
from evalkit.errors import InvalidInputError


class GroupedByIndex(GroupedMoments):
    """Grouped moments whose labels follow from the index, so that the laws can be stated for any stream."""

    def update(self, x, index, labels=None):
        super().update(x, index, np.asarray(index) % 3 if labels is None else labels)


TOLERANCE = 1e-12  # of the largest entry of a state's array: float64 sums in another order
MAKERS = {name: ACCUMULATORS[name] for name in ACCUMULATORS} | {
    "bank capped": lambda: FeatureBank(capacity=5),
    "grouped by class": GroupedByIndex,
    "bank float16": lambda: FeatureBank(dtype=np.float16),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
seeds = st.integers(0, 2**32 - 1)


def stream(seed, n, d=3, offset=0):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) * 3 + 100).astype(np.float32)
    return x, offset + rng.permutation(n).astype(np.int64)


def filled(make, *streams):
    accumulator = make()
    for x, index in streams:
        accumulator.update(x, index)
    return accumulator


def merged(*accumulators):
    result = copy.deepcopy(accumulators[0])
    for other in accumulators[1:]:
        result.merge(other)
    return result


def assert_same(a, b, *, exact=False):
    left, right = a.state(), b.state()
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        if exact:
            np.testing.assert_array_equal(left[key], right[key], strict=True)
        else:
            scale = float(np.abs(right[key]).max(initial=0.0))
            np.testing.assert_allclose(left[key], right[key], rtol=0, atol=TOLERANCE * scale)


@every
@settings(max_examples=25, deadline=None)
@given(seed=seeds, sizes=st.tuples(*[st.integers(0, 12)] * 3))
def test_merge_is_associative_and_equals_one_stream(make, seed, sizes):
    parts = [stream([seed, i], n, offset=100 * i) for i, n in enumerate(sizes)]
    a, b, c = (filled(make, part) for part in parts)
    whole = filled(make, *parts)
    assert_same(merged(merged(a, b), c), merged(a, merged(b, c)))
    assert_same(merged(a, b, c), whole)
    assert whole.count == sum(sizes)


@every
@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(0, 12))
def test_the_empty_state_is_the_unit_and_merge_may_come_first(make, seed, n):
    part = stream(seed, n)
    alone = filled(make, part)
    assert_same(merged(make(), alone), alone, exact=True)
    assert_same(merged(alone, make()), alone, exact=True)
    first = make()
    first.merge(filled(make, stream([seed, 1], 4, offset=50)))
    first.update(*part)
    assert_same(first, filled(make, stream([seed, 1], 4, offset=50), part))


@every
@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(1, 12), m=st.integers(1, 12))
def test_merge_leaves_the_other_unchanged_and_shares_nothing(make, seed, n, m):
    a, b = filled(make, stream(seed, n)), filled(make, stream([seed, 1], m, offset=50))
    before = {key: value.copy() for key, value in b.state().items()}
    a.merge(b)
    a.update(*stream([seed, 2], 3, offset=200))
    for value in a.state().values():
        value[...] = 0
    for key, value in b.state().items():
        np.testing.assert_array_equal(value, before[key], strict=True)


@every
@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(0, 12))
def test_round_trip_is_bit_for_bit_and_goes_on(make, seed, n):
    a = filled(make, stream(seed, n))
    rebuilt = type(a).from_state(a.state())
    assert_same(rebuilt, a, exact=True)
    assert rebuilt.count == a.count == n
    more = stream([seed, 1], 5, offset=50)
    a.update(*more)
    rebuilt.update(*more)
    assert_same(rebuilt, a, exact=True)


@every
@settings(max_examples=25, deadline=None)
@given(seed=seeds, n=st.integers(1, 20), cut=st.integers(0, 20))
def test_order_and_chunks_do_not_matter(make, seed, n, cut):
    x, index = stream(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    whole, pieces = filled(make, (x, index)), make()
    for rows in (order[:cut], order[cut:]):
        pieces.update(x[rows], index[rows])
    assert_same(pieces, whole)


@every
def test_updates_do_not_hold_on_to_the_callers_arrays(make):
    x, index = stream(0, 6)
    a = filled(make, (x, index))
    before = {key: value.copy() for key, value in a.state().items()}
    x[...], index[...] = 0, 0
    for key, value in a.state().items():
        np.testing.assert_array_equal(value, before[key])


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(make, bad):
    x, index = stream(0, 4)
    x[2, 1] = bad
    accumulator = make()
    with pytest.raises(InvalidInputError, match="1 of 4"):
        accumulator.update(x, index)
    assert accumulator.count == 0


@every
def test_wrong_shapes_are_refused(make):
    x, index = stream(0, 4)
    accumulator = filled(make, (x, index))
    with pytest.raises(InvalidInputError, match="indices"):
        accumulator.update(x, index[:3])
    with pytest.raises(InvalidInputError):
        accumulator.update(x[:, :2], index + 10)
    with pytest.raises(InvalidInputError):
        accumulator.merge(filled(make, (x[:, :2], index + 10)))
    with pytest.raises(InvalidInputError, match="lacks"):
        type(accumulator).from_state({})


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_registered_under_its_own_name(name):
    assert ACCUMULATORS[name].name == name
