"""Guidance on Gaussians: towards a class without and with a classifier, and towards a reference."""

from __future__ import annotations

import math

import pytest
import torch

from evalkit.errors import UsageError
from evalkit.generators.diffusion.denoiser import CountingNetwork, NetworkDenoiser
from evalkit.generators.diffusion.guidance import (
    class_gradient,
    classifier_free,
    classifier_guided,
    low_pass,
    reference_guidance,
)
from evalkit.generators.diffusion.karras import KarrasProcess
from evalkit.generators.diffusion.process import CLEAN, Level, discrete_process
from evalkit.generators.diffusion.samplers import ancestral, ddim, dpm_solver, posteriors
from tests.generators.diffusion.gaussian import Gaussian, example, start

DEVIATION = 0.4
MEANS = torch.tensor([-0.5, 0.6], dtype=torch.float64)
"""Two classes, equally likely: N(mean of the class, DEVIATION²) in every component of the image."""

PROCESS = discrete_process("linear", 1000, prediction="epsilon", clip=False)
LABELS = torch.tensor([0, 1, 1, 0])


def _level(t: torch.Tensor) -> Level:
    return PROCESS.level(int(t[0]))


def _logits(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact log p(x_t | class) up to what both share; components are independent in a class."""
    level = _level(t)
    variance = level.alpha**2 * DEVIATION**2 + level.sigma**2
    distance = x.flatten(1).unsqueeze(2) - level.alpha * MEANS.to(x.dtype)
    return -(distance**2).sum(dim=1) / (2 * variance)


def _noise_of_class(x, level, means):
    return Gaussian(means, torch.tensor(DEVIATION, dtype=x.dtype))(x, level).noise


def _network(x, t, labels):
    """The exact noise: of the labelled class, or with label 2 of the mixture of both."""
    level = _level(t)
    each = [_noise_of_class(x, level, mean.to(x.dtype)) for mean in MEANS]
    if int(labels[0]) == 2:
        share = torch.softmax(_logits(x, t), dim=1)
        return sum(share[:, c].view(-1, 1, 1, 1) * each[c] for c in (0, 1))
    return torch.where(labels.view(-1, 1, 1, 1) == 0, each[0], each[1])


def _denoiser(guidance: float, labels=LABELS) -> NetworkDenoiser:
    null = torch.full_like(LABELS, 2)
    return NetworkDenoiser(_network, PROCESS, labels=labels, null_labels=null, guidance=guidance)


MIXTURE = _denoiser(0.0)
LEVELS = PROCESS.levels(100)


def test_scale_one_is_the_conditional_network_and_follows_its_flow():
    x = start()
    expected = Gaussian(MEANS[LABELS].view(-1, 1, 1, 1), torch.tensor(DEVIATION).double()).flow(x, LEVELS[0])
    images = dpm_solver(_denoiser(1.0), x, LEVELS)
    assert float((images - expected).abs().max()) < 0.02


def test_guidance_between_equal_gaussians_moves_the_mean_and_nothing_else():
    """Of N(m0, s²) without and N(m1, s²) with the label, scale g follows N(m0 + g (m1 - m0), s²)."""

    def network(x, t, labels):
        return _noise_of_class(x, _level(t), MEANS[int(labels[0])])

    scale, one, zero = 1.8, torch.tensor([1] * 4), torch.tensor([0] * 4)
    guided = NetworkDenoiser(network, PROCESS, labels=one, null_labels=zero, guidance=scale)
    moved = Gaussian(MEANS[0] + scale * (MEANS[1] - MEANS[0]), torch.tensor(DEVIATION).double())
    for level in (LEVELS[3], LEVELS[60]):
        x = start() * 1.3
        torch.testing.assert_close(guided(x, level).clean, moved(x, level).clean)
    torch.testing.assert_close(ddim(guided, start(), LEVELS), ddim(moved, start(), LEVELS))


def test_an_exact_classifier_turns_the_mixture_into_the_class():
    """grad log p(x) + grad log p(y | x) = grad log p(x | y), at every level."""
    gradient = class_gradient(_logits, LABELS, scale=1.0)
    guided = classifier_guided(MIXTURE, gradient)
    for level in (LEVELS[3], LEVELS[50], LEVELS[95]):
        x = start() * 1.1
        expected = _denoiser(1.0)(x, level)
        torch.testing.assert_close(guided(x, level).noise, expected.noise)
        torch.testing.assert_close(guided(x, level).clean, expected.clean)
    x = start()
    torch.testing.assert_close(ddim(guided, x, LEVELS), ddim(_denoiser(1.0), x, LEVELS))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_both_guidances_agree_where_both_are_exact(scale):
    guided = classifier_guided(MIXTURE, class_gradient(_logits, LABELS, scale=scale))
    x = start()
    torch.testing.assert_close(dpm_solver(guided, x, LEVELS), dpm_solver(_denoiser(scale), x, LEVELS))


def test_the_gradient_is_the_closed_form_of_each_image_alone():
    level, x = PROCESS.level(400), start()
    gradient = class_gradient(_logits, LABELS, scale=2.0)(x, level)
    share = torch.softmax(_logits(x, torch.full((4,), 400.0)), dim=1)
    variance = level.alpha**2 * DEVIATION**2 + level.sigma**2
    mean = MEANS[LABELS] - share @ MEANS
    expected = (2.0 * level.alpha / variance) * mean.view(-1, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(gradient, expected)
    alone = class_gradient(_logits, LABELS[1:2], scale=2.0)(x[1:2], level)
    torch.testing.assert_close(alone, gradient[1:2])


def test_gradients_are_found_in_inference_mode():
    with torch.inference_mode():
        x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
        gradient = class_gradient(_logits, LABELS.clone(), scale=1.0)(x, PROCESS.level(10))
    assert gradient.abs().max() > 0
    assert not gradient.requires_grad


def test_ancestral_sampling_shifts_its_mean_by_variance_times_gradient():
    """Dhariwal & Nichol 2021, alg. 1, one step written out."""
    now, then = PROCESS.level(500), PROCESS.level(400)
    x, z = start(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    gradient = class_gradient(_logits, LABELS, scale=4.0)
    out: list[torch.Tensor] = []

    def keep(mean, level, step):
        out.append(mean)
        return mean

    levels = (now, then, CLEAN)
    ancestral(MIXTURE, x, levels, variance="fixed-large", noise=lambda _: z, gradient=gradient, correct=keep)
    step = posteriors(levels)[0]
    bar, before = now.alpha**2, then.alpha**2
    assert step.large == pytest.approx(1 - bar / before)
    mean = step.clean * MIXTURE(x, now).clean + step.noisy * x
    expected = mean + step.large * gradient(x, now) + math.sqrt(step.large) * z
    torch.testing.assert_close(out[0], expected)


def test_evaluations_of_guidance():
    for guidance, calls in ((1.0, 1), (0.0, 1), (2.0, 2)):
        network = CountingNetwork(_network)
        null = torch.full_like(LABELS, 2)
        denoiser = NetworkDenoiser(network, PROCESS, labels=LABELS, null_labels=null, guidance=guidance)
        denoiser(start(), PROCESS.level(3))
        assert network.evaluations == calls
    with pytest.raises(ValueError, match="needs null labels"):
        NetworkDenoiser(_network, PROCESS, labels=LABELS, guidance=2.0)


def test_a_learned_variance_is_not_guided():
    conditional, other = torch.randn(2, 6, 2, 2), torch.randn(2, 6, 2, 2)
    guided = classifier_free(conditional, other, 3.0, channels=3)
    torch.testing.assert_close(guided[:, :3], other[:, :3] + 3 * (conditional - other)[:, :3])
    assert torch.equal(guided[:, 3:], conditional[:, 3:])


def _images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_the_low_pass_is_linear_keeps_constants_and_takes_detail_away():
    images, others = _images(), _images().flip(0)
    torch.testing.assert_close(
        low_pass(images + 2 * others, 4), low_pass(images, 4) + 2 * low_pass(others, 4)
    )
    flat = torch.full((1, 3, 16, 16), 0.3, dtype=torch.float64)
    torch.testing.assert_close(low_pass(flat, 8), flat)
    checks = torch.ones(1, 3, 16, 16).double()
    checks[..., ::2, 1::2] = checks[..., 1::2, ::2] = -1
    assert float(low_pass(checks, 4).abs().mean()) < 0.05
    torch.testing.assert_close(low_pass(images, 1), images)


def test_reference_guidance_is_the_update_of_ilvr():
    references, x, z = _images(), torch.randn(2, 3, 16, 16).double(), torch.randn(2, 3, 16, 16).double()
    correct = reference_guidance(references, factor=4, noise=lambda _: z)
    level = PROCESS.level(300)
    noised = level.alpha * references + level.sigma * z
    expected = low_pass(noised, 4) + (x - low_pass(x, 4))
    torch.testing.assert_close(correct(x, level, 0), expected)
    late = reference_guidance(references, factor=4, noise=lambda _: z, down_to=400.0)
    assert late(x, level, 0) is x


@pytest.mark.parametrize("factor", [1, 4])
def test_samples_share_the_low_frequencies_of_their_reference(factor):
    references, data = _images(), example()
    gaussian = Gaussian(data.mean.mean(), data.deviation.mean())
    noise = [torch.randn(2, 3, 16, 16, dtype=torch.float64) for _ in range(50)]
    correct = reference_guidance(references, factor=factor, noise=lambda step: noise[-1 - step])
    images = ancestral(
        gaussian,
        torch.randn(2, 3, 16, 16, dtype=torch.float64),
        PROCESS.levels(50),
        variance="fixed-large",
        noise=noise.__getitem__,
        correct=correct,
    )
    if factor == 1:
        torch.testing.assert_close(images, references)
        return
    reached = (low_pass(images, 4) - low_pass(references, 4)).square().mean()
    assert reached < 0.05 * low_pass(references, 4).var()
    assert (images - references).square().mean() > 0.5 * references.var()


def test_a_factor_must_divide_the_size():
    with pytest.raises(UsageError, match="does not divide"):
        reference_guidance(_images(), factor=5, noise=lambda _: _images())


def test_guidance_on_a_karras_process():
    """The score's shift in coordinates with alpha = 1: D + sigma² gradient."""
    process = KarrasProcess()
    level, x = process.nearest(3.0), start()

    def denoiser(at, where):
        return example()(at, where)

    guided = classifier_guided(denoiser, lambda at, where: torch.ones_like(at))
    torch.testing.assert_close(guided(x, level).clean, example()(x, level).clean + 9.0)
