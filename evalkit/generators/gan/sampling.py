"""The class-conditional GAN as a generator."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.sampling import NativeGenerator, SamplingOptions
from evalkit.seeding import normal_per_image, per_image_generators


class CGAN(NativeGenerator):
    """Latents are standard normal; batch-norm statistics are frozen."""

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

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise UsageError("the conditional GAN needs labels")
        size = (self.network.config.latent_dim,)
        z = normal_per_image(per_image_generators(seeds), size, device=self.device)
        self.evaluations_per_image = 1
        images: Tensor = self.network(z, labels)
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> CGAN:
    """Build the generator from a checkpoint."""
    network = CGANGenerator(build_config(CGANConfig, checkpoint))
    load_weights(network, checkpoint, name="cgan")
    return CGAN(name="cgan", network=network, checkpoint=checkpoint, options=options)
