"""The convolutional VAE as a generator (the decoder mean of a standard normal latent) and a reconstructor."""

from __future__ import annotations

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.generators.sampling import SamplingOptions, quantise
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.generators.vae.mixture import GaussianMixture, split_mixture
from evalkit.generators.vae.reconstruction import entering


class VAE(LatentNativeGenerator):
    """Samples show the decoder's mean, without its pixel noise, as the field does."""

    family = "vae"
    network: ConvVAE
    mixture: GaussianMixture | None = None

    def latents(self, seeds: IndexArray) -> Tensor:
        """Return float32 ``[n, d]`` latents from the prior, or from the mixture where that is the sampler."""
        if self.mixture is None:
            return super().latents(seeds)
        return self.mixture.sample(seeds, device=self.device)

    @property
    def num_classes(self) -> int:
        """Unconditional."""
        return 0

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
        del space, noise_seeds, labels
        return self.network.decode(latents)

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Return the decoder's image of the posterior mean, uint8 like ``images`` ``[n, 3, h, w]``.

        Pixels enter as ``x / 127.5 - 1``, as in training, and leave by the rule of
        :func:`~evalkit.generators.sampling.quantise`. In the compute type of the sampling options.

        Raises:
            InvalidInputError: ``images`` are not uint8, or of another size than the model's.
        """
        del labels
        x = entering(images, self.resolution, name=self.name).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean, _ = self.network.encode(x)
            decoded = self.network.decode(mean)
        return quantise(decoded.float())


def build(checkpoint: Checkpoint, options: SamplingOptions) -> VAE:
    """Build the generator from a checkpoint.

    Raises:
        UsageError: the mixture is asked for and the checkpoint has none.
    """
    bare, mixture = split_mixture(checkpoint)
    network = ConvVAE(build_config(VAEConfig, bare))
    load_weights(network, bare, name="vae")
    generator = VAE(name="vae", network=network, checkpoint=bare, options=options)
    if generator.sampler == "mixture":
        if mixture is None:
            raise UsageError(
                "this checkpoint has no mixture over its latents",
                hint="`evalkit train vae` fits one at its end",
            )
        generator.mixture = mixture
    return generator
