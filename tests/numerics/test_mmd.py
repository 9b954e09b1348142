"""The kernel distance against its definition, the peer, and its laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.numerics import block_edges, gram, kernel_distance, kernel_distance_subsets, kernel_sums, tiles


def by_definition(x, y):
    """Plain double loops."""
    d = x.shape[1]

    def k(p, q):
        return (float(p @ q) / d + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(p, q) for p in x for q in y) / (n * m)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 9), m=st.integers(2, 9), d=st.integers(1, 6))
def test_definition_symmetry_and_order(seed, n, m, d):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.5
    value = kernel_distance(x, y)
    assert value == pytest.approx(by_definition(x, y), rel=1e-11, abs=1e-11)
    assert kernel_distance(y, x) == pytest.approx(value, rel=1e-11, abs=1e-11)
    assert kernel_distance(rng.permutation(x), y) == pytest.approx(value, rel=1e-11, abs=1e-11)


def test_closed_form():
    # k = (xy + 1)^3: k(1, 1) = 8, k(0, .) = 1.
    assert kernel_distance(np.ones((3, 1)), np.zeros((4, 1))) == 8 + 1 - 2


def test_tiles_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((23, 5)), rng.standard_normal((17, 5))
    whole = kernel_distance(x, y)
    monkeypatch.setattr(tiles, "ROWS", 5)
    monkeypatch.setattr(tiles, "COLUMNS", 4)
    monkeypatch.setattr(gram, "PIECE", 3)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_leaving_out_a_block_is_exact():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((21, 4)), rng.standard_normal((15, 4)) + 0.2
    edges = block_edges(21, 4)
    blocks = [x[i:j] for i, j in itertools.pairwise(edges)]
    sums = kernel_sums(blocks, y)
    assert sums.value() == pytest.approx(kernel_distance(x, y), rel=1e-12)
    for b, value in enumerate(sums.without_blocks()):
        rest = np.concatenate(blocks[:b] + blocks[b + 1 :])
        assert value == pytest.approx(kernel_distance(rest, y), rel=1e-11)
    pairs = sums.without_pairs()
    for b, c in itertools.combinations(range(4), 2):
        rest = np.concatenate([blocks[i] for i in range(4) if i not in (b, c)])
        assert pairs[b, c] == pytest.approx(kernel_distance(rest, y), rel=1e-11)
    assert not np.tril(pairs).any()
    with pytest.raises(InvalidInputError, match="without two blocks"):
        kernel_sums([x[:3], x[3:6], x[6:7]], y).without_pairs()


def test_one_huge_row_does_not_cancel_the_rest():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    blocks = [x, np.full((2, 3), 1e4)]
    assert kernel_sums(blocks, y).without_blocks()[1] == pytest.approx(kernel_distance(x, y), rel=1e-12)


def test_unbiased_at_identity():
    rng = np.random.default_rng(4)
    values = [kernel_distance(*rng.standard_normal((2, 30, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    assert min(values) < 0


def test_subsets_are_those_of_the_peer():
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((80, 10)), rng.standard_normal((70, 10)) * 1.2
    peer = kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=7,
        kid_subset_size=40,
        rng_seed=2020,
        verbose=False,
    )
    ours = kernel_distance_subsets(x, y, subsets=7, subset_size=40, rng=np.random.RandomState(2020))
    assert ours.mean == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-10)
    assert ours.std == pytest.approx(peer["kernel_inception_distance_std"], rel=1e-10)


def test_subsets_centre_on_the_exact_value():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((100, 4)), rng.standard_normal((100, 4)) + 0.3
    estimate = kernel_distance_subsets(x, y, subsets=400, subset_size=50, rng=np.random.default_rng(0))
    assert estimate.mean == pytest.approx(kernel_distance(x, y), abs=4 * estimate.std / 20)
    again = kernel_distance_subsets(x, y, subsets=400, subset_size=50, rng=np.random.default_rng(0))
    assert again == estimate


def test_whole_sets_as_subsets_are_the_exact_value():
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 4))
    estimate = kernel_distance_subsets(x, y, subsets=3, subset_size=20, rng=rng)
    assert estimate.mean == pytest.approx(kernel_distance(x, y), rel=1e-11)
    assert estimate.std < 1e-12


def test_errors():
    good = np.random.default_rng(0).standard_normal((5, 3))
    for bad in (good[:1], np.full((5, 3), np.nan), good[:, :2], np.zeros(3)):
        with pytest.raises(InvalidInputError):
            kernel_distance(bad, good)
        with pytest.raises(InvalidInputError):
            kernel_distance(good, bad)
    for options in ({"subset_size": 6}, {"subset_size": 1}, {"subsets": 0, "subset_size": 2}):
        with pytest.raises(InvalidInputError):
            kernel_distance_subsets(good, good, rng=np.random.default_rng(0), **options)
    with pytest.raises(InvalidInputError, match="left without a block"):
        kernel_sums([good[:1], good[:4]], good).without_blocks()
