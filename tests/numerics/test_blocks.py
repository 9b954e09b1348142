"""Blocks that are read piece by piece are the blocks; nothing that is computed tells the difference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.accumulators.moments import moments_of
from evalkit.numerics import gaussian_factor, inception_score_blocks, leave_out
from evalkit.numerics.blocks import (
    LazyBlocks,
    chunks_of,
    different_rows,
    joined,
    pieces_of,
    sizes_of,
    widths_of,
)
from evalkit.numerics.frechet import LEAVE_OUT_ERROR, frechet_distance_to
from evalkit.numerics.leave_out import Whole, distances_without, rests_without


class Cut(LazyBlocks):
    """Arrays, read in pieces of ``step`` rows; counts how often."""

    def __init__(self, blocks, step):
        super().__init__([len(block) for block in blocks], blocks[0].shape[1])
        self.arrays, self.step, self.reads = blocks, step, 0

    def read(self, block):
        self.reads += 1
        rows = self.arrays[block]
        for start in range(0, len(rows), self.step):
            yield rows[start : start + self.step].copy()


def arrays(seed, sizes, d=3):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, d)).astype(np.float32) for size in sizes]


sizes = st.lists(st.integers(0, 12), min_size=1, max_size=6)


@given(st.integers(0, 99), sizes, st.integers(1, 5), st.booleans())
def test_pieces_make_up_the_blocks(seed, counts, step, stacked):
    blocks = arrays(seed, counts)
    lazy = Cut(blocks, step)
    if stacked:
        np.testing.assert_array_equal(lazy.stacked(), np.concatenate(blocks))
    assert (len(lazy), sizes_of(lazy), widths_of(lazy)) == (len(blocks), sizes_of(blocks), widths_of(blocks))
    for number, block in enumerate(blocks):
        pieces = list(pieces_of(lazy, number))
        np.testing.assert_array_equal(np.concatenate([np.zeros((0, 3), np.float32), *pieces]), block)
        np.testing.assert_array_equal(lazy[number], block)
        assert lazy[number].dtype == np.float32
    for left, right in zip(lazy[1:], blocks[1:], strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(lazy[-1], blocks[-1])
    with pytest.raises(IndexError):
        lazy[len(blocks)]


def test_all_rows_are_kept_once_and_everything_is_a_view_of_them():
    lazy = Cut(arrays(1, (4, 0, 5)), 2)
    rows = lazy.stacked()
    assert lazy.reads == 3
    assert lazy.stacked() is rows
    assert all(np.shares_memory(block, rows) for block in lazy if len(block))
    assert all(np.shares_memory(piece, rows) for piece in lazy.pieces(2))
    assert joined(list(lazy)) is rows
    assert lazy.reads == 3


@given(st.integers(0, 99), sizes, st.integers(1, 5), st.integers(1, 9))
def test_where_chunks_end_depends_on_the_number_of_rows_alone(seed, counts, step, rows):
    blocks = arrays(seed, counts)
    every = range(len(blocks))
    chunks, others = (list(chunks_of(b, every, rows=rows)) for b in (Cut(blocks, step), blocks))
    whole = np.concatenate(blocks)
    expected = [whole[start : start + rows] for start in range(0, len(whole), rows)]
    for chunk, other, part in zip(chunks, others, expected, strict=True):
        np.testing.assert_array_equal(chunk, part)
        np.testing.assert_array_equal(other, part)


def test_joining_copies_only_what_is_no_array_cut_into_its_rows():
    whole = np.arange(24.0).reshape(8, 3).copy()
    assert joined([whole[:3], whole[3:3], whole[3:]]) is whole
    assert joined([whole[:3]]).base is whole
    turned = np.asfortranarray(whole)
    for parts in (
        [whole[:3], whole[4:]],
        [whole[3:], whole[:3]],
        [whole[:3], whole[3:7]],
        [whole[:3, :2], whole[3:, :2]],
        [turned[:3], turned[3:]],
        [whole[:4:2], whole[4:]],
    ):
        np.testing.assert_array_equal(joined(parts), np.concatenate(parts))
        assert not np.shares_memory(joined(parts), whole)


def test_equal_rows_are_counted_across_blocks():
    first, second = arrays(3, (6, 5))
    second[1], second[4] = first[2], second[0]
    first[0, 0], second[2] = -0.0, first[0]
    second[2, 0] = 0.0
    assert different_rows([first, second]) == 11 - 3
    assert different_rows(Cut([first, second], 2)) == 11 - 3
    assert different_rows([]) == 0


@given(st.integers(0, 99), st.lists(st.integers(0, 40), min_size=3, max_size=5), st.integers(1, 7))
def test_sums_are_the_same_to_the_last_bit(seed, counts, step):
    blocks = arrays(seed, [*counts, 8], d=4)
    lazy = Cut(blocks, step)
    for left_out in ((), (1,), (0, 2)):
        ours, theirs = moments_of(lazy, without=left_out), moments_of(blocks, without=left_out)
        plain = moments_of([block for number, block in enumerate(blocks) if number not in left_out])
        for key, state in ours.state().items():
            np.testing.assert_array_equal(state, theirs.state()[key])
            np.testing.assert_array_equal(state, plain.state()[key])


@pytest.mark.parametrize("chunk", [8, 1 << 19])
def test_large_blocks_are_left_out_a_chunk_at_a_time(monkeypatch, chunk):
    """At 8 numbers, three rows as there are dimensions: each block is many chunks, and the last one a row."""
    monkeypatch.setattr(leave_out, "_CHUNK", chunk)
    blocks = arrays(5, (31, 40, 0, 22))
    lazy = Cut(blocks, 4)
    moments = moments_of(blocks)
    real = gaussian_factor(np.full(3, 0.2), np.diag([1.0, 2.0, 0.5]))
    whole = Whole(moments.count, moments.mean, moments.covariance)
    groups = [(0,), (1,), (2,), (0, 3)]
    rests = [list(rests_without(b, groups, real, whole=whole, measure=pytest.fail)) for b in (blocks, lazy)]
    for eager, read, group in zip(*rests, groups, strict=True):
        assert eager.distance == read.distance
        np.testing.assert_array_equal(eager.eigenvalues, read.eigenvalues)
        rest = moments_of(blocks, without=group)
        exact = frechet_distance_to(real, mean=rest.mean, cov=rest.covariance)
        assert read.distance == pytest.approx(exact, rel=LEAVE_OUT_ERROR)
        assert read.trace == pytest.approx(np.trace(rest.covariance), rel=1e-12)
        assert read.count == rest.count
    found = distances_without(lazy, groups, real, whole=whole, measure=pytest.fail)
    assert found.tolist() == [rest.distance for rest in rests[1]]


@pytest.mark.parametrize(
    "options", [{}, {"splits": 3}, {"chunk": 7}, {"chunk": 1}, {"splits": 4, "shuffle_seed": 2020}]
)
def test_an_inception_score_is_the_same_to_the_last_bit(monkeypatch, options):
    blocks = arrays(6, (30, 17, 40, 25), d=9)
    lazy, counts = Cut(blocks, 6), (30, 17, 40, 25)
    monkeypatch.setattr("evalkit.numerics.entropy.ROWS", 16)
    for some in (counts, ()):
        expected = inception_score_blocks(np.concatenate(blocks), some, **options)
        assert inception_score_blocks(lazy, some, **options) == expected
    assert len(expected[1]) == 0
    edges = (0, *itertools.accumulate(counts))
    first = inception_score_blocks(np.concatenate(blocks)[edges[1] :], (), **options)
    if "shuffle_seed" not in options:
        assert inception_score_blocks(lazy, counts, **options)[1][0].mean == pytest.approx(first[0].mean)
