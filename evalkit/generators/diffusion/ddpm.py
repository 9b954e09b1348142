"""Sampling a :class:`DenoisingUNet`: ancestral, DDIM and DPM-Solver++ through diffusers' schedulers.

All three integrate the same trained process: ``ancestral`` is Ho et al. 2020, alg. 2; ``ddim`` is Song et al.
2021, eq. 12 with eta; ``dpm-solver++`` is the second-order multistep form of Lu et al. 2022, alg. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from evalkit.errors import UsageError
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.registry import did_you_mean

SAMPLERS = ("ddim", "dpm-solver++", "ancestral")


def build_scheduler(config: DDPMConfig, sampler: str) -> Any:  # noqa: ANN401 - diffusers' schedulers share no base
    """Return diffusers' scheduler for ``sampler``; predictions of the clean image are clipped to [-1, 1].

    Raises:
        UsageError: ``sampler`` is not one of :data:`SAMPLERS`.
    """
    shared = {
        "num_train_timesteps": config.train_timesteps,
        "beta_schedule": config.schedule,
        "prediction_type": config.prediction,
        "timestep_spacing": "trailing",
    }
    if sampler == "ancestral":
        return DDPMScheduler(**shared, variance_type="fixed_small", clip_sample=True)
    if sampler == "ddim":
        return DDIMScheduler(**shared, clip_sample=True, set_alpha_to_one=True)
    if sampler == "dpm-solver++":
        # Dynamic thresholding capped at 1 is plain clipping of the predicted image to [-1, 1].
        return DPMSolverMultistepScheduler(
            **shared, algorithm_type="dpmsolver++", solver_order=2, thresholding=True, sample_max_value=1.0
        )
    raise UsageError(f"unknown sampler {sampler!r}", hint=did_you_mean(sampler, SAMPLERS))


@torch.no_grad()
def denoise(
    network: DenoisingUNet,
    noise: Tensor,
    labels: Tensor,
    *,
    sampler: str,
    steps: int,
    eta: float = 0.0,
    guidance: float = 1.0,
    generators: Sequence[torch.Generator] | None = None,
) -> tuple[Tensor, int]:
    """Integrate from ``noise`` to images.

    Args:
        network: predicts velocity or noise.
        noise: float32 ``[n, 3, h, w]`` standard normal start.
        labels: int64 ``[n]``.
        sampler: one of :data:`SAMPLERS`.
        steps: number of solver steps.
        eta: DDIM's stochasticity, 0 (deterministic) to 1.
        guidance: classifier-free guidance scale (Ho & Salimans 2022); unless it is 1, a step evaluates twice.
        generators: one CPU generator for each image; needed by stochastic samplers.

    Returns:
        float32 images ``[n, 3, h, w]`` in [-1, 1], and the counted network evaluations for each image.
    """
    scheduler = build_scheduler(network.config, sampler)
    scheduler.set_timesteps(steps, device=noise.device)
    extra: dict[str, Any] = (
        {} if sampler == "dpm-solver++" else {"generator": generators and list(generators)}
    )
    if sampler == "ddim":
        extra["eta"] = eta
    x, evaluations = noise * scheduler.init_noise_sigma, 0
    null = torch.full_like(labels, network.config.num_classes)
    for t in scheduler.timesteps:
        at = t.expand(len(x))
        prediction = network(x, at, labels)
        evaluations += 1
        if guidance != 1.0:
            unconditional = network(x, at, null)
            evaluations += 1
            prediction = unconditional + guidance * (prediction - unconditional)
        x = scheduler.step(prediction, t, x, return_dict=False, **extra)[0]
    return x.clamp(-1.0, 1.0), evaluations


def ddim_sample(network: DenoisingUNet, noise: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Return images ``[n, 3, h, w]`` in [-1, 1] by deterministic DDIM without guidance."""
    return denoise(network, noise, labels, sampler="ddim", steps=steps)[0]
