"""Training a Gated PixelCNN: the logged number, what it learns, resuming, reproducible dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evalkit.generators import load_generator
from evalkit.generators.autoregressive.gated import GatedPixelCNNConfig
from evalkit.training.gated_pixelcnn import (
    POLYAK,
    GatedPixelCNNTask,
    blend,
    learning_rate,
    reproducible_dropout,
)
from evalkit.training.loop import FitOptions, MovingAverage, TrainingSet, fit
from evalkit.training.recipes import export

SIZE = 8


def _task(steps: int, *, dropout: float = 0.2, rate: float = 1e-3) -> GatedPixelCNNTask:
    config = GatedPixelCNNConfig(resolution=SIZE, features=8, layers=1, head=16)
    return GatedPixelCNNTask(
        config=config,
        steps=steps,
        device="cpu",
        learning_rate=rate,
        warmup=2,
        dropout=dropout,
        bfloat16=False,
    )


def _data(n: int = 32) -> TrainingSet:
    rng = np.random.default_rng(0)
    flat = rng.integers(100, 120, (n, 3, 1, 1)) + rng.integers(0, 4, (n, 3, SIZE, SIZE))
    return TrainingSet(flat.astype(np.uint8), rng.integers(0, 10, n).astype(np.int64))


def test_bits_per_dimension_are_the_mean_of_each_value_s_bits():
    task, (images, labels) = _task(2, dropout=0.0), _data().batch(FitOptions(2, 4), 0, torch.Generator())
    values = ((images + 1.0) * 127.5).round().long()
    with torch.no_grad():
        probabilities = torch.softmax(task.network(values, labels), dim=-1)
        chosen = probabilities.gather(-1, values.permute(0, 2, 3, 1)[..., None])
    logged = task.step(images, labels, step=0, rng=torch.Generator())
    assert logged["bits_per_dim"] == pytest.approx(float(-chosen.log2().mean()), rel=1e-4)
    assert logged["bits_per_dim"] == pytest.approx(8.0, abs=0.5)  # it starts near the uniform distribution


def test_it_learns():
    task, data, options = _task(50, dropout=0.0, rate=1e-2), _data(), FitOptions(50, 8)
    losses = [
        task.step(*data.batch(options, s, torch.Generator()), step=s, rng=torch.Generator())["bits_per_dim"]
        for s in range(50)
    ]
    assert losses[-1] < losses[0] - 1.5


def test_resumed_training_is_identical_and_exports(tmp_path):
    data, options = _data(), FitOptions(4, 8, preview_every=10_000)
    whole, halves = _task(4), _task(4)
    facts = fit(whole, data, options, out=tmp_path / "whole")
    fit(_task(4), data, FitOptions(2, 8, preview_every=10_000), out=tmp_path / "halves")
    fit(halves, data, options, out=tmp_path / "halves")
    expected, found = whole.export()[1], halves.export()[1]
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    export(whole, tmp_path / "gated.safetensors", dict(facts))
    generator = load_generator("gated-pixelcnn", tmp_path / "gated.safetensors")
    assert generator.generate(np.array([1, 2]), labels=np.array([0, 9])).shape == (2, 3, SIZE, SIZE)


def test_dropout_is_a_function_of_the_step_s_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    masks = []
    for seed in (1, 1, 2):
        with reproducible_dropout(torch.Generator().manual_seed(seed)):
            masks.append(torch.nn.functional.dropout(torch.ones(50), 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_rate_warms_up_and_falls_to_a_twentieth():
    rates = [learning_rate(s, total=100, peak=1.0, warmup=10) for s in (0, 9, 50, 100)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert rates[1] == pytest.approx(0.05 + 0.475 * (1.0 + math.cos(0.09 * math.pi)))
    assert rates[2] == pytest.approx(0.525)
    assert rates[3] == pytest.approx(0.05)


def test_the_average_decays_by_polyak_s_factor_late_in_training():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    average = MovingAverage(layer, math.inf)
    torch.nn.init.ones_(layer.weight)
    blend(average, layer, step=1_000_000, batch_size=16)
    assert float(average.network.weight) == pytest.approx(1.0 - POLYAK, rel=1e-4)
