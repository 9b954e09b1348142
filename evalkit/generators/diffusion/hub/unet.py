"""A diffusers folder of one ``UNet2DModel`` as a native model: its network, its scheduler's process.

The network is built by diffusers itself from ``config.json``; the scheduler's file says which process it was
trained for. The scheduler's own way to walk is not taken: evalkit's samplers integrate that process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from evalkit.core import Generator
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.diffusion.generator import DiffusionGenerator
from evalkit.generators.diffusion.process import DiscreteProcess, Prediction, Variance
from evalkit.generators.diffusion.schedules import Spacing
from evalkit.generators.sampling import SamplingOptions

NAME = "diffusers-unet"

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
_VARIANCES: dict[str, Variance] = {
    "fixed_small": "fixed-small",
    "fixed_small_log": "fixed-small",
    "fixed_large": "fixed-large",
    "fixed_large_log": "fixed-large",
    "learned": "learned",
    "learned_range": "learned-range",
}
_SPACINGS: dict[str, Spacing] = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}
_STATED = {
    "num_train_timesteps": "timesteps",
    "beta_schedule": "schedule",
    "beta_start": "beta_start",
    "beta_end": "beta_end",
    "trained_betas": "betas",
    "prediction_type": "prediction",
    "variance_type": "variance",
    "clip_sample": "clip",
    "timestep_spacing": "spacing",
    "rescale_betas_zero_snr": "zero_snr",
}
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class DiffusersUNetConfig:
    """What ``config.json`` and ``scheduler_config.json`` say, in their own words.

    Attributes:
        architecture: ``config.json`` without its remarks, as sorted JSON.
        timesteps: length of the process.
        schedule: name of the schedule of betas.
        beta_start: of the schedules that have one.
        beta_end: likewise.
        prediction: ``epsilon``, ``v_prediction`` or ``sample``.
        variance: of the ancestral sampler.
        clip: whether predicted images are clipped to [-1, 1].
        spacing: how few of the steps are chosen.
        betas: the betas themselves, where the file holds them.
        zero_snr: whether the last step is made pure noise (Lin et al. 2024).
    """

    architecture: str
    timesteps: int
    schedule: str
    beta_start: float
    beta_end: float
    prediction: str
    variance: str = "fixed_small"
    clip: bool = True
    spacing: str = "leading"
    betas: tuple[float, ...] | None = None
    zero_snr: bool = False

    def __post_init__(self) -> None:
        """Refuse what no sampler here does.

        Raises:
            CheckpointError: an unknown word.
        """
        for value, known in (
            (self.prediction, _PREDICTIONS),
            (self.variance, _VARIANCES),
            (self.spacing, _SPACINGS),
        ):
            if value not in known:
                raise CheckpointError(
                    f"unknown {value!r} in the scheduler", hint=f"one of {', '.join(known)}"
                )


class DiffusersUNet(nn.Module):
    """``UNet2DModel`` as samplers call it."""

    def __init__(self, config: DiffusersUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet2DModel.from_config(json.loads(config.architecture))

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where there are none."""
        return int(self.unet.config.num_class_embeds or 0)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the prediction for ``x [n, 3, h, w]`` at steps ``t [n]`` (and ``labels [n]``)."""
        out: Tensor = self.unet(x, t, class_labels=labels, return_dict=False)[0]
        return out


def build(checkpoint: Checkpoint, options: SamplingOptions) -> Generator:
    """Build the generator from a folder that diffusers has saved.

    Raises:
        CheckpointError: the weights do not fit ``config.json``, or the scheduler is of another kind.
    """
    config = configure(DiffusersUNetConfig, checkpoint, described=_described(checkpoint))
    try:
        network = DiffusersUNet(config)
    except Exception as error:  # diffusers raises anything on sizes and block names that do not go together
        raise CheckpointError(
            f"config.json describes no UNet2DModel of diffusers: {type(error).__name__}: {error}",
            hint="it lies beside the weights, as save_pretrained wrote it",
        ) from error
    load_weights(network.unet, _renamed(checkpoint), name=NAME)
    size, channels = network.unet.config.sample_size, network.unet.config.in_channels
    if not isinstance(size, int) or channels != 3:
        raise CheckpointError(f"only square RGB models are served, not {channels} channels at {size}")
    return DiffusionGenerator(
        name=NAME,
        network=network,
        process=process_of(config),
        checkpoint=checkpoint,
        options=options,
        num_classes=network.num_classes,
        resolution=size,
        null_label=False,
    )


def process_of(config: DiffusersUNetConfig) -> DiscreteProcess:
    """Return the process that the scheduler's file describes; its betas are diffusers' own.

    Raises:
        CheckpointError: there is no such schedule, or no network can walk it.
    """
    try:
        scheduler = DDPMScheduler(
            num_train_timesteps=config.timesteps,
            beta_schedule=config.schedule,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            trained_betas=None if config.betas is None else list(config.betas),
            rescale_betas_zero_snr=config.zero_snr,
        )
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the scheduler's betas cannot be made: {error}",
            hint="scheduler_config.json names a schedule of diffusers' DDPMScheduler, or holds trained_betas",
        ) from error
    if config.zero_snr and config.prediction == "epsilon":
        raise CheckpointError(
            "a process that ends in pure noise (rescale_betas_zero_snr) says nothing by its noise (epsilon)",
            hint="Lin et al. 2024 train such models with prediction_type v_prediction",
        )
    return DiscreteProcess(
        betas=tuple(torch.as_tensor(scheduler.betas).double().tolist()),
        prediction=_PREDICTIONS[config.prediction],
        variance=_VARIANCES[config.variance],
        clip=config.clip,
        rederive_noise=False,
        spacing=_SPACINGS[config.spacing],
    )


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    stated = dict(checkpoint.config or {})
    if checkpoint.format == "evalkit":
        return stated
    scheduler = stated.pop("scheduler", None)
    architecture = {key: value for key, value in stated.items() if not key.startswith("_")}
    described: dict[str, Any] = {}
    if architecture:
        described["architecture"] = json.dumps(architecture, sort_keys=True)
    return described | (_process_fields(scheduler) if isinstance(scheduler, Mapping) else {})


def _process_fields(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    if scheduler.get("thresholding") or scheduler.get("clip_sample_range", 1.0) != 1.0:
        raise CheckpointError("dynamic thresholding and clipping to other ranges are not served")
    if scheduler.get("steps_offset"):
        raise CheckpointError(
            "a scheduler with steps_offset is not served",
            hint="--model diffusers runs the pipeline with its own scheduler",
        )
    if scheduler.get("use_karras_sigmas") or "sigma_max" in scheduler:
        raise CheckpointError(
            "the scheduler is not one of a discrete process",
            hint="--model diffusers runs the pipeline with its own scheduler",
        )
    fields = {field: scheduler[name] for name, field in _STATED.items() if name in scheduler}
    return {name: value for name, value in fields.items() if value is not None}


def _renamed(checkpoint: Checkpoint) -> Checkpoint:
    """Return it with the attention's names of today: diffusers before 0.17 called them otherwise."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        new = name
        if ".attentions." in name:
            for old, current in _OLD_NAMES.items():
                new = new.replace(old, current)
        tensors[new] = tensor
    return Checkpoint(tensors=tensors, sha256=checkpoint.sha256, format=checkpoint.format)
