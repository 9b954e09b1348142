"""The class-conditional GAN as a generator."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.generators.sampling import SamplingOptions


class CGAN(LatentNativeGenerator):
    """Latents are standard normal; batch-norm statistics are frozen; there is no noise beside z."""

    family = "gan"
    network: CGANGenerator

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on."""
        return self.network.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    @property
    def latent_dim(self) -> int:
        """Numbers in z."""
        return self.network.config.latent_dim

    def _synthesise(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: Tensor | None
    ) -> Tensor:
        del space, noise_seeds
        if labels is None:
            raise UsageError("the conditional GAN needs labels")
        images: Tensor = self.network(latents, labels)
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> CGAN:
    """Build the generator from a checkpoint."""
    network = CGANGenerator(build_config(CGANConfig, checkpoint))
    load_weights(network, checkpoint, name="cgan")
    return CGAN(name="cgan", network=network, checkpoint=checkpoint, options=options)
