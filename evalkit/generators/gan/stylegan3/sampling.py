"""StyleGAN3 as a generator with the latent spaces z and w."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.gan.stylegan2.latents import StyleLatents
from evalkit.generators.gan.stylegan2.mapping import MappingNetwork
from evalkit.generators.gan.stylegan3.layouts import stylegan3_config
from evalkit.generators.gan.stylegan3.network import StyleGAN3Generator
from evalkit.generators.sampling import SamplingOptions


class StyleGAN3(StyleLatents):
    """z of image i comes from seed i; there is no noise but z."""

    network: StyleGAN3Generator

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
        """Copies of w: one for the Fourier features and one for each layer."""
        return self.network.config.layer_count

    @property
    def truncation_cutoff(self) -> int | None:
        """Layers, from the first, that truncation reaches; all where None."""
        return self.network.config.truncation_cutoff

    @property
    def _mapping(self) -> MappingNetwork:
        return self.network.mapping

    def _paint(self, styles: Tensor, noise_seeds: IndexArray) -> Tensor:
        del noise_seeds
        images: Tensor = self.network.synthesis(styles)
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> StyleGAN3:
    """Build the generator from a checkpoint.

    Raises:
        CheckpointError: it does not fit, or does not say all that is needed.
    """
    network = StyleGAN3Generator(stylegan3_config(checkpoint))
    load_weights(network, checkpoint, name="stylegan3")
    return StyleGAN3(name="stylegan3", network=network, checkpoint=checkpoint, options=options)
