"""Float32 products in the kernel distance: their measured bound holds, and else float64 is used."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.numerics import kernel_distance, kernel_sums, mmd, products, single_sums, tiles
from evalkit.numerics.gram import Members
from evalkit.numerics.mmd import kernel_sums_and_subsets
from evalkit.numerics.products import cube, products_on
from evalkit.numerics.single_sums import (
    Rounding,
    is_single,
    pays,
    rounding_bound,
    single_sums_across,
    single_sums_within,
)


def pooled(n, d, seed, *, shift=0.0):
    """Features that are never negative."""
    rng = np.random.default_rng([n, d, seed])
    return np.maximum(rng.standard_normal((n, d), dtype=np.float32) + np.float32(shift), 0)


def cubic(x, y):
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3


@pytest.fixture
def any_size(monkeypatch):
    monkeypatch.setattr(single_sums, "FEWEST_PAIRS", 0)
    monkeypatch.setattr(single_sums, "FEWEST_DIMENSIONS", 1)
    monkeypatch.setattr(tiles, "ROWS", 64)
    monkeypatch.setattr(tiles, "COLUMNS", 48)
    monkeypatch.setattr(single_sums, "PIECE", 20)


def plain(monkeypatch):
    monkeypatch.setattr(mmd, "pays", lambda x, y: False)


@pytest.mark.usefixtures("any_size")
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 200),
    m=st.integers(2, 200),
    d=st.integers(1, 80),
    kind=st.sampled_from(["pooled", "signed", "offset", "heavy", "repeated"]),
)
def test_sums_are_those_of_the_definition_to_float32(seed, n, m, d, kind):
    x, y = pooled(n, d, seed), pooled(m, d, seed + 1, shift=0.1)
    if kind == "signed":
        x, y = x - np.float32(0.5), y - np.float32(0.4)
    if kind == "offset":
        x, y = x + np.float32(100), y + np.float32(100)
    if kind == "heavy":
        x = x**6
    if kind == "repeated":
        x[:] = x[0]
    rng = np.random.default_rng(seed)
    members = Members.of([n - n // 2, n // 2], [rng.choice(n, 2, replace=False)])
    others = Members.of([m], [rng.choice(m, 2, replace=False)])
    across, _ = single_sums_across(x, y, members, others)
    within, _ = single_sums_within(x, members)
    k, own = cubic(x, y), cubic(x, x)
    np.fill_diagonal(own, 0)
    for found, exact, ours, theirs in [(across, k, members, others), (within, own, members, members)]:
        left, right = ours.indicators(slice(0, n)), theirs.indicators(slice(0, exact.shape[1]))
        largest = np.abs(exact).max() * exact.size + 1e-30
        np.testing.assert_allclose(
            found.blocks, left.blocks.T @ exact @ right.blocks, rtol=0, atol=1e-5 * largest
        )
        chosen = np.einsum("is,ij,js->s", left.subsets, exact, right.subsets)
        np.testing.assert_allclose(found.subsets, chosen, rtol=0, atol=1e-5 * largest)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("d", [64, 320, 2048])
@pytest.mark.parametrize("kind", ["pooled", "heavy", "offset"])
def test_the_bound_holds_where_everything_is_known(d, kind):
    x, y = pooled(300, d, 0), pooled(260, d, 1, shift=0.05)
    if kind == "heavy":
        x = (x * np.exp(np.random.default_rng(d).standard_normal((300, 1)))).astype(np.float32)
    if kind == "offset":
        x, y = x + np.float32(100), y + np.float32(100)
    members, others = Members.of([len(x)]), Members.of([len(y)])
    (across, cross), (within, own), (reference, theirs) = (
        single_sums_across(x, y, members, others),
        single_sums_within(x, members),
        single_sums_within(y, others),
    )
    found = mmd._kernel_sums(across, within, float(reference.blocks[0, 0]), [len(x)], len(y)).value()
    exact = kernel_distance(x.astype(np.float64), y.astype(np.float64))
    assert abs(found - exact) <= rounding_bound([(own, 1.0), (theirs, 1.0), (cross, -2.0)])
    assert cross.pairs == len(x) * len(y)
    assert own.pairs == len(x) * (len(x) - 1) // 2
    assert 1 / single_sums.SAMPLED <= cross.sampled / (len(x) * len(y)) < 4 / single_sums.SAMPLED
    assert (cross.together > 3) == (kind == "offset")


def test_the_bound_counts_bias_spread_and_what_goes_together():
    lone = Rounding(pairs=10_000, sampled=400, total=0.0, squares=400.0, together=1.0)
    assert rounding_bound([(lone, 1.0)]) == pytest.approx(3 / 20 + 4 / 100)
    assert rounding_bound([(lone, -2.0)]) == pytest.approx(2 * (3 / 20 + 4 / 100))
    biased = Rounding(pairs=10_000, sampled=400, total=40.0, squares=400.0, together=4.0)
    assert rounding_bound([(biased, 1.0)]) == pytest.approx(0.1 + 2 * (3 / 20 + 4 / 100))
    assert rounding_bound([(biased, 1.0), (biased, -1.0)]) < rounding_bound([(biased, 2.0)])


@pytest.mark.usefixtures("any_size")
def test_small_bounds_are_accepted_and_blocks_and_subsets_come_with_them(monkeypatch):
    x, y = pooled(400, 300, 0), pooled(350, 300, 1, shift=0.4)
    monkeypatch.setattr(mmd, "_sums_of_generated", pytest.fail)
    monkeypatch.setattr(mmd, "ALLOWED", 1e-5)
    blocks = np.array_split(x, 5)
    alone = kernel_sums(blocks, y)
    sums, subsets = kernel_sums_and_subsets(
        blocks, y, subsets=6, subset_size=200, rng=np.random.default_rng(0)
    )
    with products_on("cpu"):
        in_torch = kernel_sums(blocks, y)
    monkeypatch.undo()
    plain(monkeypatch)
    exact, of_subsets = kernel_sums_and_subsets(
        blocks, y, subsets=6, subset_size=200, rng=np.random.default_rng(0)
    )
    for found in (alone, sums, in_torch):
        assert found.value() == pytest.approx(exact.value(), rel=1e-6)
        np.testing.assert_allclose(found.without_blocks(), exact.without_blocks(), rtol=1e-6)
        np.testing.assert_allclose(found.without_pairs(), exact.without_pairs(), rtol=1e-6)
    assert subsets.mean == pytest.approx(of_subsets.mean, rel=1e-6)
    assert subsets.std == pytest.approx(of_subsets.std, rel=1e-5)


@pytest.mark.usefixtures("any_size")
def test_one_long_row_is_never_overlooked():
    x, y = pooled(150, 260, 0), pooled(140, 260, 1)
    usual = single_sums_across(x, y, Members.of([150]), Members.of([140]))[1]
    for long in range(0, 150, 10):
        changed = x.copy()
        changed[long] *= np.float32(30)
        found = single_sums_across(changed, y, Members.of([150]), Members.of([140]))[1]
        assert found.sampled == usual.sampled
        assert found.squares > 1e4 * usual.squares


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("numpy_is_faster", [False, True])
def test_the_number_of_threads_changes_no_digit(numpy_is_faster, monkeypatch):
    monkeypatch.setattr(products, "_numpy_is_faster", lambda: numpy_is_faster)
    x, y = pooled(400, 300, 0), pooled(350, 300, 1)
    members, others = Members.of([100, 300], [np.arange(50)]), Members.of([350], [np.arange(60)])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with products_on("cpu"):
                found.append((single_sums_across(x, y, members, others), single_sums_within(x, members)))
    finally:
        torch.set_num_threads(before)
    for (one, error), (three, again) in zip(*found, strict=True):
        np.testing.assert_array_equal(one.blocks, three.blocks)
        np.testing.assert_array_equal(one.subsets, three.subsets)
        assert error == again


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("kind", ["same", "near", "offset", "heavy", "repeated"])
def test_large_bounds_are_not(kind, monkeypatch):
    x = pooled(150, 260, 0)
    y = {
        "same": x,
        "near": pooled(140, 260, 1),
        "offset": pooled(140, 260, 1) + np.float32(100),
        "heavy": pooled(140, 260, 1) * np.float32(1.001),
        "repeated": np.repeat(pooled(70, 260, 1), 2, axis=0),
    }[kind]
    if kind == "offset":
        x = x + np.float32(100)
    if kind == "heavy":
        x[3] *= np.float32(200)
    found = kernel_sums(np.array_split(x, 3), y)
    drawn = kernel_sums_and_subsets([x], y, subsets=3, subset_size=50, rng=np.random.default_rng(0))[1]
    plain(monkeypatch)
    exact = kernel_sums(np.array_split(x, 3), y)
    assert found.value() == pytest.approx(exact.value(), rel=1e-12)
    np.testing.assert_allclose(found.without_blocks(), exact.without_blocks(), rtol=1e-11)
    again = kernel_sums_and_subsets([x], y, subsets=3, subset_size=50, rng=np.random.default_rng(0))[1]
    assert drawn.mean == pytest.approx(again.mean, rel=1e-11)


def test_which_sets_may_be_multiplied_in_float32():
    x = np.ones((3, 2), dtype=np.float32)
    assert is_single(x)
    assert not is_single(x.astype(np.float64))
    assert not is_single(x * np.float32(1e19))
    with products_on("cpu", bitwise=True):
        assert not is_single(x)
    large = np.broadcast_to(np.float32(1), (8000, 256))
    assert pays(large, large)
    assert not pays(large[:2000], large)
    assert not pays(large[:, :100], large[:, :100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_and_numpy_make_the_same_cubes(dtype):
    values = pooled(7, 33, 0).astype(dtype)
    expected = (values.astype(np.float64) / 33 + 1) ** 3
    found = []
    for place in (contextlib.nullcontext(), products_on("cpu")):
        out, room = np.full((2, *values.shape), np.nan)
        with place:
            cube(values, scale=1 / 33, out=out, room=room)
        found.append(out)
    np.testing.assert_allclose(found[0], expected, rtol=1e-15)
    np.testing.assert_array_equal(found[1], found[0])
