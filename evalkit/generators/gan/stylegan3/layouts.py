"""What a StyleGAN3 checkpoint says about its network: names, shapes and constructor arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.configuration import configure
from evalkit.generators.gan.stylegan2.mapping import infer_mapping
from evalkit.generators.gan.stylegan3.facts import DEFAULTS
from evalkit.generators.gan.stylegan3.network import StyleGAN3Config


def stylegan3_config(checkpoint: Checkpoint) -> StyleGAN3Config:
    """Return the configuration of a checkpoint in NVIDIA's names.

    Raises:
        CheckpointError: it is no StyleGAN3 generator, or something is neither shown, stated nor given.
    """
    stated = checkpoint.config or {}
    described = stated if checkpoint.format == "evalkit" else constructor_arguments(stated)
    return configure(StyleGAN3Config, checkpoint, inferred=_infer(checkpoint.tensors), described=described)


def constructor_arguments(stated: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields that the arguments of NVIDIA's ``Generator`` decide, with its defaults.

    Nothing where nothing is stated.
    """
    if not stated:
        return {}
    synthesis = {**stated, **(stated.get("synthesis_kwargs") or {})}
    mapping = stated.get("mapping_kwargs") or {}
    fields: dict[str, object] = {
        key: None if (value := synthesis.get(key, usual)) is None else type(usual)(value)
        for key, usual in DEFAULTS.items()
    }
    fields["mapping_rate"] = float(mapping.get("lr_multiplier", DEFAULTS["mapping_rate"]))
    return fields | {key: stated[key] for key in ("z_dim", "c_dim", "w_dim") if key in stated}


def _infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    layers = {
        int(found[1]): (int(found[2]), int(found[3]), weight)
        for key, weight in tensors.items()
        if (found := re.fullmatch(r"synthesis\.L(\d+)_(\d+)_(\d+)\.weight", key)) and weight.ndim == 4
    }
    if len(layers) < 2 or sorted(layers) != list(range(len(layers))):
        raise CheckpointError(
            "the checkpoint is no StyleGAN3 generator (no layers synthesis.L0_..., synthesis.L1_...)",
            hint="--model stylegan2 reads StyleGAN2-ADA's pickles",
        )
    last_size, _, _ = layers[len(layers) - 1]
    round_filters = any(key.endswith(".down_filter") and taps.ndim == 2 for key, taps in tensors.items())
    return infer_mapping(tensors) | {
        "resolution": last_size,
        "channels": tuple(layers[index][1] for index in range(len(layers))),
        "kernel": layers[0][2].shape[-1],
        "radial": round_filters,
    }
