"""Class-conditional convolutional GAN: conditional batch norm in G, projection in a spectrally normalised D.

Generator: Radford, Metz & Chintala 2015 (transposed 4x4 convolutions) with the conditional batch norm of
de Vries et al. 2017. Discriminator: Miyato et al. 2018 (spectral norm) with the projection of
Miyato & Koyama 2018, eq. 3. The discriminator is needed for training only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from evalkit.generators import in_place


@dataclass(frozen=True)
class CGANConfig:
    """Sizes of the generator; the image starts at 4 pixels and doubles for each further entry."""

    latent_dim: int = 128
    num_classes: int = 10
    channels: tuple[int, ...] = (256, 160, 96, 64)

    def __post_init__(self) -> None:
        """Refuse sizes that no network has; without classes there is nothing to scale the features by.

        Raises:
            ValueError: a size is below 1.
        """
        if min(self.latent_dim, self.num_classes, len(self.channels), *self.channels) < 1:
            raise ValueError(f"impossible sizes: {self}")

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 4 << (len(self.channels) - 1)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are looked up by class label."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise ``[n, c, h, w]`` and scale by the class of each image."""
        normalised: Tensor = self.norm(x)
        gain: Tensor = self.gain(labels)[:, :, None, None]
        bias: Tensor = self.bias(labels)[:, :, None, None]
        return in_place.affine(normalised, gain, bias)


class UpStage(nn.Module):
    """Transposed convolution to twice the size, then a 3x3 convolution; each with conditional batch norm."""

    def __init__(self, in_channels: int, out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        self.up_norm = ConditionalBatchNorm(out_channels, num_classes)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.conv_norm = ConditionalBatchNorm(out_channels, num_classes)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to ``[n, c', 2h, 2w]``."""
        x = in_place.relu(self.up_norm(self.up(x), labels))
        return in_place.relu(self.conv_norm(self.conv(x), labels))


class CGANGenerator(nn.Module):
    """Latent ``[n, z]`` and labels ``[n]`` to images in [-1, 1]."""

    def __init__(self, config: CGANConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.project = nn.Linear(config.latent_dim, first * 16)
        self.project_norm = ConditionalBatchNorm(first, config.num_classes)
        self.stages = nn.ModuleList(
            UpStage(a, b, config.num_classes)
            for a, b in zip(config.channels[:-1], config.channels[1:], strict=True)
        )
        self.to_rgb = nn.Conv2d(config.channels[-1], 3, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return ``[n, 3, h, w]`` in [-1, 1]."""
        x = self.project(z).view(len(z), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        x = in_place.relu(self.project_norm(x, labels))
        for stage in self.stages:
            x = stage(x, labels)
        return torch.tanh(self.to_rgb(x))


class ProjectionDiscriminator(nn.Module):
    """Spectrally normalised convolutional critic with label projection."""

    def __init__(self, num_classes: int, width: int = 48) -> None:
        super().__init__()
        w = width
        plan = [
            (3, w, 3, 1),
            (w, 2 * w, 4, 2),
            (2 * w, 4 * w, 4, 2),
            (4 * w, 4 * w, 3, 1),
            (4 * w, 8 * w, 4, 2),
        ]
        self.body = nn.Sequential(
            *(
                layer
                for a, b, kernel, stride in plan
                for layer in (
                    spectral_norm(nn.Conv2d(a, b, kernel, stride=stride, padding=1)),
                    nn.LeakyReLU(0.1, inplace=True),
                )
            )
        )
        self.score = spectral_norm(nn.Linear(8 * w, 1))
        self.project = spectral_norm(nn.Embedding(num_classes, 8 * w))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return one realness score ``[n]`` for each image in [-1, 1]."""
        h: Tensor = self.body(images).sum(dim=(2, 3))
        score: Tensor = self.score(h).squeeze(1)
        embedded: Tensor = self.project(labels)
        return score + (embedded * h).sum(dim=1)
