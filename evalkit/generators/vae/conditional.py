"""Conditional VAE (Sohn et al. 2015): the one-hot label joined to the encoder's image and the decoder's z."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class CVAEConfig:
    """Sizes of two multi-layer perceptrons, mirror images of each other."""

    resolution: int
    channels: int
    latent_dim: int
    hidden: tuple[int, ...]
    num_classes: int

    def __post_init__(self) -> None:
        """Refuse sizes that no network has; without classes it is a plain VAE and not this one.

        Raises:
            ValueError: a size is below 1, or the images are neither grey nor RGB.
        """
        sizes = (self.resolution, self.latent_dim, self.num_classes, len(self.hidden), *self.hidden)
        if min(sizes) < 1 or self.channels not in {1, 3}:
            raise ValueError(f"impossible sizes: {self}")

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        return self.channels * self.resolution**2


class CVAE(nn.Module):
    """Encoder of (image, label) to the posterior of z; decoder of (z, label) to the mean image."""

    def __init__(self, config: CVAEConfig) -> None:
        super().__init__()
        self.config = config
        label, z = config.num_classes, config.latent_dim
        self.encoder = _perceptron((config.pixels + label, *config.hidden))
        self.to_posterior = nn.Linear(config.hidden[-1], 2 * z)
        self.decoder = _perceptron((z + label, *reversed(config.hidden)))
        self.to_image = nn.Linear(config.hidden[0], config.pixels)

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance ``[n, z]`` of q(z | x, y) for images in [-1, 1]."""
        hidden = self.encoder(torch.cat([images.flatten(1), self._one_hot(labels, images)], dim=1))
        mean, log_variance = self.to_posterior(hidden).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return the decoder's mean ``[n, c, h, w]`` in [-1, 1]."""
        hidden = self.decoder(torch.cat([z, self._one_hot(labels, z)], dim=1))
        shape = (len(z), self.config.channels, self.config.resolution, self.config.resolution)
        return torch.tanh(self.to_image(hidden)).view(shape)

    def _one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        return F.one_hot(labels, self.config.num_classes).to(like.dtype)


def _perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)
