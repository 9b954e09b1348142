"""Samplers on Gaussian data against closed forms: orders of convergence, means and variances."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from evalkit.generators.diffusion.heun import Churn, heun
from evalkit.generators.diffusion.karras import KarrasProcess, karras_ratios
from evalkit.generators.diffusion.process import (
    CLEAN,
    Denoised,
    DiscreteProcess,
    Level,
    Process,
    discrete_process,
)
from evalkit.generators.diffusion.samplers import ancestral, ddim, dpm_solver, posteriors
from tests.generators.diffusion.gaussian import example, start

DETERMINISTIC = {"ddim": (ddim, 1), "dpm-solver++": (dpm_solver, 2), "heun": (heun, 2)}
LINEAR = discrete_process("linear", 4096, prediction="epsilon", clip=False, spacing="trailing")


def _karras(steps: int) -> Process:
    return KarrasProcess(sigma_min=0.002, sigma_max=80.0)


def _discrete(steps: int) -> Process:
    """The same noise with alpha² + sigma² = 1: Karras's steps as a process of as many betas."""
    ratios = [0.0, *reversed(karras_ratios(steps, smallest=0.002, largest=80.0))]
    return DiscreteProcess([1 - (1 + low**2) / (1 + high**2) for low, high in pairwise(ratios)], "epsilon")


def _error(sampler, process: Process, steps: int) -> float:
    data, levels = example(), process.levels(steps)
    x = start() * process.start(levels[0])
    return float((sampler(data, x, levels) - data.flow(x, levels[0])).square().mean().sqrt())


@pytest.mark.parametrize("process", [_karras, _discrete])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_reach_the_flow_with_their_order(name, process):
    sampler, order = DETERMINISTIC[name]
    errors = [_error(sampler, process(steps), steps) for steps in (32, 64, 128, 256)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([order] * 3, abs=0.2)
    assert errors[-1] < (1e-2 if order == 1 else 2e-4)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
def test_equal_strides_in_time_reach_the_flow_too(name):
    """Of Ho's schedule: sigma grows as the root of time, and the last step is of first order at best."""
    sampler, _ = DETERMINISTIC[name]
    errors = [_error(sampler, LINEAR, steps) for steps in (32, 64, 128, 256, 512)]
    assert all(fine < 0.6 * coarse for coarse, fine in pairwise(errors))
    assert errors[-1] < (4e-3 if name == "ddim" else 4e-4)


def test_dpm_solver_of_first_order_is_ddim():
    """With two steps the multistep form has no history that counts: first step and last are DDIM's."""
    levels = LINEAR.levels(2)
    torch.testing.assert_close(dpm_solver(example(), start(), levels), ddim(example(), start(), levels))


def test_ddim_at_eta_one_is_the_ancestral_sampler_of_small_variance():
    levels, data = LINEAR.levels(32), example()
    noise = [torch.randn(4, 3, 2, 2, dtype=torch.float64) for _ in range(32)]
    stochastic = ddim(data, start(), levels, eta=1.0, noise=noise.__getitem__)
    ancestor = ancestral(data, start(), levels, variance="fixed-small", noise=noise.__getitem__)
    torch.testing.assert_close(stochastic, ancestor, rtol=1e-9, atol=1e-9)


def test_stochastic_samplers_without_noise_are_refused():
    levels = LINEAR.levels(4)
    with pytest.raises(ValueError, match="draws noise"):
        ddim(example(), start(), levels, eta=0.5)
    with pytest.raises(ValueError, match="needs the process's levels"):
        heun(example(), start(), levels, churn=Churn(amount=1.0))


def _as_affine(walk, draws: int):
    """Return offset, start's coefficient and the coefficients of every draw of an affine scalar sampler.

    One row of the batch has nothing, one the start alone, and each other one draw alone.
    """
    first = torch.zeros(draws + 2, 1, 1, 1, dtype=torch.float64)
    first[1] = 1.0

    def noise(k: int) -> torch.Tensor:
        alone = torch.zeros_like(first)
        alone[k + 2] = 1.0
        return alone

    out = walk(first, noise).flatten()
    return float(out[0]), float(out[1] - out[0]), (out[2:] - out[0]).numpy()


class _Scalar:
    """The exact denoiser of N(mean, deviation²), with the log of a stated variance as raw channels."""

    def __init__(self, mean: float, deviation: float, raw=None):
        self.mean, self.variance, self.raw = mean, deviation**2, raw

    def __call__(self, x, level):
        total = level.alpha**2 * self.variance + level.sigma**2
        clean = self.mean + level.alpha * self.variance / total * (x - level.alpha * self.mean)
        raw = None if self.raw is None else torch.full_like(x, self.raw(level))
        return Denoised(clean, (x - level.alpha * clean) / level.sigma, raw)


@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large"])
def test_ancestral_mean_and_variance_follow_the_recursion_of_ho(variance):
    """The coefficients of Ho et al. 2020, eqs. 6-7, written with betas, propagated through all steps."""
    mean, deviation, steps = 0.4, 0.3, 50
    process = discrete_process("linear", steps, prediction="epsilon")
    betas = np.asarray(process.betas)
    bars = np.cumprod(1 - betas)
    expected_mean, expected_variance = 0.0, 1.0
    for t in reversed(range(steps)):
        bar, before = bars[t], bars[t - 1] if t else 1.0
        to_clean = math.sqrt(before) * betas[t] / (1 - bar)
        to_noisy = math.sqrt(1 - betas[t]) * (1 - before) / (1 - bar)
        gain = math.sqrt(bar) * deviation**2 / (bar * deviation**2 + 1 - bar)
        slope = to_clean * gain + to_noisy
        offset = to_clean * (mean - gain * math.sqrt(bar) * mean)
        added = {"fixed-small": betas[t] * (1 - before) / (1 - bar), "fixed-large": betas[t]}[variance]
        expected_mean = slope * expected_mean + offset
        expected_variance = slope**2 * expected_variance + (added if t else 0.0)

    def walk(x, noise):
        return ancestral(_Scalar(mean, deviation), x, process.levels(steps), variance=variance, noise=noise)

    offset, from_start, from_draws = _as_affine(walk, steps - 1)
    assert offset == pytest.approx(expected_mean, rel=1e-10)
    assert from_start**2 + (from_draws**2).sum() == pytest.approx(expected_variance, rel=1e-10)


def test_large_variance_is_exact_for_standard_normal_data():
    process = discrete_process("linear", 40, prediction="epsilon")
    levels = process.levels(40)

    def walk(x, noise):
        return ancestral(_Scalar(0.0, 1.0), x, levels, variance="fixed-large", noise=noise)

    offset, from_start, from_draws = _as_affine(walk, 39)
    # The last step adds no noise: what it leaves out is the variance of x0 given x_1, beta_1 here.
    assert offset == 0
    assert from_start**2 + (from_draws**2).sum() == pytest.approx(1 - process.betas[0], rel=1e-12)


@pytest.mark.parametrize("kind", ["learned", "learned-range"])
@pytest.mark.parametrize("steps", [100, 10])
def test_the_exact_learned_variance_gives_the_exact_distribution(kind, steps):
    """Var(x_s | x_t) = small + c² Var(x0 | x_t): a network that says so leaves N(mean, deviation²) exact."""
    mean, deviation = -0.2, 0.5
    levels = discrete_process("cosine", 100, prediction="epsilon").levels(steps)
    table = dict(zip(levels[:-1], posteriors(levels), strict=True))

    def spread(level: Level) -> float:
        total = level.alpha**2 * deviation**2 + level.sigma**2
        return deviation**2 * level.sigma**2 / total

    def raw(level: Level) -> float:
        step = table[level]
        wanted = step.small + step.clean**2 * spread(level)
        if kind == "learned":
            return math.log(wanted)
        low, high = math.log(step.floor), math.log(step.large)
        return 2 * (math.log(wanted) - low) / (high - low) - 1

    def walk(x, noise):
        first = levels[0]  # start from the exact marginal there, not from the standard normal
        scale = math.sqrt(first.alpha**2 * deviation**2 + first.sigma**2)
        return ancestral(
            _Scalar(mean, deviation, raw), first.alpha * mean + scale * x, levels, variance=kind, noise=noise
        )

    offset, from_start, from_draws = _as_affine(walk, steps - 1)
    assert offset == pytest.approx(mean, rel=1e-9)
    left_out = spread(levels[-2])
    assert from_start**2 + (from_draws**2).sum() == pytest.approx(deviation**2 - left_out, rel=1e-9)


def test_a_learned_variance_needs_the_channels():
    levels = LINEAR.levels(4)
    with pytest.raises(ValueError, match="twice the channels"):
        ancestral(example(), start(), levels, variance="learned-range", noise=lambda _: start())


def test_heun_with_churn_agrees_with_algorithm_2_written_out():
    """Karras et al. 2022, alg. 2, in numpy on D of a Gaussian."""
    mean, variance, churn = 0.3, 0.25, Churn(amount=30.0, smallest=0.05, largest=50.0, noise=1.003)
    process, steps = KarrasProcess(), 12
    levels = process.levels(steps)
    draws = np.random.default_rng(0).standard_normal((steps, 5))

    def exact(x, sigma):
        return mean + variance / (variance + sigma**2) * (x - mean)

    times = [
        (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(steps)
    ]
    times.append(0.0)
    x = np.linspace(-2, 2, 5) * times[0]
    for i, (t, then) in enumerate(pairwise(times)):
        gamma = min(churn.amount / steps, math.sqrt(2) - 1) if churn.smallest <= t <= churn.largest else 0.0
        hat = t + gamma * t
        x_hat = x + math.sqrt(hat**2 - t**2) * churn.noise * draws[i]
        d = (x_hat - exact(x_hat, hat)) / hat
        x = x_hat + (then - hat) * d
        if then:
            x = x_hat + (then - hat) * (d / 2 + (x - exact(x, then)) / then / 2)

    begin = torch.linspace(-2, 2, 5, dtype=torch.float64).view(5, 1, 1, 1) * process.start(levels[0])
    out = heun(
        _Scalar(mean, math.sqrt(variance)),
        begin,
        levels,
        churn=churn,
        nearest=process.nearest,
        noise=lambda k: torch.from_numpy(draws[k]).view(5, 1, 1, 1),
    )
    np.testing.assert_allclose(out.flatten().numpy(), x, rtol=1e-10)


@pytest.mark.parametrize(("sampler", "calls"), [(ddim, 6), (dpm_solver, 6), (heun, 11)])
def test_evaluations(sampler, calls):
    seen: list[Level] = []

    def counting(x, level):
        seen.append(level)
        return example()(x, level)

    sampler(counting, start(), LINEAR.levels(6))
    assert len(seen) == calls
    assert CLEAN not in seen


def test_coefficients_do_not_raise_float32_to_float64():
    levels, data = LINEAR.levels(5), example(torch.float32)
    x = start(dtype=torch.float32)
    for sampler, _ in DETERMINISTIC.values():
        assert sampler(data, x, levels).dtype == torch.float32
    drawn = ancestral(data, x, levels, variance="fixed-large", noise=lambda _: x)
    assert drawn.dtype == torch.float32
