"""The residual GAN's training: arithmetic of its discriminator, its schedule, resuming and export."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evalkit.errors import UsageError
from evalkit.generators import load_generator
from evalkit.generators.gan.convolutional.residual import ResidualConfig
from evalkit.training.loop import FitOptions, TrainingSet, fit
from evalkit.training.recipes import export
from evalkit.training.residual_gan import (
    DownBlock,
    ResidualDiscriminator,
    ResidualGANTask,
    convolve_then_halve,
)

CONFIG = ResidualConfig(
    latent_dim=8,
    num_classes=10,
    channels=(16, 8, 8),
    upsampling="nearest",
    attention=0,
    bottom_width=4,
    spectral_norm=False,
)
WIDTHS = (8, 8, 16, 16)


def _rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _task(**changes) -> ResidualGANTask:
    settings = {"config": CONFIG, "steps": 6, "device": "cpu", "widths": WIDTHS}
    return ResidualGANTask(**(settings | changes))


def _batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(n, 3, 16, 16, generator=_rng(2)) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last), torch.arange(n) % 10


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    return TrainingSet(
        rng.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8), rng.integers(0, 10, 40).astype(np.int64)
    )


def test_one_strided_convolution_is_a_convolution_and_an_average():
    x = torch.randn(2, 3, 8, 8, generator=_rng())
    weight, bias = torch.randn(5, 3, 3, 3, generator=_rng(3)), torch.randn(5, generator=_rng(4))
    expected = F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    torch.testing.assert_close(convolve_then_halve(x, weight, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("first", "halve"), [(True, True), (False, True), (False, False)])
def test_a_block_is_two_convolutions_beside_a_shortcut(first, halve):
    torch.manual_seed(0)
    block = DownBlock(6, 6 if not halve else 10, first=first, halve=halve).eval()
    x = torch.randn(2, 6, 8, 8, generator=_rng())
    h = block.c2(torch.relu(block.c1(x if first else torch.relu(x))))
    shortcut = block.c_sc(x)
    expected = F.avg_pool2d(h, 2) + F.avg_pool2d(shortcut, 2) if halve else h + x
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_the_score_is_linear_plus_the_projection_of_the_label():
    torch.manual_seed(0)
    critic = ResidualDiscriminator(10, WIDTHS).eval()
    images, labels = _batch()
    h = torch.relu(critic.blocks(images)).sum(dim=(2, 3))
    expected = critic.score(h).squeeze(1) + (critic.project.weight[labels] * h).sum(dim=1)
    torch.testing.assert_close(critic(images, labels), expected)
    assert critic.blocks(images).shape == (8, 16, 4, 4)


def test_every_weight_of_the_discriminator_has_spectral_norm_one():
    torch.manual_seed(0)
    critic = ResidualDiscriminator(10, WIDTHS)
    for _ in range(40):
        critic(*_batch())
    critic.eval()
    layers = [m for m in critic.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == 2 * 4 + 3 + 2  # two convolutions a block, three shortcuts, score and projection
    for layer in layers:
        norm = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert norm == pytest.approx(1.0, abs=0.05)


def test_a_step_makes_the_stated_number_of_discriminator_steps(monkeypatch):
    task, calls = _task(n_dis=4), []
    original = task._discriminator_step
    monkeypatch.setattr(
        task, "_discriminator_step", lambda x, y, *, rng: calls.append(y.tolist()) or original(x, y, rng=rng)
    )
    logged = task.step(*_batch(), step=0, rng=_rng())
    assert calls == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(np.isfinite(value) for value in logged.values())
    with pytest.raises(UsageError, match="cannot be shared out to 4"):
        task.step(*_batch(6), step=1, rng=_rng())


def test_the_rate_falls_to_zero():
    task, rates = _task(), []
    for step in (0, 3, 6, 9):
        task.step(*_batch(), step=step, rng=_rng())
        rates.append(task.optimizers["discriminator"].param_groups[0]["lr"] / 2e-4)
    assert rates == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_losses_are_the_hinge_ones():
    task, (images, labels) = _task(bfloat16=False), _batch()
    task.discriminator.eval()  # otherwise each call moves the singular vectors
    logged = task._discriminator_step(images, labels, rng=_rng(3))
    assert logged["d_loss"] > 0
    generator = {k: v.clone() for k, v in task.discriminator.state_dict().items()}
    task._generator_step(8, rng=_rng(4))
    assert all(torch.equal(v, generator[k]) for k, v in task.discriminator.state_dict().items())
    assert all(p.requires_grad for p in task.discriminator.parameters())


def test_a_generator_step_moves_towards_the_critic():
    task = _task(rate=1e-3, bfloat16=False)
    losses = [task._generator_step(16, rng=_rng(4)) for _ in range(15)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("classes", [10, 0])
def test_finish_makes_statistics_of_the_averaged_weights(classes):
    task = _task(config=dataclasses.replace(CONFIG, num_classes=classes), bfloat16=False)
    task.step(*_batch(), step=0, rng=_rng())
    task.finish([_batch(64)] * 3)
    network = task.average.network
    assert not network.training
    first = network.block2.b1.bn if classes else network.block2.b1
    rng = _rng(1)
    z = torch.cat([torch.randn(64, 8, generator=rng) for _ in range(3)])
    x = network.l1(z).view(-1, 16, 4, 4).detach()
    assert int(first.num_batches_tracked) == 3
    assert first.running_mean.numpy() == pytest.approx(x.mean(dim=(0, 2, 3)).numpy(), abs=1e-4)
    assert task.preview(_rng()).shape == (64, 3, 16, 16)


@pytest.mark.slow
def test_resumed_training_is_identical_and_exports(tmp_path, data):
    def options(steps: int) -> FitOptions:
        return FitOptions(steps=steps, batch_size=8, preview_every=10_000)

    whole = _task()
    facts = fit(whole, data, options(6), out=tmp_path / "whole")
    assert facts["images_seen"] == 48
    fit(_task(), data, options(3), out=tmp_path / "halves")
    resumed = _task()
    fit(resumed, data, options(6), out=tmp_path / "halves")
    expected, got = whole.export()[1], resumed.export()[1]
    assert all(torch.equal(expected[key], got[key]) for key in expected)

    path = tmp_path / "sngan.safetensors"
    export(whole, path, dict(facts))
    generator = load_generator("sngan", path)
    assert generator.generate(np.array([1, 2]), labels=np.array([0, 9])).shape == (2, 3, 16, 16)
    assert generator.network.config == CONFIG
