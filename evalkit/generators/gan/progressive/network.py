"""The progressively grown generator (Karras et al. 2018) in the layout of pytorch_GAN_zoo.

Every weight is multiplied at run time by He's constant ``sqrt(2 / fan_in)``. pytorch_GAN_zoo multiplies the
layer's whole output, bias included: ``c (W x + b)``, and so does this. Training has ended here, so
nothing of the smaller image is blended in (alpha = 0); its colour layers are part of the layout and are not
used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PIXEL_EPS = 1e-8


@dataclass(frozen=True)
class ProgressiveConfig:
    """Sizes of the generator, and what its tensors do not show.

    Attributes:
        latent_dim: numbers in z.
        channels: of the 4x4 scale and of each doubling.
        image_channels: 3, or 1 for grey images.
        equalised: whether He's constant is applied at run time.
        pixel_norm: whether features are normalised pixel by pixel.
        leak: slope of the activation below 0.
        bounded: whether the output goes through a hyperbolic tangent.
    """

    latent_dim: int
    channels: tuple[int, ...]
    image_channels: int
    equalised: bool
    pixel_norm: bool
    leak: float
    bounded: bool

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        if not self.channels or min(*self.channels, self.latent_dim) < 1 or self.image_channels not in {1, 3}:
            raise ValueError("impossible sizes")

    @property
    def num_classes(self) -> int:
        """It is unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 4 << (len(self.channels) - 1)


class Scaled(nn.Module):
    """A layer whose output is multiplied by He's constant, where the learning rate is equalised."""

    def __init__(self, module: nn.Linear | nn.Conv2d, *, equalised: bool) -> None:
        super().__init__()
        self.module = module
        if equalised:
            nn.init.normal_(module.weight)
        self.constant = math.sqrt(2.0 / module.weight[0].numel()) if equalised else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return ``c (W x + b)``."""
        return cast("Tensor", self.module(x) * self.constant)


class ProgressiveGenerator(nn.Module):
    """Latent ``[n, z]`` to images in about [-1, 1]."""

    def __init__(self, config: ProgressiveConfig) -> None:
        super().__init__()
        self.config = config
        first, scaled = config.channels[0], config.equalised
        self.formatLayer = Scaled(nn.Linear(config.latent_dim, 16 * first), equalised=scaled)
        self.groupScale0 = nn.ModuleList([_conv(first, first, 3, equalised=scaled)])
        self.scaleLayers = nn.ModuleList(
            nn.ModuleList([_conv(a, b, 3, equalised=scaled), _conv(b, b, 3, equalised=scaled)])
            for a, b in pairwise(config.channels)
        )
        self.toRGBLayers = nn.ModuleList(
            _conv(width, config.image_channels, 1, equalised=scaled) for width in config.channels
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return ``[n, c, h, w]``."""
        x = self._activate(self.formatLayer(self._normalise(z))).view(len(z), -1, 4, 4)
        x = self._normalise(x).contiguous(memory_format=torch.channels_last)
        x = self._convolve(x, self.groupScale0)
        for layers in self.scaleLayers:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self._convolve(x, cast("nn.ModuleList", layers))
        images: Tensor = self.toRGBLayers[-1](x)
        return torch.tanh(images) if self.config.bounded else images

    def _convolve(self, x: Tensor, layers: nn.ModuleList) -> Tensor:
        for layer in layers:
            x = self._normalise(self._activate(layer(x)))
        return x

    def _activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.config.leak)

    def _normalise(self, x: Tensor) -> Tensor:
        """Divide by the root mean square over channels, pixel by pixel (Karras et al. 2018, sec. 4.2)."""
        if not self.config.pixel_norm:
            return x
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _PIXEL_EPS)


def _conv(in_channels: int, out_channels: int, kernel: int, *, equalised: bool) -> Scaled:
    return Scaled(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), equalised=equalised)
