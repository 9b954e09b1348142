"""Strict sampling: equal bits for any batch size and any number of workers, for every bundled family."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from evalkit.generators import GENERATOR_FACTS, SamplingOptions, load_generator
from evalkit.generators.toy import GaussianTiles
from evalkit.sources.fixed_blocks import BLOCK, FixedBlockSource
from evalkit.sources.generated import GeneratedSource

COUNT = 37  # two whole blocks and a part of one
FEW_STEPS = {"diffusion": 2}
BUNDLED = tuple(facts.name for facts in GENERATOR_FACTS.values() if facts.bundled)


def _source(model: str, count: int = COUNT) -> FixedBlockSource:
    options = SamplingOptions(steps=FEW_STEPS.get(GENERATOR_FACTS[model].family))
    return FixedBlockSource(GeneratedSource(load_generator(model, options=options), count, 3))


def _in_batches(source: FixedBlockSource, index: np.ndarray, size: int) -> np.ndarray:
    parts = [source.read(index[start : start + size]).images for start in range(0, len(index), size)]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("model", BUNDLED)
def test_any_batch_size_gives_the_same_bits(model):
    index = np.arange(COUNT, dtype=np.int64)
    whole = _in_batches(_source(model), index, 64)
    assert len(np.unique(whole.reshape(COUNT, -1), axis=0)) > COUNT // 2
    for size in (1, 7):
        assert np.array_equal(_in_batches(_source(model), index, size), whole)


_WORKER = """
import sys
import numpy as np, torch
from evalkit.generators import GENERATOR_FACTS, SamplingOptions, load_generator
from evalkit.sources.fixed_blocks import FixedBlockSource
from evalkit.sources.generated import GeneratedSource

rank, workers, count, out, *models = sys.argv[1:]
torch.set_num_threads(1 + int(rank) % 2)  # workers may differ in this too
index = np.arange(int(rank), int(count), int(workers), dtype=np.int64)
images = {}
for model in models:
    steps = 2 if GENERATOR_FACTS[model].family == "diffusion" else None
    generator = load_generator(model, options=SamplingOptions(steps=steps))
    source = FixedBlockSource(GeneratedSource(generator, int(count), 3))
    parts = [source.read(index[start : start + 5]).images for start in range(0, len(index), 5)]
    images[model] = torch.cat(parts).numpy()
np.savez(out, index=index, **images)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bits(tmp_path, workers):
    files = [tmp_path / f"{rank}.npz" for rank in range(workers)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(rank), str(workers), str(COUNT), str(file), *BUNDLED]
        )
        for rank, file in enumerate(files)
    ]
    assert [process.wait(300) for process in started] == [0] * workers
    for model in BUNDLED:
        together = np.empty((COUNT, 3, 32, 32), dtype=np.uint8)
        for file in files:
            with np.load(file) as part:
                together[part["index"]] = part[model]
        assert np.array_equal(together, _in_batches(_source(model), np.arange(COUNT, dtype=np.int64), COUNT))


def test_the_count_moves_no_image():
    few, many = (_source("cgan", count).read(np.arange(5)).images for count in (5, 100))
    assert torch.equal(few, many)


def test_a_block_is_computed_once_where_indices_come_in_order():
    calls = []

    class Counted(GaussianTiles):
        def generate(self, seeds, *, labels=None):
            calls.append(len(seeds))
            return super().generate(seeds, labels=labels)

    source = FixedBlockSource(GeneratedSource(Counted(), 3 * BLOCK))
    for i in range(3 * BLOCK):
        source.read(np.array([i]))
    assert calls == [BLOCK] * 3


def test_the_spec_says_that_blocks_are_fixed():
    source = _source("cgan")
    assert source.spec != source.source.spec
    assert dict(source.spec.params)["block"] == BLOCK
    assert len(source) == COUNT
