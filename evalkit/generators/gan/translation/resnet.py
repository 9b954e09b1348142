"""CycleGAN's residual generator in the layout of junyanz/pytorch-CycleGAN-and-pix2pix.

Zhu, Park, Isola & Efros 2017, after Johnson, Alahi & Fei-Fei 2016: 7x7 convolution, two halvings, residual
blocks (9 at 256 pixels, 6 at 128), two doublings, 7x7 convolution; borders are reflected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.configuration import configure
from evalkit.generators.gan.translation.normalisation import needed, normalise, shown_normalisation

_FIRST_BLOCK = 10
"""Layers before the residual blocks: four around the 7x7 convolution, three for each halving."""


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes; ``dropout`` shifts names and does nothing else, for it is off."""

    inputs: int
    outputs: int
    width: int
    blocks: int
    dropout: bool
    normalisation: str

    @property
    def multiple(self) -> int:
        """What height and width must be a multiple of."""
        return 4


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width, norm = 4 * config.width, config.normalisation
        bias = norm == "instance"
        first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), normalise(norm, width)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), normalise(norm, width)]
        between = [nn.ReLU(), nn.Identity()] if config.dropout else [nn.ReLU()]
        self.conv_block = nn.Sequential(*first, *between, *second)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        y: Tensor = x + self.conv_block(x)
        return y


class ResNetTranslator(nn.Module):
    """Image in [-1, 1] to image in [-1, 1]."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width, norm = config.width, config.normalisation
        bias = norm == "instance"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(config.inputs, width, 7, bias=bias)]
        layers += [normalise(norm, width), nn.ReLU()]
        for inputs in (width, 2 * width):
            layers.append(nn.Conv2d(inputs, 2 * inputs, 3, stride=2, padding=1, bias=bias))
            layers += [normalise(norm, 2 * inputs), nn.ReLU()]
        layers += [ResidualBlock(config) for _ in range(config.blocks)]
        for outputs in (2 * width, width):
            layers.append(
                nn.ConvTranspose2d(2 * outputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)
            )
            layers += [normalise(norm, outputs), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, config.outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, 3, h, w]`` to the same shape."""
        y: Tensor = self.model(x)
        return y


def resnet_config(checkpoint: Checkpoint) -> ResNetConfig:
    """Return the configuration, all of which the tensors show.

    Raises:
        CheckpointError: they are not this network's.
    """
    return configure(ResNetConfig, checkpoint, inferred=_infer(checkpoint.tensors))


def _infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    first = needed(tensors, "model.1.weight", "cyclegan")
    blocks = 0
    while f"model.{_FIRST_BLOCK + blocks}.conv_block.1.weight" in tensors:
        blocks += 1
    # Behind the blocks: three layers for each doubling, then the padding.
    last = needed(tensors, f"model.{_FIRST_BLOCK + blocks + 7}.weight", "cyclegan")
    return {
        "inputs": first.shape[1],
        "outputs": last.shape[0],
        "width": first.shape[0],
        "blocks": blocks,
        "dropout": f"model.{_FIRST_BLOCK}.conv_block.5.weight" not in tensors,
        "normalisation": shown_normalisation(tensors, "model.1", "model.2"),
    }
