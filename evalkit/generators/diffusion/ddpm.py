"""The process that the configuration of a :class:`DenoisingUNet` names, and sampling while it trains."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.diffusion.denoiser import NetworkDenoiser
from evalkit.generators.diffusion.process import DiscreteProcess, Prediction, discrete_process
from evalkit.generators.diffusion.samplers import ddim
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet

_SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled-linear"}
_PREDICTIONS = {"v_prediction": "v", "epsilon": "epsilon", "sample": "sample"}


def process_of(config: DDPMConfig) -> DiscreteProcess:
    """Return the process that ``config`` describes by diffusers' names.

    Few steps are taken from the noisy end (``trailing``); x0 is clipped, and the noise kept as predicted, as
    diffusers' schedulers do.

    Raises:
        CheckpointError: the configuration names a schedule or prediction that there is not.
    """
    if config.schedule not in _SCHEDULES or config.prediction not in _PREDICTIONS:
        raise CheckpointError(
            f"no diffusion with schedule {config.schedule!r} and prediction {config.prediction!r}",
            hint=f"schedules: {', '.join(_SCHEDULES)}; predictions: {', '.join(_PREDICTIONS)}",
        )
    return discrete_process(
        _SCHEDULES[config.schedule],
        config.train_timesteps,
        prediction=cast("Prediction", _PREDICTIONS[config.prediction]),
        rederive_noise=False,
        spacing="trailing",
    )


@torch.no_grad()
def ddim_sample(network: DenoisingUNet, noise: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Return images ``[n, 3, h, w]`` in [-1, 1] by deterministic DDIM without guidance."""
    process = process_of(network.config)
    denoiser = NetworkDenoiser(network, process, labels=labels)
    return ddim(denoiser, noise, process.levels(steps)).clamp(-1.0, 1.0)
