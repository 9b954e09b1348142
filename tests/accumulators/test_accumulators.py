"""What each accumulator means, beyond the laws that all share."""

import numpy as np
import pytest

from evalkit.accumulators.bank import FeatureBank, index_priority
from evalkit.accumulators.moments import MomentsAccumulator, moments_of, moments_without_blocks
from evalkit.accumulators.probabilities import ClassProbabilities
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.numerics import inception_score


def numbered(n, start=0):
    return np.arange(start, start + n, dtype=np.int64)


def test_moments_are_numpys():
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    moments = moments_of([x[:7], x[7:8], x[8:]])
    np.testing.assert_allclose(moments.mean, x.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("offset", [0, 1e4, 1e8])
def test_error_grows_with_the_offset_and_not_with_its_square(offset):
    x = np.random.default_rng(1).standard_normal((400, 3)) + offset
    exact = np.cov(x.astype(np.longdouble) - np.longdouble(offset), rowvar=False).astype(np.float64)
    moments = moments_of(list(x.reshape(20, 20, 3)))
    eps = np.finfo(np.float64).eps
    np.testing.assert_allclose(moments.covariance, exact, rtol=0, atol=(40 + 4 * offset) * eps)


def plain_covariance(x):
    """Two passes in long double, rounded at the end."""
    wide = x.astype(np.longdouble)
    wide = wide - wide.mean(axis=0)
    return (wide.T @ wide / (len(wide) - 1)).astype(np.float64)


@pytest.mark.parametrize(
    "sizes", [[3000], [250] * 12, [1, 2999], [2999, 1], [1500, 0, 1500], [2, 1026, 1972]]
)
def test_an_offset_of_100_costs_nothing(sizes):
    x = np.random.default_rng(3).standard_normal((3000, 5)) * np.logspace(0, -2, 5) + 100
    moments = moments_of(np.split(x, np.cumsum(sizes)[:-1]))
    expected = plain_covariance(x)
    np.testing.assert_allclose(moments.mean, x.astype(np.longdouble).mean(axis=0), rtol=1e-14)
    assert np.linalg.norm(moments.covariance - expected) < 1e-12 * np.linalg.norm(expected)
    np.testing.assert_array_equal(moments.covariance, moments.covariance.T)


def test_features_that_drift_are_centred_by_what_they_are():
    rng = np.random.default_rng(4)
    parts = [rng.standard_normal((size, 3)) + 1e6 * at for at, size in enumerate([1, 700, 40, 1100])]
    expected = plain_covariance(np.concatenate(parts))
    assert np.linalg.norm(moments_of(parts).covariance - expected) < 1e-13 * np.linalg.norm(expected)


def test_reading_moments_changes_nothing():
    x = np.random.default_rng(5).standard_normal((40, 300)).astype(np.float32)
    read, unread = MomentsAccumulator(), MomentsAccumulator()
    for start in range(0, 40, 8):
        for moments in (read, unread):
            moments.update(x[start : start + 8], numbered(8, start))
        if start:
            _ = read.covariance, read.state()
    np.testing.assert_array_equal(read.covariance, unread.covariance)
    np.testing.assert_allclose(read.covariance, plain_covariance(x), atol=1e-14)


def test_refused_features_leave_the_moments_as_they_were():
    moments = moments_of([np.eye(3, dtype=np.float32)])
    before = moments.state()
    for bad in (np.full((2000, 3), np.nan), np.ones((2, 4))):
        with pytest.raises(InvalidInputError):
            moments.update(bad, numbered(len(bad)))
    for key, value in moments.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_moments_from_nothing_are_refused():
    with pytest.raises(NothingMeasuredError):
        _ = MomentsAccumulator().covariance
    with pytest.raises(NothingMeasuredError):
        _ = MomentsAccumulator().mean
    with pytest.raises(InvalidInputError, match="at least 2"):
        _ = moments_of([np.ones((1, 3), dtype=np.float32)]).covariance


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 20])
def test_moments_without_blocks(blocks):
    x = np.random.default_rng(2).standard_normal((60, 3)).astype(np.float32)
    parts = np.array_split(x, blocks)
    found = list(moments_without_blocks(parts))
    assert len(found) == blocks
    for b, moments in enumerate(found):
        rest = moments_of(parts[:b] + parts[b + 1 :])
        assert moments.count == rest.count == 60 - len(parts[b])
        if rest.count:
            np.testing.assert_allclose(moments.mean, rest.mean, atol=1e-14)
            np.testing.assert_allclose(moments.covariance, rest.covariance, atol=1e-13)


@pytest.mark.parametrize(
    "change",
    [{"mean": np.zeros(2)}, {"m2": np.zeros((3, 3), dtype=np.float32)}, {"mean": np.full(3, np.nan)},
     {"count": np.asarray(-1)}],
)  # fmt: skip
def test_broken_moments_states_are_refused(change):
    state = moments_of([np.eye(3, dtype=np.float32)]).state() | change
    with pytest.raises(InvalidInputError):
        MomentsAccumulator.from_state(state)


def test_bank_keeps_everything_in_index_order():
    x = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    bank = FeatureBank()
    bank.update(x[3:], numbered(3, 3))
    bank.update(x[:3], numbered(3))
    np.testing.assert_array_equal(bank.features, x)
    np.testing.assert_array_equal(bank.index, numbered(6))


def test_capped_bank_keeps_the_lowest_priorities_of_any_shards():
    x = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    expected = np.sort(np.argsort(index_priority(numbered(500)))[:40])
    for shards in (1, 7, 100):
        total = FeatureBank(capacity=40)
        for rows in reversed(np.array_split(numbered(500), shards)):
            part = FeatureBank(capacity=40)
            part.update(x[rows], rows)
            total.merge(part)
        np.testing.assert_array_equal(total.index, expected)
        np.testing.assert_array_equal(total.features, x[expected])
        assert (total.count, total.capacity) == (500, 40)


def test_priorities_are_distinct_and_spread():
    priority = index_priority(numbered(20_000))
    assert len(np.unique(priority)) == 20_000
    kept = np.argsort(priority)[:5000]
    assert np.histogram(kept, bins=10, range=(0, 20_000))[0] == pytest.approx(500, abs=100)


def test_bank_refuses_repeats_overflow_and_bad_options():
    bank = FeatureBank(dtype=np.float16)
    with pytest.raises(InvalidInputError, match="overflow"):
        bank.update(np.full((1, 2), 1e5, dtype=np.float32), numbered(1))
    twice = FeatureBank()
    twice.update(np.ones((1, 2), dtype=np.float32), numbered(1))
    twice.update(np.ones((1, 2), dtype=np.float32), numbered(1))
    with pytest.raises(InvalidInputError, match="twice"):
        _ = twice.features
    with pytest.raises(InvalidInputError):
        FeatureBank(capacity=0)
    with pytest.raises(InvalidInputError):
        FeatureBank(dtype=np.float64)
    with pytest.raises(InvalidInputError, match="merged"):
        FeatureBank(capacity=3).merge(FeatureBank())
    with pytest.raises(InvalidInputError, match="consistent"):
        FeatureBank.from_state(twice_as_many(FeatureBank()))


def twice_as_many(bank):
    bank.update(np.ones((2, 2), dtype=np.float32), numbered(2))
    return bank.state() | {"index": numbered(4)}


def test_probabilities_give_the_score_of_one_split():
    x = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) * 4
    total = ClassProbabilities()
    total.update(x[:15], numbered(15))
    total.update(x[15:], numbered(25, 15))
    assert total.sums.score() == pytest.approx(inception_score(x, 1).mean, rel=1e-12)
    with pytest.raises(NothingMeasuredError):
        _ = ClassProbabilities().sums
    with pytest.raises(InvalidInputError):
        ClassProbabilities.from_state(total.state() | {"negative_entropy": np.asarray(np.nan)})
    with pytest.raises(InvalidInputError):
        ClassProbabilities.from_state(total.state() | {"count": np.asarray(-2)})
