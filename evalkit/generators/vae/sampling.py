"""The convolutional VAE as a generator (the decoder mean of a standard normal latent) and a reconstructor."""

from __future__ import annotations

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.generators.sampling import SamplingOptions, quantise
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig


class VAE(LatentNativeGenerator):
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
        expected = (3, self.resolution, self.resolution)
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InvalidInputError(
                f"model {self.name!r} reconstructs torch.uint8 images of shape {['n', *expected]}, "
                f"not {images.dtype} of {list(images.shape)}",
                hint="resize them first: nothing is resized silently",
            )
        x = images.to(self.device).float().div(127.5).sub(1.0)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean, _ = self.network.encode(x.contiguous(memory_format=torch.channels_last))
            decoded = self.network.decode(mean)
        return quantise(decoded.float())


def build(checkpoint: Checkpoint, options: SamplingOptions) -> VAE:
    """Build the generator from a checkpoint."""
    network = ConvVAE(build_config(VAEConfig, checkpoint))
    load_weights(network, checkpoint, name="vae")
    return VAE(name="vae", network=network, checkpoint=checkpoint, options=options)
