"""The style-based GAN as a generator with the latent spaces z and w."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.generators.sampling import SamplingOptions
from evalkit.seeding import normal_per_image, per_image_generators

_NOISE_STREAM = np.int64(0x5851F42D4C957F2D)
"""Turns the seed of an image into the seed of its noise: the noise must not repeat the numbers of z."""


class StyleGAN(LatentNativeGenerator):
    """z of image i comes from seed i, its noise from the same seed by another stream."""

    family = "gan"
    network: StyleGANGenerator

    @property
    def spaces(self) -> tuple[str, ...]:
        """The normal latent, and the output of the mapping network."""
        return ("z", "w")

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where unconditional."""
        return self.network.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    @property
    def latent_dim(self) -> int:
        """Numbers in z."""
        return self.network.config.latent_dim

    @torch.no_grad()
    def mapping(self, z: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Map z ``[n, d]`` to w, float32 ``[n, d_w]``, truncated where the options ask for it.

        Raises:
            UsageError: z has another width, or labels are missing or of another length.
        """
        self._check(z, space="z", noise_seeds=np.zeros(len(z), dtype=np.int64), labels=labels)
        wanted = None if labels is None else torch.from_numpy(labels).to(self.device)
        return self._map(z.to(self.device, torch.float32), wanted)

    def _map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        psi = self.options.truncation
        w: Tensor = self.network.mapping(
            z, labels if self.num_classes else None, truncation=1.0 if psi is None else psi
        )
        return w

    def _synthesise(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: Tensor | None
    ) -> Tensor:
        w = latents if space == "w" else self._map(latents, labels)
        images: Tensor = self.network.synthesis(w, self._noise(noise_seeds))
        return images

    def _noise(self, seeds: IndexArray) -> Tensor:
        size = (self.network.config.noise_numbers,)
        return normal_per_image(per_image_generators(seeds ^ _NOISE_STREAM), size, device=self.device)

    def _dimensions(self, space: str) -> int:
        return self.network.config.style_dim if space == "w" else self.latent_dim

    def _settings(self) -> dict[str, Any]:
        return {} if self.options.truncation is None else {"truncation": self.options.truncation}


def build(checkpoint: Checkpoint, options: SamplingOptions) -> StyleGAN:
    """Build the generator from a checkpoint."""
    network = StyleGANGenerator(build_config(StyleGANConfig, checkpoint))
    load_weights(network, checkpoint, name="stylegan")
    return StyleGAN(name="stylegan", network=network, checkpoint=checkpoint, options=options)
