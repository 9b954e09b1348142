"""A checkpoint of denoising-diffusion-pytorch as a generator: sizes, schedule and objective from its tensors.

The file holds ``betas``, which are the schedule, and the weight of the loss at each step, which differs
between the objectives. With s = alpha_bar / (1 - alpha_bar), and c = s or, with min-SNR weighting (Hang et
al. 2023), min(s, gamma), it is c / s for the noise, c for the image, and c / (s + 1) for v.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from evalkit.core import Float64Array, Generator
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.diffusion.generator import DiffusionGenerator
from evalkit.generators.diffusion.lucidrains.network import LucidrainsConfig, LucidrainsDiffusion
from evalkit.generators.diffusion.process import DiscreteProcess, Prediction
from evalkit.generators.sampling import SamplingOptions

NAME = "lucidrains"
_TOLERANCE = 2e-3


def build(checkpoint: Checkpoint, options: SamplingOptions) -> Generator:
    """Build the generator from a checkpoint.

    Raises:
        CheckpointError: the tensors are of another network, or the configuration is not complete.
    """
    described = checkpoint.config or {}
    config = configure(
        LucidrainsConfig, checkpoint, inferred=_inferred(checkpoint.tensors), described=described
    )
    network = LucidrainsDiffusion(config)
    load_weights(network, checkpoint, name=NAME)
    return DiffusionGenerator(
        name=NAME,
        network=network,
        process=process_of(checkpoint.tensors, config),
        checkpoint=checkpoint,
        options=options,
        num_classes=0,
        resolution=config.resolution,
        null_label=False,
    )


def process_of(tensors: Mapping[str, Tensor], config: LucidrainsConfig) -> DiscreteProcess:
    """Return the process of the file's betas; clipped, the noise derived anew, as the package samples.

    Raises:
        CheckpointError: the betas are no schedule.
    """
    betas = tensors["betas"].double().numpy()
    if not ((betas > 0) & (betas < 1)).all():
        raise CheckpointError("the buffer 'betas' is no noise schedule: its values must lie in (0, 1)")
    return DiscreteProcess(
        betas=tuple(betas.tolist()),
        prediction=config.objective,
        variance="learned-range" if config.out_channels > 3 else "fixed-small",
        spacing="trailing-floor",
    )


def objective_of(betas: Float64Array, loss_weight: Float64Array) -> Prediction | None:
    """Return the objective whose loss has these weights, or None where it is none of the three.

    Args:
        betas: float64 ``[T]``.
        loss_weight: float64 ``[T]``.
    """
    kept = np.cumprod(1 - betas)
    if not (np.isfinite(kept).all() and (kept < 1).all() and (kept > 0).all()):
        return None
    ratio = kept / (1 - kept)
    clipped: dict[Prediction, Float64Array] = {
        "epsilon": loss_weight * ratio,
        "sample": loss_weight,
        "v": loss_weight * (ratio + 1),
    }
    fitting: list[Prediction] = []
    for name, found in clipped.items():
        expected = np.minimum(ratio, found.max())
        if (np.abs(found - expected) <= _TOLERANCE * expected).all():
            fitting.append(name)
    return fitting[0] if len(fitting) == 1 else None


def _inferred(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    _refuse_others(tensors)
    try:
        return _shown(tensors)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the network of {NAME!r}: {type(error).__name__} {error}"
        ) from error


def _shown(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = 1 + max(int(found[1]) for key in tensors if (found := re.match(r"model\.downs\.(\d+)\.", key)))
    attentions = [f"model.downs.{stage}.2" for stage in range(stages)]
    full = [f"{place}.to_out.weight" in tensors for place in attentions]
    memory = [tensors[f"{place}.mem_kv"].shape for place in (*attentions, "model.mid_attn")]
    # Shapes: [2, heads, width, memories] where attention is linear, [2, heads, memories, width] where full.
    last_axes = [(3, 2) if is_full else (2, 3) for is_full in (*full, True)]
    ends = [f"model.downs.{stage}.3.1.weight" for stage in range(stages - 1)]
    ends.append(f"model.downs.{stages - 1}.3.weight")
    inferred: dict[str, Any] = {
        "timesteps": len(tensors["betas"]),
        "embedding": tensors["model.time_mlp.1.weight"].shape[1],
        "time_width": tensors["model.time_mlp.1.weight"].shape[0],
        "channels": (tensors["model.init_conv.weight"].shape[0], *(tensors[end].shape[0] for end in ends)),
        "attention": tuple("full" if is_full else "linear" for is_full in full),
        "heads": tuple(shape[1] for shape in memory),
        "head_widths": tuple(shape[axes[0]] for shape, axes in zip(memory, last_axes, strict=True)),
        "memories": memory[-1][2],
        "out_channels": tensors["model.final_conv.weight"].shape[0],
    }
    objective = objective_of(tensors["betas"].double().numpy(), tensors["loss_weight"].double().numpy())
    return inferred if objective is None else {**inferred, "objective": objective}


def _refuse_others(tensors: Mapping[str, Tensor]) -> None:
    needed = (
        "betas",
        "loss_weight",
        "model.init_conv.weight",
        "model.mid_attn.mem_kv",
        "model.final_conv.weight",
    )
    absent = [name for name in needed if name not in tensors]
    if absent:
        raise CheckpointError(
            f"the checkpoint does not fit the network of {NAME!r}: missing {', '.join(absent)}",
            hint="files of denoising-diffusion-pytorch before 2.0 have other layers",
        )
    if "model.time_mlp.0.weights" in tensors:
        raise CheckpointError("random or learned Fourier time embeddings are not served")
    seen, made = tensors["model.init_conv.weight"].shape[1], tensors["model.final_conv.weight"].shape[0]
    if seen == 6:
        raise CheckpointError(
            "the network is self-conditioned (its first convolution has 6 input channels): not served",
            hint="train with self_condition=False, or score a folder of its samples",
        )
    if seen != 3 or made not in {3, 6}:
        raise CheckpointError(f"the network maps {seen} to {made} channels; only RGB images are served")
