"""The convolutional VAE as a generator: the decoder mean of a standard normal latent."""

from __future__ import annotations

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.sampling import NativeGenerator, SamplingOptions
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.seeding import normal_per_image, per_image_generators


class VAE(NativeGenerator):
    """Samples show the decoder's mean, without its pixel noise, as the field does."""

    family = "vae"
    network: ConvVAE

    @property
    def num_classes(self) -> int:
        """Unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        del labels
        size = (self.network.config.latent_dim,)
        z = normal_per_image(per_image_generators(seeds), size, device=self.device)
        self.evaluations_per_image = 1
        return self.network.decode(z)


def build(checkpoint: Checkpoint, options: SamplingOptions) -> VAE:
    """Build the generator from a checkpoint."""
    network = ConvVAE(build_config(VAEConfig, checkpoint))
    load_weights(network, checkpoint, name="vae")
    return VAE(name="vae", network=network, checkpoint=checkpoint, options=options)
