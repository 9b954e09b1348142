"""The 64-pixel SAGAN of heykeetae/Self-Attention-GAN: a DCGAN with attention at 16 and 32 pixels.

Its weights are spectrally normalised by a wrapper that takes one power iteration in *every* pass and keeps
what it found, so that the public code's images drift with each batch. evalkit takes that one iteration from
the stored vector and keeps nothing: its images are those of the public code's first batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.frozen import WeightLayer
from evalkit.generators.gan.convolutional.attention import weigh
from evalkit.generators.gan.convolutional.plain import PlainGAN, completed
from evalkit.generators.gan.convolutional.spectral import iterated_norm
from evalkit.generators.sampling import SamplingOptions


@dataclass(frozen=True)
class AttentiveConfig:
    """Sizes of the generator: numbers in z, and channels at 4, 8, 16 and 32 pixels."""

    latent_dim: int
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        if len(self.channels) != 4 or min(*self.channels, self.latent_dim) < 1 or min(self.channels[2:]) < 8:
            raise ValueError("impossible sizes")

    @property
    def num_classes(self) -> int:
        """It is unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 64


class NormalisedTransposed(WeightLayer[Tensor]):
    """A transposed 4x4 convolution over its spectral norm, rows being *input* channels as in the wrapper."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_u = nn.Parameter(torch.randn(in_channels))
        self.weight_v = nn.Parameter(torch.randn(out_channels * 16))
        self.weight_bar = nn.Parameter(torch.randn(in_channels, out_channels, 4, 4) * 0.02)

    def derive(self) -> Tensor:
        """Return ``W / |W v|`` with ``v = u W / |u W|``, which no reduced type may round."""
        with torch.autocast(self.weight_bar.device.type, enabled=False):
            unit: Tensor = self.weight_bar / iterated_norm(self.weight_bar, self.weight_u)
            return unit

    @property
    def weight(self) -> Tensor:
        """The normalised weight."""
        return self.derived

    def forward(self, x: Tensor) -> Tensor:
        """Apply the normalised weight."""
        return F.conv_transpose2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class Wrapper(nn.Module):
    """What puts ``module`` into the names."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, padding: int) -> None:
        super().__init__()
        self.module = NormalisedTransposed(in_channels, out_channels, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        images: Tensor = self.module(x)
        return images


class FullAttention(nn.Module):
    """Attention of every pixel to every pixel, added with a learnt gain (Zhang et al. 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attended values."""
        query, key, value = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        added: Tensor = self.gamma * weigh(query, key, value).unflatten(2, x.shape[2:])
        return x + added


class AttentiveGenerator(nn.Module):
    """Latent ``[n, z]`` to images in [-1, 1]."""

    def __init__(self, config: AttentiveConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.channels
        self.l1 = _stage(config.latent_dim, a, stride=1, padding=0)
        self.l2 = _stage(a, b)
        self.l3 = _stage(b, c)
        self.l4 = _stage(c, d)
        self.last = nn.Sequential(nn.ConvTranspose2d(d, 3, 4, stride=2, padding=1), nn.Tanh())
        self.attn1 = FullAttention(c)
        self.attn2 = FullAttention(d)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``[n, 3, 64, 64]`` in [-1, 1]."""
        x = self.attn1(self.l3(self.l2(self.l1(z[:, :, None, None]))))
        images: Tensor = self.last(self.attn2(self.l4(x)))
        return images


def _stage(in_channels: int, out_channels: int, *, stride: int = 2, padding: int = 1) -> nn.Sequential:
    convolution = Wrapper(in_channels, out_channels, stride=stride, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build the generator from a checkpoint."""
    checkpoint = completed(checkpoint)
    config = configure(
        AttentiveConfig, checkpoint, inferred=infer(checkpoint.tensors), described=checkpoint.config or {}
    )
    network = AttentiveGenerator(config)
    load_weights(network, checkpoint, name="sagan-64")
    return PlainGAN(name="sagan-64", network=network, checkpoint=checkpoint, options=options)


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the whole configuration: shapes show all of it.

    Raises:
        CheckpointError: a tensor of the layout is not there.
    """
    try:
        kernels = [tensors[f"l{i}.0.module.weight_bar"] for i in range(1, 5)]
    except KeyError as error:
        raise CheckpointError(
            f"this is no 64-pixel SAGAN: there is no {error}",
            hint="expected tensors are l1.0.module.weight_bar, ..., l4.0.module.weight_bar",
        ) from error
    return {"latent_dim": kernels[0].shape[0], "channels": tuple(kernel.shape[1] for kernel in kernels)}
