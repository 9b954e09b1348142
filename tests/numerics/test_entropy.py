"""The inception score against the peer, closed forms and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import class_sums, entropy, inception_score, inception_score_blocks


def logits_of(seed, n=60, classes=7, scale=3.0):
    return (np.random.default_rng(seed).standard_normal((n, classes)) * scale).astype(np.float32)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "splits"), [(100, 10), (57, 10), (12, 1)])
def test_against_the_peer(n, splits, shuffle):
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    x = logits_of(n, n=n)
    peer = isc_features_to_metric(torch.from_numpy(x), splits=splits, shuffle=shuffle, rng_seed=2020)
    ours = inception_score(x, splits, shuffle_seed=2020 if shuffle else None)
    assert ours.mean == pytest.approx(peer["inception_score_mean"], rel=1e-12)
    assert ours.std == pytest.approx(peer["inception_score_std"], rel=1e-9, abs=1e-12)


def test_closed_forms():
    certain = np.eye(5, dtype=np.float32)[np.tile(np.arange(5), 4)] * 1000
    assert inception_score(certain, 2).mean == pytest.approx(5, rel=1e-12)
    assert inception_score(certain, 4).std == pytest.approx(0, abs=1e-12)
    assert inception_score(np.zeros((20, 5), dtype=np.float32)).mean == pytest.approx(1, rel=1e-12)


def test_chunks_are_means_over_fixed_lengths():
    x = logits_of(3, n=25)
    by_hand = [class_sums(x[i : i + 10]).score() for i in (0, 10, 20)]
    assert inception_score(x, chunk=10).mean == pytest.approx(np.mean(by_hand), rel=1e-13)
    assert inception_score(x, chunk=5000).mean == pytest.approx(inception_score(x, 1).mean, rel=1e-13)


def test_a_class_of_probability_zero_is_finite():
    x = np.full((4, 3), -1e5)
    x[:, 0] = 0
    assert inception_score(x, 1).mean == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    classes=st.integers(2, 9),
    scale=st.floats(0.01, 100),
)
def test_bounds_and_shift(seed, n, classes, scale):
    x = logits_of(seed, n=n, classes=classes, scale=scale).astype(np.float64)
    score = inception_score(x, 1).mean
    assert 1 - 1e-9 <= score <= classes * (1 + 1e-9)
    shifted = x + np.random.default_rng(0).standard_normal((n, 1))
    assert inception_score(shifted, 1).mean == pytest.approx(score, rel=1e-9)


def test_rows_at_a_time_do_not_matter(monkeypatch):
    x = logits_of(1)
    whole = inception_score(x)
    monkeypatch.setattr(entropy, "ROWS", 7)
    assert inception_score(x).mean == pytest.approx(whole.mean, rel=1e-13)


@pytest.mark.parametrize("options", [{"splits": 4}, {"chunk": 9}, {"splits": 1}])
def test_leaving_out_a_block_is_the_protocol_on_the_rest(options):
    x, sizes = logits_of(2, n=50), (20, 13, 17)
    whole, without = inception_score_blocks(x, sizes, **options)
    assert whole.mean == pytest.approx(inception_score(x, **options).mean, rel=1e-13)
    for block, rest in enumerate((x[20:], np.delete(x, np.s_[20:33], axis=0), x[:33])):
        assert without[block].mean == pytest.approx(inception_score(rest, **options).mean, rel=1e-13)


def test_shuffled_blocks_keep_the_shuffled_order():
    x, sizes = logits_of(5, n=30), (10, 20)
    order = np.random.RandomState(2020).permutation(30)
    _, without = inception_score_blocks(x, sizes, splits=3, shuffle_seed=2020)
    assert without[0].mean == pytest.approx(inception_score(x[order[order >= 10]], 3).mean, rel=1e-13)


def test_errors():
    x = logits_of(0, n=9)
    for bad, options in [
        (x, {"splits": 10}),
        (x, {"splits": 0}),
        (x, {"chunk": 0}),
        (x[:0], {"splits": 1}),
        (np.full((9, 3), np.inf), {"splits": 1}),
        (np.arange(9.0), {"splits": 1}),
    ]:
        with pytest.raises(InvalidInputError):
            inception_score(bad, **options)
    with pytest.raises(InvalidInputError, match="do not fit"):
        inception_score_blocks(x, (4, 4), splits=1)
