"""The laws against operations that are counted and memory that is traced, and how they scale."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from evalkit.accumulators import moments as accumulator
from evalkit.costing.laws import LAWS, ROWS, WIDTH, Size, frechet, moments, pairs
from evalkit.costing.numerics_probe import MadeUp, features, group_costs
from evalkit.extracted import Extracted
from evalkit.metrics import METRICS, compute_all
from evalkit.numerics import products
from evalkit.shards import ShardLayout, ShardResult, ShardStore

SIZE = Size(n=1400, m=900, d=96, blocks=10)
FULL = Size(n=50_000, m=10_000, d=2048)


def _compute(names: tuple[str, ...], size: Size, *, seed: int) -> None:
    generated, reference = features(size, seed=seed), MadeUp(size, seed=seed + 1)
    compute_all(
        [(METRICS[name](), generated, reference) for name in names], rng=lambda: np.random.default_rng(0)
    )


def test_every_metric_that_reads_images_has_a_law():
    assert set(LAWS) == {name for name in METRICS if METRICS[name].reads == "images"}


@pytest.mark.parametrize("names", [("kd",), ("cmmd",), ("precision", "recall", "density", "coverage")])
def test_products_that_are_counted_are_those_of_the_law(names, monkeypatch):
    """Tiles on the diagonal are computed whole, so that a small problem takes up to a third more."""
    counted, tile = [], products._NumpyProducts.tile

    def counting(self, rows, right):
        found = tile(self, rows, right)
        counted.append(found.size * right.shape[1])
        return found

    monkeypatch.setattr(products._NumpyProducts, "tile", counting)
    _compute(names, SIZE, seed=11)
    assert sum(counted) == pytest.approx(pairs(SIZE), rel=0.34)


def test_rows_that_are_folded_into_moments_are_those_of_the_law(monkeypatch):
    counted = []
    real = accumulator.blas.dsyrk

    class Counting:
        @staticmethod
        def dsyrk(alpha, rows, **options):
            counted.append(rows.shape[0] ** 2 * rows.shape[1] / 2)
            return real(alpha, rows, **options)

    monkeypatch.setattr(accumulator, "blas", Counting)
    size = Size(n=4000, m=0, d=64)
    accumulator.moments_of(features(size, seed=3).blocks)
    assert sum(counted) == pytest.approx(moments(size), rel=0.02)


@pytest.mark.parametrize("name", ["fd", "kd", "precision", "realism", "authpct", "is", "vendi"])
def test_memory_stays_below_that_of_the_law(name):
    size = Size(n=1200, m=1200, d=64, blocks=20)
    generated, reference = features(size, seed=21), MadeUp(size, seed=22)
    tracemalloc.start()
    try:
        compute_all([(METRICS[name](), generated, reference)], rng=lambda: np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= LAWS[name].memory(size)


@pytest.mark.parametrize("name", sorted(set(LAWS) - {"fld", "mifd"}))
def test_memory_of_features_in_files_stays_below_that_of_the_law(name, tmp_path):
    """As in a run: blocks are read from the files of shards; what a metric holds of them is in its law."""
    size = Size(n=2048, m=600, d=64, blocks=len(ShardLayout(2048).blocks()))
    made, shards = features(size, seed=23), Extracted(ShardLayout(size.n))
    rows, labels = made.stacked(), np.concatenate(made.labels)
    for shard in range(shards.layout.shards):
        index = shards.layout.indices(shard)
        result = ShardResult({"x": rows[index]}, {"labels": labels[index].tolist()})
        shards.add(replace(result, path=ShardStore(tmp_path).write(shard, result)))
    reference, texts = MadeUp(size, seed=24), np.concatenate(made.texts)
    del made, rows, result
    tracemalloc.start()
    try:
        generated = shards.in_blocks("x", contiguous=False, texts=texts)
        compute_all([(METRICS[name](), generated, reference)], rng=lambda: np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= LAWS[name].memory(size) + LAWS[name].holds * 4 * size.n * size.d


def test_what_is_read_piece_by_piece_needs_no_memory_for_the_features():
    few, many = replace(FULL, n=20_000), replace(FULL, n=1_020_000)
    for name in ("fd", "is"):
        law = LAWS[name]
        assert not law.holds
        assert law.memory(many) - law.memory(few) < 300 * 1_000_000, (
            "the features themselves are 8192 bytes each"
        )


@pytest.mark.parametrize("name", LAWS)
def test_work_and_memory_grow_with_every_side(name):
    law = LAWS[name]
    for change in ({"n": 2 * FULL.n}, {"m": 2 * FULL.m}, {"d": 2 * FULL.d}):
        larger = replace(FULL, **change)
        assert law.work(larger) >= law.work(FULL) > 0
        assert law.memory(larger) >= law.memory(FULL) > 0


@pytest.mark.parametrize("name", LAWS)
def test_what_is_measured_is_small_and_of_the_same_kind(name):
    law = LAWS[name]
    small = law.smaller(FULL)
    assert law.work(small) < 0.2 * law.work(FULL)
    assert small.blocks == FULL.blocks
    if law.shrinks == "rows":
        assert (small.n, small.m, small.d) == (ROWS, ROWS, FULL.d)
    else:
        assert small.d == WIDTH
        assert small.n > small.d, "more rows than dimensions, as in the whole problem"
    assert law.smaller(Size(n=64, m=64, d=16)) == Size(n=64, m=64, d=16)


def test_fewer_rows_than_dimensions_stay_fewer():
    small = LAWS["fd"].smaller(Size(n=1000, m=1000, d=2048))
    assert small.n == round(1000 / 2048 * WIDTH)


def test_a_frechet_distance_grows_with_the_cube_where_its_shape_stays():
    small = Size(n=3 * 320, m=100, d=320)
    large = Size(n=3 * 1280, m=100, d=1280)
    assert frechet(large) == pytest.approx(64 * frechet(small))


def test_groups_share_their_pass():
    size = Size(n=60, m=60, d=8, blocks=4)
    metrics = [METRICS[name]() for name in ("precision", "recall", "is", "coverage")]
    costs = group_costs(metrics, size)
    assert [cost.metrics for cost in costs] == [("precision", "recall", "coverage"), ("is",)]
    for cost in costs:
        assert cost.seconds is not None
        assert cost.rate is not None
        assert cost.seconds * cost.rate == pytest.approx(LAWS[cost.metrics[0]].work(size))


def test_what_cannot_be_tried_is_said_not_guessed():
    (cost,) = group_costs([METRICS["ct"]()], Size(n=8, m=8, d=4, blocks=2))
    assert cost.seconds is None
    assert cost.rate is None
