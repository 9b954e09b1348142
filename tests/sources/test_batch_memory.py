"""Memory of a batch is used again when the batch and all views of it are gone, and never before."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.sources import batch_memory, open_source
from evalkit.sources.batch_memory import BatchMemory

SHAPE = (4, 3, 8, 8)


def address(array) -> int:
    return array.__array_interface__["data"][0]


def test_the_next_array_lies_where_the_last_one_did():
    memory = BatchMemory()
    first = memory.array(SHAPE)
    assert first.shape == SHAPE
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.flags.writeable
    where = address(first)
    del first
    smaller = memory.array((3, *SHAPE[1:]))
    assert address(smaller) == where
    del smaller
    assert address(memory.array(SHAPE)) == where


@pytest.mark.parametrize(
    "view",
    [lambda a: a, lambda a: a[2], lambda a: a.reshape(-1)[5:].view(np.int8), torch.from_numpy,
     lambda a: torch.from_numpy(a)[1, :, ::2].permute(1, 0, 2), lambda a: memoryview(a[1])],
    ids=["array", "row", "reshaped", "tensor", "view of a tensor", "buffer"],
)  # fmt: skip
def test_a_view_keeps_its_memory(view):
    memory = BatchMemory()
    array = memory.array(SHAPE)
    array[...] = 7
    held, where = view(array), address(array)
    del array
    other = memory.array(SHAPE)
    other[...] = 9
    assert address(other) != where
    assert (np.asarray(held) == 7).all()


def test_more_than_was_there_is_taken_anew():
    memory = BatchMemory()
    memory.array(SHAPE)[...] = 1
    larger = memory.array((9, *SHAPE[1:]))
    larger[...] = 2
    assert larger.sum() == 2 * larger.size


def test_the_memory_of_large_batches_is_not_kept(monkeypatch):
    monkeypatch.setattr(batch_memory, "KEPT_BYTES", 4 * 3 * 8 * 8)
    memory = BatchMemory()
    assert memory.array((5, *SHAPE[1:])).shape == (5, *SHAPE[1:])
    assert not memory._free
    memory.array(SHAPE)[...] = 0
    assert [kept.size for kept in memory._free] == [4 * 3 * 8 * 8]


def test_threads_never_share_an_array():
    memory, clashes = BatchMemory(), []

    def work(number: int) -> None:
        for _ in range(300):
            array = memory.array(SHAPE)
            array[...] = number
            if not (array == number).all():
                clashes.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes


def test_a_batch_that_is_kept_is_not_written_over(tmp_path, rng):
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    source = open_source(tmp_path)
    kept = source.read(np.arange(4)).images
    before = kept.clone()
    for _ in range(3):
        assert not torch.equal(source.read(np.arange(4, 8)).images, before)
    assert torch.equal(kept, before)
