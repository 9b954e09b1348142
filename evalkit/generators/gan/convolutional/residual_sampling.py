"""The residual generator of SNGAN, cGAN-PD, WGAN-GP and SAGAN as a registered model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.gan.convolutional.plain import PlainGAN, completed
from evalkit.generators.gan.convolutional.residual import ResidualConfig, ResidualGenerator
from evalkit.generators.sampling import SamplingOptions


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build SNGAN, cGAN-PD or WGAN-GP."""
    return _build("sngan", checkpoint, options)


def build_attentive(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build SAGAN."""
    return _build("sagan", checkpoint, options)


def _build(name: str, checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    checkpoint = completed(checkpoint)
    config = configure(
        ResidualConfig,
        checkpoint,
        inferred=infer(checkpoint.tensors),
        described=checkpoint.config or {},
    )
    network = ResidualGenerator(config)
    load_weights(network, checkpoint, name=name)
    return PlainGAN(name=name, network=network, checkpoint=checkpoint, options=options)


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what the shapes show: all but the upsampling, and where attention is.

    Raises:
        CheckpointError: a tensor of the layout is not there, or has an impossible shape.
    """
    spectral = "l1.weight_orig" in tensors
    weight = "weight_orig" if spectral else "weight"
    numbers = sorted(int(m[1]) for name in tensors if (m := re.fullmatch(rf"block(\d+)\.c1\.{weight}", name)))
    try:
        kernels = [tensors[f"block{number}.c1.{weight}"] for number in numbers]
        channels = (kernels[0].shape[1], *(kernel.shape[0] for kernel in kernels))
        rows, latent_dim = tensors[f"l1.{weight}"].shape
        classes = tensors.get("block2.b1.embed.weight")
        found: dict[str, object] = {
            "latent_dim": latent_dim,
            "num_classes": 0 if classes is None else len(classes),
            "channels": channels,
            "bottom_width": math.isqrt(rows // channels[0]),
            "spectral_norm": spectral,
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"this is no residual generator: {error!r}",
            hint="expected tensors are l1.weight, block2.c1.weight, ...",
        ) from error
    if not any(name.startswith("attn_block.") for name in tensors):
        found["attention"] = 0
    return found
