"""Pix2Pix's U-Net in the layout of junyanz/pytorch-CycleGAN-and-pix2pix (Isola, Zhu, Zhou & Efros 2017).

Blocks are nested: each halves the image, hands it to the next inner one, doubles the result, and joins it to
its own input. Dropout has no parameters and is off, so it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.configuration import configure
from evalkit.generators.gan.translation.normalisation import needed, normalise, shown_normalisation

SLOPE = 0.2


@dataclass(frozen=True)
class UNetConfig:
    """Sizes; each entry of ``widths`` halves the image once more."""

    inputs: int
    outputs: int
    widths: tuple[int, ...]
    normalisation: str

    @property
    def multiple(self) -> int:
        """What height and width must be a multiple of."""
        return 1 << len(self.widths)


class UNetBlock(nn.Module):
    """Halve, inner block, double; joined to the input except at the outermost."""

    def __init__(self, config: UNetConfig, depth: int) -> None:
        super().__init__()
        widths, norm = config.widths, config.normalisation
        self.outermost, innermost = depth == 0, depth == len(widths) - 1
        outer = config.inputs if self.outermost else widths[depth - 1]
        back = config.outputs if self.outermost else outer
        bias = norm == "instance"
        down = nn.Conv2d(outer, widths[depth], 4, stride=2, padding=1, bias=bias)
        inner = [] if innermost else [UNetBlock(config, depth + 1)]
        joined = widths[depth] * (1 if innermost else 2)
        up = nn.ConvTranspose2d(joined, back, 4, stride=2, padding=1, bias=bias or self.outermost)
        layers: list[nn.Module]
        if self.outermost:
            layers = [down, *inner, nn.ReLU(), up, nn.Tanh()]
        elif innermost:
            layers = [nn.LeakyReLU(SLOPE), down, nn.ReLU(), up, normalise(norm, back)]
        else:
            halved = [nn.LeakyReLU(SLOPE), down, normalise(norm, widths[depth])]
            layers = [*halved, *inner, nn.ReLU(), up, normalise(norm, back)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, 2c, h, w]``, or to colours at the outermost."""
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], dim=1)


class UNetTranslator(nn.Module):
    """Image in [-1, 1] to image in [-1, 1]."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.model = UNetBlock(config, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 3, h, w]`` to the same shape."""
        y: Tensor = self.model(x)
        return y


def unet_config(checkpoint: Checkpoint) -> UNetConfig:
    """Return the configuration, all of which the tensors show.

    Raises:
        CheckpointError: they are not this network's.
    """
    return configure(UNetConfig, checkpoint, inferred=_infer(checkpoint.tensors))


def _infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    first = needed(tensors, "model.model.0.weight", "pix2pix")
    widths, block = [first.shape[0]], "model.model.1"
    while f"{block}.model.1.weight" in tensors:
        widths.append(needed(tensors, f"{block}.model.1.weight", "pix2pix").shape[0])
        block += ".model.3"
    inner = "model.model.1.model"
    return {
        "inputs": first.shape[1],
        "outputs": needed(tensors, "model.model.3.weight", "pix2pix").shape[1],
        "widths": tuple(widths),
        "normalisation": shown_normalisation(tensors, f"{inner}.1", f"{inner}.2"),
    }
