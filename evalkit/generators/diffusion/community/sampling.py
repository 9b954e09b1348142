"""Building models of pytorch-ddpm and of the DDIM repository as generators.

Clipping follows the repositories: pytorch-ddpm clips the finished image only; the DDIM repository clips the
predicted image in its ancestral sampler and not in DDIM. Samplers that they do not have do not clip.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TypeVar

import numpy as np

from evalkit.core import Float64Array
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.diffusion.community.pesser import DDIMConfig, DDIMUNet
from evalkit.generators.diffusion.community.pytorch_ddpm import PytorchDDPMConfig, PytorchDDPMUNet
from evalkit.generators.diffusion.community.reading import read_ddim, read_pytorch_ddpm
from evalkit.generators.diffusion.generator import DiffusionGenerator, SamplerSettings
from evalkit.generators.diffusion.process import DiscreteProcess, Prediction, Variance
from evalkit.generators.diffusion.schedules import Spacing
from evalkit.generators.sampling import SamplingOptions

_VARIANCES: dict[str, Variance] = {"fixedlarge": "fixed-large", "fixedsmall": "fixed-small"}
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "xstart": "sample"}
_SPACINGS = MappingProxyType[str, Spacing]({"dpm-solver++": "linspace"})  # it wants the noisiest step
ValueT = TypeVar("ValueT")


def build_pytorch_ddpm(checkpoint: Checkpoint, options: SamplingOptions) -> DiffusionGenerator:
    """Build a model of w86763777/pytorch-ddpm."""
    inferred = read_pytorch_ddpm(checkpoint.tensors)
    config = configure(PytorchDDPMConfig, checkpoint, inferred=inferred, described=_header(checkpoint))
    network = PytorchDDPMUNet(config)
    load_weights(network, checkpoint, name="pytorch-ddpm")
    process = DiscreteProcess(
        betas=np.linspace(config.beta_1, config.beta_T, config.T).tolist(),
        prediction=_one_of(_PREDICTIONS, config.mean_type, "mean_type"),
        variance=_one_of(_VARIANCES, config.var_type, "var_type"),
        clip=False,
        spacing="leading",
    )
    return _generator("pytorch-ddpm", network, process, checkpoint, options)


def build_ddim(checkpoint: Checkpoint, options: SamplingOptions) -> DiffusionGenerator:
    """Build a model of pesser/pytorch_diffusion or ermongroup/ddim."""
    inferred = read_ddim(checkpoint.tensors)
    config = configure(DDIMConfig, checkpoint, inferred=inferred, described=_header(checkpoint))
    network = DDIMUNet(config)
    load_weights(network, checkpoint, name="ddim-pesser")
    process = DiscreteProcess(
        betas=_betas(config).tolist(),
        prediction="epsilon",
        variance=_one_of(_VARIANCES, config.var_type, "var_type"),
        clip=options.sampler == "ancestral",
        spacing="leading",
    )
    return _generator("ddim-pesser", network, process, checkpoint, options)


def _header(checkpoint: Checkpoint) -> dict[str, object]:
    return dict(checkpoint.config or {}) if checkpoint.format == "evalkit" else {}


def _betas(config: DDIMConfig) -> Float64Array:
    start, end, steps = config.beta_start, config.beta_end, config.num_diffusion_timesteps
    if config.beta_schedule == "linear":
        return np.linspace(start, end, steps)
    if config.beta_schedule == "quad":
        return np.linspace(np.sqrt(start), np.sqrt(end), steps) ** 2
    raise CheckpointError(
        f"beta_schedule must be one of linear, quad, not {config.beta_schedule!r}",
        hint="correct the preset or the sidecar JSON",
    )


def _one_of(known: dict[str, ValueT], value: str, field: str) -> ValueT:
    if value not in known:
        raise CheckpointError(
            f"{field} must be one of {', '.join(known)}, not {value!r}",
            hint="correct the preset or the sidecar JSON",
        )
    return known[value]


def _generator(
    name: str,
    network: PytorchDDPMUNet | DDIMUNet,
    process: DiscreteProcess,
    checkpoint: Checkpoint,
    options: SamplingOptions,
) -> DiffusionGenerator:
    config = network.config
    return DiffusionGenerator(
        name=name,
        network=network,
        process=process,
        checkpoint=checkpoint,
        options=options,
        num_classes=0,
        resolution=config.img_size if isinstance(config, PytorchDDPMConfig) else config.image_size,
        null_label=False,
        settings=SamplerSettings(spacings=_SPACINGS),
    )
