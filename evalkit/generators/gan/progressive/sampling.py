"""The progressively grown GAN as a registered model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.gan.convolutional.plain import PlainGAN
from evalkit.generators.gan.progressive.network import ProgressiveConfig, ProgressiveGenerator
from evalkit.generators.sampling import SamplingOptions


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build the generator from a checkpoint."""
    checkpoint = dataclasses.replace(checkpoint, tensors=wrapped(checkpoint.tensors))
    config = configure(
        ProgressiveConfig,
        checkpoint,
        inferred=infer(checkpoint.tensors),
        described=describe(checkpoint.config or {}),
    )
    network = ProgressiveGenerator(config)
    load_weights(network, checkpoint, name="progan")
    return PlainGAN(name="progan", network=network, checkpoint=checkpoint, options=options)


def wrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with ``.module`` before ``weight`` and ``bias``: not every version wrote it."""
    return {
        re.sub(r"(?<!\.module)\.(weight|bias)$", r".module.\1", key): value for key, value in tensors.items()
    }


def describe(stated: Mapping[str, object]) -> dict[str, object]:
    """Return the file's own ``config``, in pytorch_GAN_zoo's words or this project's, in this project's.

    Raises:
        CheckpointError: the generator is conditioned on attributes, which it takes behind the latent.
    """
    if "depthScale0" not in stated:
        return dict(stated)
    if stated.get("categoryVectorDim"):
        raise CheckpointError(
            f"this generator is conditioned on {stated['categoryVectorDim']} attributes, which is not served",
            hint="sample it with pytorch_GAN_zoo and score the folder",
        )
    words = {"equalizedlR": "equalised", "perChannelNormalization": "pixel_norm", "leakyReluLeak": "leak"}
    described = {ours: stated[theirs] for theirs, ours in words.items() if theirs in stated}
    if "lossCriterion" in stated:
        described["bounded"] = stated["lossCriterion"] == "DCGAN"
    return described


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return all sizes.

    Raises:
        CheckpointError: a tensor of the layout is not there.
    """
    try:
        dense, first = tensors["formatLayer.module.weight"], tensors["groupScale0.0.module.weight"]
        widths, scale = [first.shape[0]], 0
        while (kernel := tensors.get(f"scaleLayers.{scale}.0.module.weight")) is not None:
            widths.append(kernel.shape[0])
            scale += 1
        rgb = tensors[f"toRGBLayers.{scale}.module.weight"]
    except KeyError as error:
        raise CheckpointError(
            f"this is no progressively grown generator: there is no {error}",
            hint="expected tensors are formatLayer.module.weight, groupScale0.0.module.weight, ...",
        ) from error
    return {"latent_dim": dense.shape[1], "channels": tuple(widths), "image_channels": rgb.shape[0]}
