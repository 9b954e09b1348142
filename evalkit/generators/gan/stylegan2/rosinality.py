"""rosinality's StyleGAN2 checkpoints in NVIDIA's names and conventions: the network is the same."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from evalkit.generators.checkpoint import Checkpoint

_GAIN = 4.0
"""rosinality's stored filters carry the gain of up-sampling, NVIDIA's do not."""

_Value = Callable[[Tensor], Tensor]


def in_nvidia_names(checkpoint: Checkpoint) -> Checkpoint:
    """Return ``checkpoint`` with rosinality's names and conventions turned into NVIDIA's; others unchanged.

    Besides names: weights and biases lose their dimensions of 1, filters lose the gain of up-sampling,
    convolution weights take the ``1 / sqrt(fan_in)`` that rosinality applies when it runs (NVIDIA leaves it
    to demodulation, so that only the epsilon knows the difference), and the filters that rosinality does not
    store, because it does not use them, are filled in. Its code has no clamp and no other learning rate.
    """
    if "input.input" not in checkpoint.tensors or "style.1.weight" not in checkpoint.tensors:
        return checkpoint
    renamed = dict(_renamed(key, value) for key, value in checkpoint.tensors.items())
    taps = renamed.get("synthesis.b8.resample_filter", _usual_filter())
    renamed.setdefault("synthesis.b4.resample_filter", taps)
    for index in range(1 + _doublings(renamed)):
        renamed.setdefault(f"synthesis.{_block(index)}.conv1.resample_filter", _usual_filter())
    given = {"mapping_rate": 0.01, "conv_clamp": None} | dict(checkpoint.given)
    return dataclasses.replace(checkpoint, tensors=renamed, given=given)


def _same(value: Tensor) -> Tensor:
    return value


def _only(value: Tensor) -> Tensor:
    return value[0]


def _equalised(value: Tensor) -> Tensor:
    return value[0] / math.sqrt(value[0, 0].numel())


def _without_gain(value: Tensor) -> Tensor:
    return value / _GAIN


_LAYER: Mapping[str, tuple[str, _Value]] = {
    "conv.weight": ("weight", _equalised),
    "conv.modulation.weight": ("affine.weight", _same),
    "conv.modulation.bias": ("affine.bias", _same),
    "conv.blur.kernel": ("resample_filter", _without_gain),
    "noise.weight": ("noise_strength", lambda value: value.reshape(())),
    "activate.bias": ("bias", _same),
}
_COLOURS: Mapping[str, tuple[str, _Value]] = {
    "conv.weight": ("torgb.weight", _only),
    "conv.modulation.weight": ("torgb.affine.weight", _same),
    "conv.modulation.bias": ("torgb.affine.bias", _same),
    "bias": ("torgb.bias", Tensor.flatten),
    "upsample.kernel": ("resample_filter", _without_gain),
}


def _renamed(key: str, value: Tensor) -> tuple[str, Tensor]:
    """Return NVIDIA's name and value; unknown names stay, for the strict loading to name them."""
    if key == "input.input":
        return "synthesis.b4.const", value[0]
    if found := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
        return f"mapping.fc{int(found[1]) - 1}.{found[2]}", value
    if found := re.fullmatch(r"noises\.noise_(\d+)", key):
        return f"synthesis.{_layer(int(found[1]))}.noise_const", value[0, 0]
    found = re.fullmatch(r"(?:conv1|convs\.(\d+))\.(.+)", key)
    if found and found[2] in _LAYER:
        part, change = _LAYER[found[2]]
        return f"synthesis.{_layer(_number(found[1]))}.{part}", change(value)
    found = re.fullmatch(r"(?:to_rgb1|to_rgbs\.(\d+))\.(.+)", key)
    if found and found[2] in _COLOURS:
        part, change = _COLOURS[found[2]]
        return f"synthesis.{_block(_number(found[1]))}.{part}", change(value)
    return key, value


def _number(text: str | None) -> int:
    return 0 if text is None else int(text) + 1


def _layer(number: int) -> str:
    return "b4.conv1" if number == 0 else f"{_block((number + 1) // 2)}.conv{(number + 1) % 2}"


def _block(index: int) -> str:
    return f"b{4 << index}"


def _doublings(tensors: Mapping[str, Tensor]) -> int:
    return sum(1 for key in tensors if re.fullmatch(r"synthesis\.b\d+\.conv0\.weight", key))


def _usual_filter() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    return torch.outer(taps, taps)
