"""The generator of BigGAN (Brock, Donahue & Simonyan 2019, appendix B), in the layout of BigGAN-PyTorch.

UNet-GAN, ADC-GAN and LOGAN train the same generator; where UNet-GAN has no classes, z itself modulates every
block (Chen et al. 2019, self-modulation). Everything but the epsilon of batch norm is seen in the names and
shapes of the tensors: classes, shared embedding, hierarchical latent, attention, widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.gan.biggan.layers import ConditionalNorm, PlainNorm, convolution, linear
from evalkit.generators.gan.convolutional.attention import attend

_OUTPUT_EPS = 1e-5
"""Of the last batch norm: the public code always leaves it at this."""


@dataclass(frozen=True)
class BigGANConfig:
    """Sizes of the generator.

    Attributes:
        latent_dim: numbers in z, all chunks together.
        num_classes: classes it is conditioned on; 0 where unconditional, and modulated by z.
        channels: of the first feature map, then of each block's output; every block doubles the size.
        attention: for each block whether self-attention follows it.
        bottom_width: size of the first feature map.
        shared_dim: width of the class embedding that all blocks share; 0 where each has its own.
        hierarchical: whether z is cut into one chunk for the first layer and one for each block.
        spectral_norm: whether weights are spectrally normalised.
        norm_eps: epsilon of the blocks' batch norm.
    """

    latent_dim: int
    num_classes: int
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    bottom_width: int
    shared_dim: int
    hierarchical: bool
    spectral_norm: bool
    norm_eps: float

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        if len(self.channels) < 2 or min(*self.channels, self.latent_dim, self.bottom_width) < 1:
            raise ValueError("impossible sizes")
        if len(self.attention) != len(self.channels) - 1:
            raise ValueError("attention needs one entry for each block")
        if self.hierarchical and (self.latent_dim % len(self.channels) or not self.shared_dim):
            raise ValueError("a hierarchical latent needs equal chunks and a shared embedding")

    @property
    def chunk(self) -> int:
        """Numbers of z that the first layer sees."""
        return self.latent_dim // len(self.channels) if self.hierarchical else self.latent_dim

    @property
    def condition_dim(self) -> int:
        """Numbers that a block's batch norm is linear in, beside the label itself or z."""
        return self.shared_dim + (self.chunk if self.hierarchical else 0)

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.bottom_width << (len(self.channels) - 1)


class UpBlock(nn.Module):
    """Norm, activation, twice the size, convolution, norm, activation, convolution; plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, config: BigGANConfig) -> None:
        super().__init__()
        spectral = config.spectral_norm
        self.conv1 = convolution(in_channels, out_channels, 3, spectral=spectral)
        self.conv2 = convolution(out_channels, out_channels, 3, spectral=spectral)
        self.conv_sc = convolution(in_channels, out_channels, 1, spectral=spectral)
        self.bn1 = _norm(in_channels, config)
        self.bn2 = _norm(out_channels, config)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, c', 2h, 2w]``, repeating pixels."""
        h = torch.relu(self.bn1(x, condition))
        h = self.conv1(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.conv2(torch.relu(self.bn2(h, condition)))
        # A 1x1 convolution and a repetition commute; before it there are four times fewer pixels.
        return cast("Tensor", h + F.interpolate(self.conv_sc(x), scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Self-attention, added with a learnt gain; the condition is ignored."""

    def __init__(self, channels: int, *, spectral: bool) -> None:
        super().__init__()
        self.theta = convolution(channels, channels // 8, 1, spectral=spectral, bias=False)
        self.phi = convolution(channels, channels // 8, 1, spectral=spectral, bias=False)
        self.g = convolution(channels, channels // 2, 1, spectral=spectral, bias=False)
        self.o = convolution(channels // 2, channels, 1, spectral=spectral, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return ``x`` plus the attended values."""
        del condition
        added: Tensor = self.gamma * attend(x, theta=self.theta, phi=self.phi, g=self.g, o=self.o)
        return x + added


class BigGANGenerator(nn.Module):
    """Latent ``[n, z]`` (and labels ``[n]``) to images in [-1, 1]."""

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        self.config = config
        channels, spectral = config.channels, config.spectral_norm
        if config.shared_dim:
            self.shared = nn.Embedding(config.num_classes, config.shared_dim)
        self.linear = linear(config.chunk, channels[0] * config.bottom_width**2, spectral=spectral)
        self.blocks = nn.ModuleList()
        for a, b, attentive in zip(channels[:-1], channels[1:], config.attention, strict=True):
            extra = [Attention(b, spectral=spectral)] if attentive else []
            self.blocks.append(nn.ModuleList([UpBlock(a, b, config), *extra]))
        self.output_layer = nn.Sequential(
            PlainNorm(channels[-1], _OUTPUT_EPS),
            nn.ReLU(),
            convolution(channels[-1], 3, 3, spectral=spectral),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, 3, h, w]`` in [-1, 1]."""
        first, conditions = self._split(z, labels)
        width = self.config.bottom_width
        x = self.linear(first).view(len(z), -1, width, width).contiguous(memory_format=torch.channels_last)
        for layers, condition in zip(self.blocks, conditions, strict=True):
            for layer in cast("nn.ModuleList", layers):
                x = layer(x, condition)
        return torch.tanh(self.output_layer(x))

    def _split(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return what the first layer sees, and what each block is conditioned on: class first, then z."""
        if labels is None or not self.config.num_classes:
            return z, [z] * len(self.blocks)
        embedded = self.shared(labels) if self.config.shared_dim else labels
        if not self.config.hierarchical:
            return z, [embedded] * len(self.blocks)
        first, *chunks = z.split(self.config.chunk, dim=1)
        return first, [torch.cat([embedded, chunk], dim=1) for chunk in chunks]


def _norm(channels: int, config: BigGANConfig) -> ConditionalNorm:
    def condition() -> nn.Module:
        if not config.num_classes:
            inner, outer = config.latent_dim, nn.Linear(config.latent_dim, channels, bias=False)
            return nn.Sequential(nn.Linear(inner, inner), nn.ReLU(), outer)
        if not config.shared_dim:
            return nn.Embedding(config.num_classes, channels)
        return linear(config.condition_dim, channels, spectral=config.spectral_norm, bias=False)

    return ConditionalNorm(channels, config.norm_eps, gain=condition(), bias=condition())
