"""What float32 products leave open of distances, against distances by differences."""

import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from evalkit.numerics import comparison, neighbourhoods, products, screen, screened_pass, tiles
from evalkit.numerics.comparison import compare, nearest_distances
from evalkit.numerics.manifolds import Balls
from evalkit.numerics.neighbourhoods import Rows
from evalkit.numerics.products import products_of, products_on
from evalkit.numerics.screen import (
    distances_of_pairs,
    entries_within,
    farthest,
    highest,
    in_range,
    keeps_the_bound,
    lowest,
    rounded_down,
    rounded_up,
    rounding,
)
from evalkit.numerics.tiles import right_form, single_form

ASKED = {"balls": [Balls(3), Balls(5, inclusive=False)]}


def true_squares(x, y):
    return ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(axis=-1)


def screened(x, y, centre):
    """Float32 entries of all pairs, and the squared norms of both sides."""
    (ours, our_norms), (theirs, their_norms) = (single_form(side, slice(None), centre) for side in (x, y))
    return products_of(ours).tile(slice(None), right_form(theirs)), our_norms, their_norms


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), width=st.integers(1, 600), dtype=st.sampled_from(["f4", "f8"]),
    scale=st.sampled_from([1e-9, 1e-3, 1.0, 1e11]), spread=st.sampled_from([0.0, 1e-6, 1.0]),
    offset=st.sampled_from([0.0, 3.0]),
)  # fmt: skip
def test_bounds_of_float32_products(seed, width, dtype, scale, spread, offset):
    rng = np.random.default_rng(seed)
    heavy = rng.standard_t(2, (2, 12, width))
    x, y = (scale * (offset + heavy * [[[1.0]], [[0.3]]])).astype(dtype)
    y[:6] = x[:6] * x.dtype.type(1 + spread)  # near copies, and true ones
    centre = y.mean(axis=0, dtype=np.float64)
    entries, our_norms, their_norms = screened(x, y, centre)
    true, gamma = true_squares(x, y), rounding(width)
    assert in_range(our_norms, width)
    sum_of_norms = np.sqrt(our_norms)[:, None] + np.sqrt(their_norms)
    assert (np.abs(entries - true) <= gamma * sum_of_norms**2 + screen.TINY).all()
    norms = np.broadcast_to(our_norms[:, None], true.shape)
    reach = np.sqrt(true)
    assert (entries <= rounded_up(highest(reach, norms, gamma))).all()
    assert (entries >= rounded_down(lowest(reach, norms, gamma))).all()
    assert (reach <= farthest(entries.astype(np.float64), norms, gamma)).all()


def test_bounds_at_infinity_and_zero():
    norms = np.array([4.0])
    assert highest(np.array([np.inf]), norms, 1e-4) == np.inf
    assert farthest(np.array([np.inf]), norms, 1e-4) == np.inf
    assert lowest(np.array([0.0]), norms, 1e-4) < 0 < highest(np.array([0.0]), norms, 1e-4)
    exact = np.array([0.1, -0.1, 0.5, np.inf, 1e300])
    assert (rounded_down(exact) <= exact).all()
    assert (rounded_up(exact) >= exact).all()
    assert rounded_up(exact)[2] == rounded_down(exact)[2] == 0.5


@pytest.mark.parametrize(
    ("norms", "width", "expected"),
    [
        ([1.0, 0.0], 2048, True), ([0.0], 8, False), ([1e-25, 1e-24], 8, False), ([1e31, 1.0], 8, False),
        ([1.0], 300_000, False),
    ],
)  # fmt: skip
def test_range_of_float32(norms, width, expected):
    assert in_range(np.array(norms), width) is expected


def test_entries_within_either_bound(monkeypatch):
    monkeypatch.setattr(screen, "PIECE_ENTRIES", 100)
    rng = np.random.default_rng(0)
    tile = rng.random((37, 41), dtype=np.float32)
    rows, columns = rng.random((2, 41), dtype=np.float32) / 3
    rows[:5] = -np.inf
    found = entries_within(tile, rows=rows[:37], columns=columns)
    i, j = np.nonzero((tile <= rows[:37, None]) | (tile <= columns))
    np.testing.assert_array_equal(found.rows, i)
    np.testing.assert_array_equal(found.columns, j)
    np.testing.assert_array_equal(found.squared, tile[i, j])


@pytest.mark.parametrize("pairs", [0, 1, 31, 32, 33, 400])
@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float32, np.float64)])
def test_distances_of_pairs(pairs, dtypes):
    rng = np.random.default_rng(pairs)
    x, y = (rng.standard_normal((50, 19)).astype(dtype) for dtype in dtypes)
    i, j = rng.integers(0, 50, (2, pairs))
    expected = np.sqrt(true_squares(x, y)[i, j]).astype(np.float32)
    np.testing.assert_array_equal(distances_of_pairs(x, y, i, j), expected)


def clusters(rng, n):
    """Rows in ten places far apart, which float32 cannot tell from each other, and a few exact copies."""
    places = 1000 * np.random.default_rng(0).standard_normal((10, 24))
    x = places[rng.integers(0, 10, n)] + 1e-3 * rng.standard_normal((n, 24))
    x[:20] = x[20:40]
    return x


@pytest.mark.parametrize("blocks", [1, 6])
def test_what_float32_cannot_tell_is_multiplied_in_float64(monkeypatch, blocks):
    rng = np.random.default_rng(1)
    x, y = clusters(rng, 900), clusters(rng, 700)
    made = []
    exactly = comparison._Pass._tile
    monkeypatch.setattr(comparison._Pass, "_tile", lambda *args: made.append(1) or exactly(*args))
    monkeypatch.setattr(neighbourhoods, "MOST_KEPT", 40)
    tried = Rows.of(x, [len(x)], x.mean(axis=0))
    assert neighbourhoods._by_screen(tried, 3, tried.screened) is None
    found = compare(np.array_split(x, blocks), y, **ASKED)
    assert made
    near = nearest_distances.__wrapped__(y, 5)
    monkeypatch.setattr(neighbourhoods, "in_range", lambda *_: False)
    np.testing.assert_array_equal(nearest_distances.__wrapped__(y, 5), near)
    assert compare(np.array_split(x, blocks), y, **ASKED).manifolds == found.manifolds


def test_spread_features_need_few_float64_products(monkeypatch):
    """Only float32 tiles are multiplied, and a handful of pairs a row taken again."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 1500, 64)).astype(np.float32)
    dtypes, pairs = set(), []
    tile = products._NumpyProducts.tile
    monkeypatch.setattr(
        products._NumpyProducts, "tile", lambda self, *args: dtypes.add(self._left.dtype) or tile(self, *args)
    )
    for module in (neighbourhoods, screened_pass):
        monkeypatch.setattr(
            module,
            "distances_of_pairs",
            lambda *args, **how: pairs.append(len(args[2])) or distances_of_pairs(*args, **how),
        )
    monkeypatch.setattr(tiles, "ROWS", 512)
    compare([x], y, **ASKED)
    assert dtypes == {np.dtype(np.float32)}
    assert sum(pairs) < 8 * (len(x) + len(y))


def test_coarse_products_are_not_believed(monkeypatch):
    rng = np.random.default_rng(3)
    form, norms = single_form(rng.standard_normal((40, 30)), slice(None), np.zeros(30))
    right = right_form(form)
    assert keeps_the_bound(form @ right.T, form, norms)
    coarse = [torch.from_numpy(side).bfloat16().float().numpy() for side in (form, right)]
    assert not keeps_the_bound(coarse[0] @ coarse[1].T, form, norms)
    monkeypatch.setattr(neighbourhoods, "keeps_the_bound", lambda *_: False)
    assert Rows.of(form, [40], np.zeros(32)).screened is None


@pytest.mark.parametrize("how", ["old", "new"])
def test_torch_told_to_be_coarse_is_not_asked(how, monkeypatch):
    monkeypatch.setattr(products, "_numpy_is_faster", lambda: False)
    left = np.ones((3, 2), dtype=np.float32)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with products_on("cpu"):
        assert isinstance(products_of(left), products._TorchProducts)
        assert products.multiplier() == "torch"
        try:
            if how == "old":
                torch.set_float32_matmul_precision("medium")
            else:
                matmul.fp32_precision = "bf16"
            assert isinstance(products_of(left), products._NumpyProducts)
            assert products.multiplier() == "numpy"
            assert isinstance(products_of(left.astype(np.float64)), products._TorchProducts)
        finally:
            if how == "old":
                torch.set_float32_matmul_precision("highest")
            matmul.fp32_precision = before
    assert products.multiplier() == "numpy"
    with products_on("cpu", bitwise=True):
        assert products.multiplier() is None


def test_numpy_multiplies_where_it_is_faster(monkeypatch):
    monkeypatch.setattr(products, "_numpy_is_faster", lambda: True)
    for dtype in (np.float32, np.float64):
        with products_on("cpu"):
            assert isinstance(products_of(np.ones((3, 2), dtype=dtype)), products._NumpyProducts)
            assert products.multiplier() == "numpy"
        with products_on("meta"):
            assert isinstance(products_of(np.ones((3, 2), dtype=dtype)), products._TorchProducts)


@pytest.mark.parametrize("how", ["exhausted", "closed", "worker fails", "caller fails"])
def test_the_threads_of_products_come_back(how):
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def fails(item):
        raise ValueError(item)

    before, found, torch_threads = threads(), [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = fails if how == "worker fails" else lambda _: found.append(threads())
        with products_on("cpu"), contextlib.suppress(ValueError):
            if how == "closed":
                some = products.side_by_side(run, [0, 1])
                next(some)
                some.close()
            else:
                for _ in products.side_by_side(run, [0, 1]):
                    if how == "caller fails":
                        raise ValueError
        assert threads() == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(torch_threads)
    assert all(number == 1 for numbers in found for number in numbers)
    assert bool(found) == (how != "worker fails")


@pytest.mark.parametrize(
    "place", [products_on("cpu", bitwise=True), products_on("meta"), contextlib.nullcontext()]
)
def test_elsewhere_items_run_in_turn_where_they_are_asked_for(place):
    with place:
        assert not products.apart()
        assert set(products.side_by_side(lambda _: threading.get_ident(), range(3))) == {
            threading.get_ident()
        }


def test_torch_takes_rows_that_run_backwards_or_are_read_only():
    rows = np.arange(12.0).reshape(4, 3)
    fixed = rows.copy()
    fixed.flags.writeable = False
    with products_on("cpu"):
        found = products_of(fixed).tile(slice(0, 4), rows[::-1])
        np.testing.assert_array_equal(products_of(rows[::-1]).tile(slice(0, 4), fixed), found.T)
    np.testing.assert_array_equal(found, rows @ rows[::-1].T)
