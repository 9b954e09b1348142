"""Pairs are read one part ahead, in order, and an error comes when its part does."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from evalkit.errors import InvalidInputError
from evalkit.pairs.ahead import parts_of, read_ahead
from evalkit.pairs.matching import Pairing
from evalkit.pairs.probe import PairProbe
from evalkit.pairs.sources import MatchedPairs, PairBatch
from evalkit.perceptual import build_pair_measure


class Pictures:
    """Pairs whose every pixel is the index; refuses index ``bad`` and remembers what was read."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad
        self.seen: list[tuple[int, str]] = []
        self.began = threading.Semaphore(0)

    def read(self, index):
        self.seen += [(int(i), threading.current_thread().name) for i in index]
        self.began.release()
        if self.bad in index:
            raise InvalidInputError(f"picture {self.bad} is broken")
        images = [torch.full((3, 12, 12), int(i), dtype=torch.uint8) for i in index]
        return PairBatch(images, [image + 5 for image in images], None, index)

    def names(self, index):
        return str(index), str(index)


def matched(count: int) -> MatchedPairs:
    positions = np.arange(count)
    return MatchedPairs(None, None, Pairing("index", positions, positions))  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (15, [15]), (16, [8, 8]), (70, [18, 18, 17, 17])])
def test_parts_keep_the_order_and_only_accelerators_want_them(count, sizes):
    index = np.arange(100, 100 + count)
    parts = parts_of(index, matched(count), device=torch.device("cuda"))
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts), index)
    for pairs, device in ((matched(count), "cpu"), (Pictures(), "cuda")):
        (whole,) = parts_of(index, pairs, device=torch.device(device))
        assert whole is index


def test_the_next_part_is_read_while_this_one_is_measured():
    pairs = Pictures()
    parts = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 8)]
    batches = read_ahead(pairs, parts)
    assert not pairs.seen
    first = next(batches)
    assert first.index.tolist() == [0, 1, 2]
    assert all(pairs.began.acquire(timeout=30) for _ in range(2))  # of a caller that asks for no more
    assert [i for i, _ in pairs.seen] == [0, 1, 2, 3, 4, 5]
    assert [batch.index.tolist() for batch in batches] == [[3, 4, 5], [6, 7]]
    assert {name for _, name in pairs.seen} == {"evalkit-pairs_0"}


def test_an_error_waits_for_its_turn():
    batches = read_ahead(Pictures(bad=4), [np.arange(0, 3), np.arange(3, 6)])
    assert next(batches).index.tolist() == [0, 1, 2]
    with pytest.raises(InvalidInputError, match="picture 4"):
        next(batches)


def test_no_thread_is_left_by_a_caller_that_stops():
    batches = read_ahead(Pictures(), [np.arange(0, 3), np.arange(3, 6), np.arange(6, 8)])
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evalkit-pairs")]


def test_rows_do_not_depend_on_the_parts(monkeypatch):
    pairs = Pictures()
    measure = build_pair_measure("ssim", weights={}, device="cpu")
    probe = PairProbe(pairs, [measure], regions=["whole"], device=torch.device("cpu"))  # type: ignore[arg-type]
    index, heads = np.arange(3, 20), list(probe.heads)
    whole = probe(index, heads)
    monkeypatch.setattr(
        "evalkit.pairs.probe.parts_of", lambda index, _pairs, device: np.array_split(index, 4)
    )
    split = probe(index, heads)
    for head in heads:
        np.testing.assert_array_equal(whole[head], split[head])
    assert len(np.unique(whole["ssim"])) == len(index)
