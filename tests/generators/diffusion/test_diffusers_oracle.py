"""Every sampler that diffusers has, against diffusers' scheduler on the same network and noise."""

from __future__ import annotations

import diffusers
import diffusers.schedulers.scheduling_ddim as diffusers_ddim
import diffusers.schedulers.scheduling_ddpm as diffusers_ddpm
import numpy as np
import pytest
import torch

from evalkit.counter_noise import normal_at
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.diffusion.denoiser import NetworkDenoiser
from evalkit.generators.diffusion.heun import heun
from evalkit.generators.diffusion.karras import KarrasProcess
from evalkit.generators.diffusion.process import discrete_process
from evalkit.generators.diffusion.samplers import ancestral, ddim, dpm_solver
from evalkit.seeding import image_seeds, normal_per_image

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "scaled-linear": "scaled_linear"}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
SHAPE = (3, 3, 6, 6)
TOLERANCE = 5e-5  # measured: 1.2e-5, of tables in float32 there and in float64 here


def _network(channels: int = 3):
    """A small smooth network that uses pixels' neighbours and the time."""
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, channels, 3, padding=1)

    @torch.no_grad()
    def network(x, t, labels=None):
        return second(torch.tanh(first(x) + torch.cos(t / 300.0).view(-1, 1, 1, 1)))

    return network


def _start() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def _draw(step: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step))


def _walk(scheduler, network, steps: int, scale: float = 1.0, **extra) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = _start() * scale
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = network(scaled, torch.full((len(x),), float(t)))
        x = scheduler.step(output, t, x, return_dict=False, **extra)[0]
    return x


def _furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0))


CASES = [(s, p, clip) for s in ("linear", "cosine") for p in PREDICTIONS for clip in (True, False)]


def _ours(schedule: str, prediction: str, *, clip: bool, **process):
    return discrete_process(schedule, 1000, prediction=prediction, clip=clip, **process)


def _theirs(kind, schedule: str, prediction: str, **extra):
    first, last = (0.00085, 0.012) if schedule == "scaled-linear" else (1e-4, 0.02)
    return kind(
        num_train_timesteps=1000,
        beta_schedule=SCHEDULES[schedule],
        prediction_type=PREDICTIONS[prediction],
        beta_start=first,
        beta_end=last,
        **extra,
    )


@pytest.mark.parametrize(("schedule", "prediction", "clip"), CASES)
@pytest.mark.parametrize(("eta", "rederive"), [(0.0, True), (0.0, False), (0.7, False)])
def test_ddim(monkeypatch, schedule, prediction, clip, eta, rederive):
    draws = iter(range(100))
    monkeypatch.setattr(diffusers_ddim, "randn_tensor", lambda *_, **__: _draw(next(draws)))
    scheduler = _theirs(
        diffusers.DDIMScheduler, schedule, prediction, clip_sample=clip, timestep_spacing="trailing"
    )
    expected = _walk(scheduler, _network(), 10, eta=eta, use_clipped_model_output=rederive)
    process = _ours(schedule, prediction, clip=clip, rederive_noise=rederive, spacing="trailing")
    images = ddim(NetworkDenoiser(_network(), process), _start(), process.levels(10), eta=eta, noise=_draw)
    assert _furthest(images, expected) < TOLERANCE


@pytest.mark.parametrize(("schedule", "prediction", "clip"), CASES)
def test_dpm_solver(schedule, prediction, clip):
    scheduler = _theirs(
        diffusers.DPMSolverMultistepScheduler,
        schedule,
        prediction,
        algorithm_type="dpmsolver++",
        solver_order=2,
        thresholding=clip,  # dynamic thresholding capped at 1 is clipping
        sample_max_value=1.0,
        timestep_spacing="trailing",
    )
    expected = _walk(scheduler, _network(), 17)
    process = _ours(schedule, prediction, clip=clip, spacing="trailing")
    images = dpm_solver(NetworkDenoiser(_network(), process), _start(), process.levels(17))
    assert _furthest(images, expected) < TOLERANCE


@pytest.mark.parametrize(("schedule", "prediction", "clip"), CASES)
@pytest.mark.parametrize("variance", ["fixed-small", "fixed-large", "learned-range"])
def test_ancestral(monkeypatch, schedule, prediction, clip, variance):
    draws = iter(range(100))
    monkeypatch.setattr(diffusers_ddpm, "randn_tensor", lambda *_, **__: _draw(next(draws)))
    kind = {"learned-range": "learned_range"}.get(variance, variance.replace("-", "_"))
    scheduler = _theirs(
        diffusers.DDPMScheduler,
        schedule,
        prediction,
        clip_sample=clip,
        variance_type=kind,
        timestep_spacing="leading",  # ends at step 0, where diffusers adds no noise
    )
    network = _network(6 if variance == "learned-range" else 3)
    expected = _walk(scheduler, network, 20)
    process = _ours(schedule, prediction, clip=clip, variance=variance, spacing="leading")
    images = ancestral(
        NetworkDenoiser(network, process), _start(), process.levels(20), variance=variance, noise=_draw
    )
    assert _furthest(images, expected) < TOLERANCE


@pytest.mark.parametrize("schedule", ["linear", "scaled-linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])  # diffusers' Heun takes no x0
def test_heun(schedule, prediction):
    scheduler = _theirs(diffusers.HeunDiscreteScheduler, schedule, prediction, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    process = _ours(schedule, prediction, clip=False, spacing="trailing")
    levels = process.levels(10)
    # diffusers starts from noise of deviation sigma / alpha, in x / alpha: ours is alpha times that.
    expected = _walk(scheduler, _network(), 10, scale=float(scheduler.init_noise_sigma))
    images = heun(NetworkDenoiser(_network(), process), _start() * levels[0].sigma, levels)
    assert _furthest(images, expected) < TOLERANCE


EDM = [
    (diffusers.EDMEulerScheduler, ddim, {}),
    (diffusers.EDMDPMSolverMultistepScheduler, dpm_solver, {"solver_order": 2}),
]


@pytest.mark.parametrize(("kind", "sampler", "extra"), EDM)
def test_samplers_of_a_karras_process(kind, sampler, extra):
    scheduler = kind(
        sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0, prediction_type="epsilon", **extra
    )
    network = _network()
    expected = _walk(scheduler, network, 12, scale=80.0)

    def denoised(x, t, labels):
        """Apply EDM's preconditioning (Karras et al. 2022, table 1) to the same network."""
        sigma = t.view(-1, 1, 1, 1)
        total = (sigma**2 + 0.25).sqrt()
        inner = network(x / total, 0.25 * t.log())
        return 0.25 / total**2 * x + sigma * 0.5 / total * inner

    process = KarrasProcess()
    levels = process.levels(12)
    images = sampler(NetworkDenoiser(denoised, process), _start() * process.start(levels[0]), levels)
    assert _furthest(images, expected) < TOLERANCE


BUNDLED = [
    ("dpm-solver++", 6, diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    ("ddim", 5, diffusers.DDIMScheduler, {"clip_sample": True}),
    ("ancestral", 5, diffusers.DDPMScheduler, {"clip_sample": True, "variance_type": "fixed_small"}),
]


@pytest.mark.parametrize(("sampler", "steps", "kind", "extra"), BUNDLED)
def test_the_bundled_model_paints_what_diffusers_paints(monkeypatch, sampler, steps, kind, extra):
    seeds, labels = image_seeds(0, np.arange(1)), torch.tensor([3])
    generator = load_generator("ddpm", options=SamplingOptions(sampler=sampler, steps=steps, guidance=1.5))
    if sampler == "dpm-solver++":
        extra = {**extra, "thresholding": True, "sample_max_value": 1.0}
    draws = iter(range(100))
    monkeypatch.setattr(
        diffusers_ddpm,
        "randn_tensor",
        lambda *_, **__: normal_at(seeds, next(draws), (3, 32, 32), device="cpu"),
    )
    scheduler = _theirs(kind, "cosine", "v", timestep_spacing="trailing", **extra)
    scheduler.set_timesteps(steps)
    x = normal_per_image(seeds, (3, 32, 32), device=torch.device("cpu"))
    with torch.no_grad():
        for t in scheduler.timesteps:
            at = t.expand(1)
            output, null = (generator.network(x, at, to) for to in (labels, torch.full((1,), 10)))
            x = scheduler.step(null + 1.5 * (output - null), t, x, return_dict=False)[0]
        images = generator._sample(seeds, labels)
    assert float((images - x.clamp(-1, 1)).abs().max()) < TOLERANCE
