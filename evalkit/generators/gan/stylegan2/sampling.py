"""StyleGAN2 as a generator with the latent spaces z and w."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.gan.mapped_latents import layer_noise
from evalkit.generators.gan.stylegan2.facts import FORWARD_NOISE, STORED_NOISE
from evalkit.generators.gan.stylegan2.latents import StyleLatents
from evalkit.generators.gan.stylegan2.layouts import stylegan2_config
from evalkit.generators.gan.stylegan2.mapping import MappingNetwork
from evalkit.generators.gan.stylegan2.network import StyleGAN2Generator
from evalkit.generators.gan.stylegan2.rosinality import in_nvidia_names
from evalkit.generators.sampling import SamplingOptions


class StyleGAN2(StyleLatents):
    """z of image i comes from seed i; its layer noise from the same seed, from the checkpoint, or nowhere."""

    network: StyleGAN2Generator

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on; 0 where unconditional."""
        return self.network.config.c_dim

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    @property
    def latent_dim(self) -> int:
        """Numbers in z."""
        return self.network.config.z_dim

    @property
    def style_dim(self) -> int:
        """Numbers in w."""
        return self.network.config.w_dim

    @property
    def layer_count(self) -> int:
        """Copies of w: one for each convolution and one for the last conversion to colours."""
        return self.network.config.layer_count

    @property
    def truncation_cutoff(self) -> int | None:
        """Layers, from the first, that truncation reaches; all where None."""
        return self.network.config.truncation_cutoff

    @property
    def _mapping(self) -> MappingNetwork:
        return self.network.mapping

    def _paint(self, styles: Tensor, noise_seeds: IndexArray) -> Tensor:
        images: Tensor = self.network.synthesis(styles, self._noise(noise_seeds))
        return images

    def _noise(self, seeds: IndexArray) -> list[Tensor | None]:
        if self.sampler == STORED_NOISE.name:
            return self.network.stored_noise()
        sizes = self.network.config.noise_sizes
        if self.sampler != FORWARD_NOISE.name or not sizes:
            return [None] * (self.layer_count - 1)
        areas = [size**2 for size in sizes]
        drawn = layer_noise(seeds, sum(areas), device=self.device).split(areas, dim=1)
        planes = zip(drawn, sizes, strict=True)
        return [plane.reshape(len(seeds), 1, size, size) for plane, size in planes]


def build(checkpoint: Checkpoint, options: SamplingOptions) -> StyleGAN2:
    """Build the generator from a checkpoint of either layout.

    Raises:
        CheckpointError: it does not fit, or does not say all that is needed.
    """
    checkpoint = in_nvidia_names(checkpoint)
    network = StyleGAN2Generator(stylegan2_config(checkpoint))
    load_weights(network, checkpoint, name="stylegan2")
    return StyleGAN2(name="stylegan2", network=network, checkpoint=checkpoint, options=options)
