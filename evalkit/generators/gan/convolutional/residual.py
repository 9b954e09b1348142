"""Residual generator of SNGAN, cGAN-PD, WGAN-GP and, with attention, SAGAN.

Gulrajani et al. 2017 (appendix C), Miyato et al. 2018 (table 4), Miyato & Koyama 2018 (conditional batch norm
in G), Zhang et al. 2019 (self-attention). Names are those of torch-mimicry (Lee & Town 2020): ``l1``,
``block2`` ..., and a last batch norm ``b5`` and convolution ``c5`` numbered after the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators import in_place
from evalkit.generators.frozen import WeightLayer
from evalkit.generators.gan.convolutional.attention import attend
from evalkit.generators.gan.convolutional.spectral import SpectralConv, SpectralLinear

UPSAMPLING = ("nearest", "bilinear")


@dataclass(frozen=True)
class ResidualConfig:
    """Sizes of the generator, and what its tensors do not show.

    Attributes:
        latent_dim: numbers in z.
        num_classes: classes it is conditioned on; 0 where unconditional.
        channels: of the first feature map, then of each block's output; every block doubles the size.
        upsampling: ``nearest`` (the papers) or ``bilinear`` (torch-mimicry).
        attention: size in pixels of the feature map that self-attention is applied to; 0 for none.
        bottom_width: size of the first feature map.
        spectral_norm: whether the weights of G are spectrally normalised.
    """

    latent_dim: int
    num_classes: int
    channels: tuple[int, ...]
    upsampling: str
    attention: int
    bottom_width: int
    spectral_norm: bool

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        if self.upsampling not in UPSAMPLING:
            raise ValueError(f"upsampling is one of {', '.join(UPSAMPLING)}, not {self.upsampling!r}")
        if len(self.channels) < 2 or min(*self.channels, self.latent_dim, self.bottom_width) < 1:
            raise ValueError("impossible sizes")
        if self.attention and self.attention not in self.sizes:
            raise ValueError(f"attention at {self.attention} pixels, but the blocks give {self.sizes}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Size of each block's output in pixels."""
        return tuple(self.bottom_width << (i + 1) for i in range(len(self.channels) - 1))

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.sizes[-1]


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are one row of an embedding: gain first, then bias."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = nn.Embedding(num_classes, 2 * channels)
        with torch.no_grad():
            self.embed.weight[:, :channels].fill_(1.0)
            self.embed.weight[:, channels:].zero_()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise ``[n, c, h, w]`` and scale by the class of each image."""
        normalised: Tensor = self.bn(x)
        gain, bias = self.embed(labels).to(normalised.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, normalised, gain)


class UpBlock(WeightLayer[Tensor]):
    """Norm, activation, twice the size, convolution, norm, activation, convolution; plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, config: ResidualConfig) -> None:
        super().__init__()
        classes = config.num_classes
        self.upsampling = config.upsampling
        self.c1 = convolution(in_channels, out_channels, 3, spectral=config.spectral_norm)
        self.c2 = convolution(out_channels, out_channels, 3, spectral=config.spectral_norm)
        self.c_sc = convolution(in_channels, out_channels, 1, spectral=config.spectral_norm, gain=1.0)
        self.b1 = ConditionalNorm(in_channels, classes) if classes else nn.BatchNorm2d(in_channels)
        self.b2 = ConditionalNorm(out_channels, classes) if classes else nn.BatchNorm2d(out_channels)

    def derive(self) -> Tensor:
        """Return the kernel of the transposed convolution that repeats every pixel 2x2 and convolves 3x3."""
        padded = F.pad(self.c1.weight.flip(2, 3), (1, 1, 1, 1))
        rows = padded[:, :, 1:] + padded[:, :, :-1]
        return (rows[..., 1:] + rows[..., :-1]).transpose(0, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, c', 2h, 2w]``."""
        h = in_place.relu(_normalise(self.b1, x, labels))
        if self.upsampling == "nearest" and not torch.is_grad_enabled():
            # The same sum with 16 instead of 36 products for each input pixel. Its gradient is slower than
            # that of the two steps, so it is for sampling.
            h = F.conv_transpose2d(h, self.derived, self.c1.bias, stride=2, padding=1)
        else:
            h = self.c1(self._twice(h))
        h = in_place.relu(_normalise(self.b2, h, labels))
        # A 1x1 convolution and an interpolation commute; before it there are four times fewer pixels.
        return in_place.add(self.c2(h), self._twice(self.c_sc(x)))

    def _twice(self, x: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class SelfAttention(nn.Module):
    """Zhang et al. 2019: attention of every pixel to the max-pooled feature map, added with a learnt gain."""

    def __init__(self, channels: int, *, spectral: bool) -> None:
        super().__init__()
        self.theta = convolution(channels, channels // 8, 1, spectral=spectral, bias=False)
        self.phi = convolution(channels, channels // 8, 1, spectral=spectral, bias=False)
        self.g = convolution(channels, channels // 2, 1, spectral=spectral, bias=False)
        self.o = convolution(channels // 2, channels, 1, spectral=spectral, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attended values."""
        added: Tensor = self.gamma * attend(x, theta=self.theta, phi=self.phi, g=self.g, o=self.o)
        return x + added


class ResidualGenerator(nn.Module):
    """Latent ``[n, z]`` (and labels ``[n]``) to images in [-1, 1]."""

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.channels[0] * config.bottom_width**2
        if config.spectral_norm:
            self.l1: nn.Module = SpectralLinear(rows, config.latent_dim)
        else:
            linear = nn.Linear(config.latent_dim, rows)
            nn.init.xavier_uniform_(linear.weight)
            self.l1 = linear
        for number, (a, b) in enumerate(pairwise(config.channels), start=2):
            self.add_module(f"block{number}", UpBlock(a, b, config))
        self.last = len(config.channels) + 1
        spectral, width = config.spectral_norm, config.channels[-1]
        self.add_module(f"b{self.last}", nn.BatchNorm2d(width))
        self.add_module(f"c{self.last}", convolution(width, 3, 3, spectral=spectral, gain=1.0))
        if config.attention:
            attended = config.channels[1 + config.sizes.index(config.attention)]
            self.attn_block = SelfAttention(attended, spectral=spectral)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, 3, h, w]`` in [-1, 1]."""
        width = self.config.bottom_width
        x = self.l1(z).view(len(z), -1, width, width).contiguous(memory_format=torch.channels_last)
        for number, size in enumerate(self.config.sizes, start=2):
            x = self.get_submodule(f"block{number}")(x, labels)
            if size == self.config.attention:
                x = self.attn_block(x)
        x = in_place.relu(self.get_submodule(f"b{self.last}")(x))
        return torch.tanh(self.get_submodule(f"c{self.last}")(x))


def convolution(  # the one place that knows both kinds
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    spectral: bool,
    bias: bool = True,
    gain: float = 2.0**0.5,
) -> nn.Conv2d | SpectralConv:
    """Return a convolution that keeps the size, Glorot-initialised with ``gain``."""
    if spectral:
        return SpectralConv(out_channels, in_channels, kernel, kernel, bias=bias)
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def _normalise(norm: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    normalised: Tensor = norm(x, labels) if isinstance(norm, ConditionalNorm) else norm(x)
    return normalised
