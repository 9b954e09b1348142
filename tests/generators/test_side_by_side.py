"""Parts computed side by side, layers that keep what their weights give, steps that overwrite their input."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn

from evalkit.errors import InvalidInputError
from evalkit.generators import in_place
from evalkit.generators.frozen import WeightLayer, freeze
from evalkit.runtime import strict_numerics
from tests.generators.tiny_models import TINY, tiny_generator

NAMES = [
    "stylegan",
    "sngan",
    "sagan",
    "sagan-64",
    "biggan",
    "cgan",
    "vae",
    "vq-vae",
    "gated-pixelcnn",
    "ddpm",
]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A tiny generator by name, a fresh one each time."""
    folder = tmp_path_factory.mktemp("side_by_side")
    return lambda name: tiny_generator(name, folder)


@pytest.fixture
def threads():
    """Sets the number of torch's threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def labels_of(generator, count):
    return np.arange(count, dtype=np.int64) % generator.num_classes if generator.num_classes else None


@pytest.mark.parametrize(("count", "workers", "sizes"), [
    (1, 2, [1]), (2, 2, [1, 1]), (5, 2, [3, 2]), (64, 2, [32, 32]), (70, 2, [18, 18, 18, 16]), (16, 1, [16]),
    (7, 4, [2, 2, 2, 1]),
])  # fmt: skip
def test_parts_are_the_threads_shares(build, threads, count, workers, sizes):
    generator, seen = build("cgan"), []
    original = generator._sample

    def noted(seeds, labels):
        seen.append((seeds.tolist(), threading.get_ident(), torch.get_num_threads()))
        return original(seeds, labels)

    generator._sample = noted
    threads(workers)
    with strict_numerics():
        images = generator.generate(np.arange(count), labels=labels_of(generator, count))
    assert len(images) == count
    assert sorted(index for part, *_ in seen for index in part) == list(range(count))
    assert [len(part) for part, *_ in sorted(seen)] == sizes
    assert torch.get_num_threads() == workers
    if len(sizes) > 1:
        assert {count for *_, count in seen} == {1}
        assert threading.get_ident() not in {ident for _, ident, _ in seen} or workers == 1
    else:
        assert seen[0][1:] == (threading.get_ident(), workers)  # one image has all threads


@pytest.mark.parametrize("name", NAMES)
def test_images_side_by_side_are_those_of_one_batch(build, threads, name):
    generator = build(name)
    seeds, labels = np.arange(9), labels_of(generator, 9)
    threads(1)
    together = generator.generate(seeds, labels=labels)
    threads(3)
    side_by_side = generator.generate(seeds, labels=labels)
    # Kernels differ with the batch by about 1e-6, which may cross a rounding edge: one grey level, rarely.
    difference = (side_by_side.int() - together.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).double().mean()) <= 1e-3


def test_an_error_in_a_part_is_the_batch_s(build, threads):
    generator = build("cgan")
    with torch.no_grad():
        generator.network.to_rgb.bias.fill_(torch.nan)
    threads(2)
    with pytest.raises(InvalidInputError, match="not finite"):
        generator.generate(np.arange(4), labels=labels_of(generator, 4))


@pytest.mark.parametrize("name", ["stylegan", "sngan", "sagan", "sagan-64", "biggan"])
def test_frozen_layers_give_the_images_of_thawed_ones(build, name):
    generator = build(name)
    layers = [module for module in generator.network.modules() if isinstance(module, WeightLayer)]
    assert layers
    assert all(layer._kept is not None for layer in layers)
    seeds, labels = np.arange(3), labels_of(generator, 3)
    frozen = generator.generate(seeds, labels=labels)
    for layer in layers:
        layer.thaw()
    assert torch.equal(generator.generate(seeds, labels=labels), frozen)


def test_a_layer_follows_its_weights_until_it_is_frozen():
    class Doubled(WeightLayer[torch.Tensor]):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def derive(self):
            return self.weight * 2

    network = nn.Sequential(Doubled(), nn.Linear(2, 2))
    layer = network[0]
    with torch.no_grad():
        layer.weight.fill_(3.0)
    assert layer.derived.tolist() == [6.0, 6.0]
    assert layer.derived.requires_grad
    freeze(network)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    assert layer.derived.tolist() == [6.0, 6.0]
    assert not layer.derived.requires_grad
    assert "_kept" not in network.state_dict()
    assert copy.deepcopy(layer).derived.tolist() == [6.0, 6.0]
    network.double()  # to another type or device, it derives again
    assert layer.derived.dtype == torch.float64
    assert layer.derived.tolist() == [10.0, 10.0]


def test_overwriting_steps_are_the_ordinary_ones():
    x, y = torch.randn(2, 5, 7), torch.randn(5, 1)
    plain = {
        "relu": torch.relu(x), "silu": nn.functional.silu(x), "add": x + y, "affine": x * y + 0.3 * y,
    }  # fmt: skip
    arguments = {"relu": (), "silu": (), "add": (y,), "affine": (y, 0.3 * y)}
    for name, expected in plain.items():
        step = getattr(in_place, name)
        fresh = x.clone()
        with torch.no_grad():
            result = step(fresh, *arguments[name])
        assert result.data_ptr() == fresh.data_ptr()
        assert torch.equal(result, expected)
        learnt = x.clone().requires_grad_()
        kept = step(learnt, *arguments[name])
        assert torch.equal(kept, expected)
        assert torch.equal(learnt, x)
        kept.sum().backward()
        assert learnt.grad is not None


def test_every_name_here_is_a_model():
    assert set(NAMES) <= set(TINY)
