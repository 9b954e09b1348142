"""What a checkpoint in NVIDIA's layout says about its network: names, shapes and constructor arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.configuration import configure
from evalkit.generators.gan.stylegan2.mapping import infer_mapping
from evalkit.generators.gan.stylegan2.network import StyleGAN2Config


def stylegan2_config(checkpoint: Checkpoint) -> StyleGAN2Config:
    """Return the configuration of a checkpoint in NVIDIA's names.

    Raises:
        CheckpointError: it is no StyleGAN2 generator, or something is neither shown, stated nor given.
    """
    stated = checkpoint.config or {}
    described = stated if checkpoint.format == "evalkit" else constructor_arguments(stated)
    return configure(StyleGAN2Config, checkpoint, inferred=_infer(checkpoint.tensors), described=described)


def constructor_arguments(stated: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields that the arguments of NVIDIA's ``Generator`` decide, with its defaults.

    StyleGAN2-ADA nests ``synthesis_kwargs`` and does not clamp unless told to; the StyleGAN2 inside the
    StyleGAN3 code takes them flat and clamps at 256. Nothing where nothing is stated.

    Raises:
        CheckpointError: a layer has another activation than the leaky rectifier.
    """
    if not stated:
        return {}
    mapping = stated.get("mapping_kwargs") or {}
    nested = "synthesis_kwargs" in stated
    synthesis = (stated["synthesis_kwargs"] or {}) if nested else stated
    for part in (mapping, synthesis):
        if part.get("activation", "lrelu") != "lrelu":
            raise CheckpointError(f"StyleGAN2 with the activation {part['activation']!r} is not supported")
    clamp = synthesis.get("conv_clamp", None if nested else 256)
    return {
        "mapping_rate": float(mapping.get("lr_multiplier", 0.01)),
        "conv_clamp": None if clamp is None else float(clamp),
        **{key: stated[key] for key in ("z_dim", "c_dim", "w_dim") if key in stated},
    }


def _infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    fields = infer_mapping(tensors)
    channels: list[int] = []
    while (weight := tensors.get(f"synthesis.b{4 << len(channels)}.conv1.weight")) is not None:
        channels.append(weight.shape[0])
    last = tensors.get(f"synthesis.b{4 << max(len(channels) - 1, 0)}.torgb.weight")
    taps = tensors.get("synthesis.b4.resample_filter")
    if not channels or last is None or taps is None:
        raise CheckpointError(
            "the checkpoint is no StyleGAN2 generator (no synthesis.b4.conv1, torgb or resample_filter)",
            hint="StyleGAN1 and TensorFlow pickles: sample with their own code and score the folder",
        )
    architecture = "skip" if "synthesis.b4.torgb.weight" in tensors else "orig"
    if "synthesis.b8.skip.weight" in tensors:
        architecture = "resnet"
    return fields | {
        "channels": tuple(channels),
        "image_channels": last.shape[0],
        "architecture": architecture,
        "noise_inputs": "synthesis.b4.conv1.noise_const" in tensors,
        "filter_shape": tuple(taps.shape),
    }
