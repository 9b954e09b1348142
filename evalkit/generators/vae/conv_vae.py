"""Convolutional variational autoencoder (Kingma & Welling 2014), Gaussian decoder of shared variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalkit.generators import in_place


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of encoder and decoder, which halve the image three times; there are no classes."""

    latent_dim: int = 128
    width: int = 56
    resolution: int = 32
    num_classes: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that no network has.

        Raises:
            ValueError: a size is too small, the image cannot be halved three times, or there are classes.
        """
        halved = self.resolution % 8 == 0 and self.resolution > 0
        if self.latent_dim < 1 or self.width < 2 or not halved or self.num_classes:
            raise ValueError(f"impossible sizes: {self}")


def _residual(channels: int) -> nn.Module:
    return Residual(
        nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )
    )


class Residual(nn.Module):
    """``x + body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Add the body's output to its input."""
        return in_place.add(self.body(x), x)


class ConvVAE(nn.Module):
    """Encoder ``[n, 3, 32, 32] -> (mean, log variance) [n, z]`` and decoder ``[n, z] -> [-1, 1]`` images."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        w, self.base = config.width, config.resolution // 8
        flat = 4 * w * self.base**2
        self.encoder = nn.Sequential(
            *_down(3, w), *_down(w, 2 * w), *_down(2 * w, 4 * w), _residual(4 * w), nn.SiLU(), nn.Flatten()
        )
        self.to_posterior = nn.Linear(flat, 2 * config.latent_dim)
        self.from_latent = nn.Linear(config.latent_dim, flat)
        self.decoder = nn.Sequential(
            _residual(4 * w),
            *_up(4 * w, 2 * w),
            *_up(2 * w, w),
            *_up(w, w // 2),
            nn.Conv2d(w // 2, 3, 3, padding=1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance ``[n, z]`` of q(z|x) for images in [-1, 1]."""
        mean, log_variance = self.to_posterior(self.encoder(images)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)

    def decode(self, z: Tensor) -> Tensor:
        """Return the decoder mean ``[n, 3, h, w]`` in [-1, 1]."""
        x = self.from_latent(z).view(len(z), -1, self.base, self.base)
        return torch.tanh(self.decoder(x.contiguous(memory_format=torch.channels_last)))


def _down(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return conv, nn.BatchNorm2d(out_channels), _residual(out_channels)


def _up(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return nn.SiLU(), conv, nn.BatchNorm2d(out_channels), _residual(out_channels)
