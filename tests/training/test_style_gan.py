"""The style GAN's training: discriminator, penalty, augmentation and centres, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evalkit.generators.gan.style import StyleGANConfig
from evalkit.training.style_gan import (
    StyleDiscriminator,
    StyleGANTask,
    append_group_deviation,
    augment,
    shift_colours,
)

CONFIG = StyleGANConfig(latent_dim=8, style_dim=8, mapping_layers=2, channels=(16, 8, 8, 8))
WIDTHS = (8, 8, 8, 16)


def _rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _task(**changes) -> StyleGANTask:
    settings = {"config": CONFIG, "device": "cpu", "widths": WIDTHS, "bfloat16": False}
    return StyleGANTask(**(settings | changes))


def _batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(n, 3, 32, 32, generator=_rng(2)) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last), torch.arange(n) % 10


def test_group_deviation_is_the_mean_standard_deviation_of_each_run_of_eight():
    x = torch.randn(16, 3, 4, 4, generator=_rng())
    joined = append_group_deviation(x)
    assert joined.shape == (16, 4, 4, 4)
    assert torch.equal(joined[:, :3], x)
    for half in (slice(0, 8), slice(8, 16)):
        expected = np.std(x[half].numpy(), axis=0).mean()
        assert joined[half, 3].numpy() == pytest.approx(expected, rel=1e-5)


def test_groups_do_not_mix_the_halves_of_a_batch():
    real, fake = torch.randn(8, 3, 4, 4, generator=_rng()), torch.zeros(8, 3, 4, 4)
    joined = append_group_deviation(torch.cat([real, fake]))
    assert torch.equal(joined[:8], append_group_deviation(real))
    assert float(joined[8:, 3].max()) == pytest.approx(1e-4)  # the root of the constant under it


def test_one_pass_of_both_halves_is_two_passes():
    torch.manual_seed(0)
    critic = StyleDiscriminator(10, WIDTHS)
    images, labels = _batch(16)
    together = critic(images, labels)
    apart = torch.cat([critic(images[:8], labels[:8]), critic(images[8:], labels[8:])])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(critic(images, (labels + 1) % 10), together, atol=1e-3)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_augmentation_takes_the_share_that_it_is_told(probability):
    images = torch.rand(400, 3, 16, 16, generator=_rng())
    changed = (augment(images, _rng(3), probability=probability) != images).any(dim=(1, 2, 3))
    assert float(changed.float().mean()) == pytest.approx(probability, abs=0.08)


def test_augmentation_is_differentiable_and_its_probability_grows():
    images = torch.rand(64, 3, 16, 16, generator=_rng()).requires_grad_()
    augment(images, _rng(3), probability=1.0).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0.0
    few, many = ((augment(images, _rng(3), probability=p) != images).any(dim=(1, 2, 3)) for p in (0.2, 0.7))
    assert bool((few <= many).all())  # the same draws: whoever was augmented stays so


def test_colours_shift_brightness_saturation_and_contrast_within_bounds():
    images = torch.rand(200, 3, 8, 8, generator=_rng())
    shifted = shift_colours(images, _rng(3))
    brightness = shifted.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))
    assert float(brightness.abs().max()) <= 0.5
    assert float(brightness.std()) == pytest.approx(12**-0.5, abs=0.03)
    grey_before, grey_after = images.mean(dim=1), shifted.mean(dim=1)
    contrast = grey_after.flatten(1).std(dim=1) / grey_before.flatten(1).std(dim=1)
    assert 0.5 <= float(contrast.min()) < 0.55
    assert 1.45 < float(contrast.max()) <= 1.5
    colour = (shifted - grey_after[:, None]).flatten(1).norm(dim=1)
    saturation = colour / (images - grey_before[:, None]).flatten(1).norm(dim=1) / contrast
    assert 0.0 <= float(saturation.min()) < 0.1
    assert 1.9 < float(saturation.max()) <= 2.0 + 1e-4


def test_the_gradient_penalty_is_that_of_finite_differences():
    task = _task(r1=0.0)  # measured, with no step of consequence
    images, labels = _batch()
    before = {k: v.clone() for k, v in task.discriminator.state_dict().items()}
    penalty = task._gradient_penalty_step(images, labels, probability=0.0, rng=_rng())
    assert all(torch.equal(v, before[k]) for k, v in task.discriminator.state_dict().items())
    critic = task.discriminator.double()
    x = images.double()

    def total(moved: torch.Tensor) -> float:
        return float(critic(moved, labels).sum().detach())

    direction = torch.randn(x.shape, generator=_rng(5), dtype=torch.float64)
    moving = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(moving, labels).sum(), moving)
    slope = (total(x + 1e-6 * direction) - total(x - 1e-6 * direction)) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)
    assert penalty == pytest.approx(float(gradient.square().sum()) / 8, rel=1e-3)


def test_the_penalty_flattens_the_discriminator():
    task, (images, labels) = _task(r1=10.0), _batch()
    penalties = [task._gradient_penalty_step(images, labels, probability=0.0, rng=_rng(i)) for i in range(20)]
    assert penalties[-1] < 0.5 * penalties[0]


def test_losses_are_the_logistic_ones_before_anything_is_learnt():
    task, (images, labels) = _task(), _batch()
    rng, twin = _rng(9), _rng(9)
    z, fake_labels, noise = task._draw(8, twin)
    fake = task.generator(z, fake_labels, noise).detach()
    real_score = task.discriminator(images, labels).detach()
    fake_score = task.discriminator(fake, fake_labels).detach()
    expected = F.binary_cross_entropy_with_logits(
        real_score, torch.ones(8)
    ) + F.binary_cross_entropy_with_logits(fake_score, torch.zeros(8))
    logged = task._discriminator_step(images, labels, probability=0.0, rng=rng)
    assert logged["d_loss"] == pytest.approx(float(expected), rel=1e-4)
    assert logged["real"] == pytest.approx(float(real_score.mean()), rel=1e-3, abs=1e-5)


def test_a_generator_step_moves_the_generator_alone_and_towards_the_critic():
    task = _task(rate=1e-3)
    critic = {k: v.clone() for k, v in task.discriminator.state_dict().items()}
    losses = [task._generator_step(32, probability=0.0, rng=_rng(4)) for _ in range(15)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(v, critic[k]) for k, v in task.discriminator.state_dict().items())
    assert all(p.requires_grad for p in task.discriminator.parameters())


@pytest.mark.parametrize("classes", [10, 0])
def test_finish_measures_the_centre_of_w_of_each_class(classes):
    config = StyleGANConfig(
        latent_dim=8, style_dim=8, mapping_layers=2, num_classes=classes, channels=CONFIG.channels
    )
    task = _task(config=config)
    task.step(*_batch(), step=0, rng=_rng())
    task.finish([])
    mapping = task.average.network.mapping
    assert mapping.centre.shape == (max(classes, 1), 8)
    label = 3 if classes else 0
    z = torch.randn(20_000, 8, generator=_rng(7))
    w = mapping(z, torch.full((20_000,), label)).detach()
    # Means of 20,000 and 4,096 draws; five standard errors.
    bound = 5.0 * w.std(dim=0) * (1 / 20_000 + 1 / 4096) ** 0.5
    assert bool(((w.mean(dim=0) - mapping.centre[label]).abs() < bound).all())
    assert task.preview(_rng()).shape == (64, 3, 32, 32)


def test_rates_fall_with_the_images_seen_to_a_tenth():
    task, rates = _task(decay_images=800.0), {}
    for step in (0, 25, 40, 70, 95, 500):
        task.step(*_batch(), step=step, rng=_rng())
        rates[step] = task.optimizers["generator"].param_groups[0]["lr"] / 2.5e-3
    assert rates == pytest.approx({0: 1.0, 25: 1.0, 40: 0.8, 70: 0.4, 95: 0.1, 500: 0.1})
