"""The style-based GAN as a generator with the latent spaces z and w."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.gan.mapped_latents import MappedLatents, layer_noise
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.sampling import SamplingOptions


class StyleGAN(MappedLatents):
    """z of image i comes from seed i, its noise from the same seed by another stream."""

    network: StyleGANGenerator

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

    @property
    def style_dim(self) -> int:
        """Numbers in w."""
        return self.network.config.style_dim

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
        return layer_noise(seeds, self.network.config.noise_numbers, device=self.device)


def build(checkpoint: Checkpoint, options: SamplingOptions) -> StyleGAN:
    """Build the generator from a checkpoint."""
    network = StyleGANGenerator(build_config(StyleGANConfig, checkpoint))
    load_weights(network, checkpoint, name="stylegan")
    return StyleGAN(name="stylegan", network=network, checkpoint=checkpoint, options=options)
