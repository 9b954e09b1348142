"""The VQ-VAE as a generator (codes from the prior, then the decoder) and a reconstructor."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from evalkit.core import IndexArray
from evalkit.generators.autoregressive import gated_cache
from evalkit.generators.autoregressive.sampling import draws
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.sampling import NativeGenerator, SamplingOptions, quantise
from evalkit.generators.vae.quantised import VQVAE, VQVAEConfig
from evalkit.generators.vae.reconstruction import entering


class VQVAEGenerator(NativeGenerator):
    """``evaluations_per_image`` counts the codes, drawn one by one, and the decoder.

    The prior always computes in float64, as autoregressive generators over pixels do; the options' compute
    type is that of the decoder.
    """

    family = "vae"
    network: VQVAE

    def __init__(
        self, *, name: str, network: nn.Module, checkpoint: Checkpoint, options: SamplingOptions
    ) -> None:
        super().__init__(name=name, network=network, checkpoint=checkpoint, options=options)
        self.exact_prior = copy.deepcopy(self.network.prior).double()

    @property
    def num_classes(self) -> int:
        """Classes the prior is conditioned on; 0 where unconditional."""
        return self.network.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    def codes(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        """Draw int64 codes ``[n, h, w]`` from the prior, one grid for each seed."""
        uniforms = draws(self.network.config.prior, seeds, self.device)
        wanted = labels if self.num_classes else None
        with torch.autocast(self.device.type, enabled=False):
            return gated_cache.sample(self.exact_prior, wanted, uniforms)[:, 0]

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        self.evaluations_per_image = self.network.config.grid**2 + 1
        coder = self.network.autoencoder
        return coder.decode(coder.codebook.look_up(self.codes(seeds, labels)))

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Return the decoder's image of the codes of uint8 ``images`` ``[n, 3, h, w]``, uint8 likewise.

        Raises:
            InvalidInputError: ``images`` are not uint8, or of another size than the model's.
        """
        del labels
        x = entering(images, self.resolution, name=self.name).to(self.device)
        coder = self.network.autoencoder
        codes = coder.quantise(x)  # in float32: the nearest vector is a decision
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            decoded = coder.decode(coder.codebook.look_up(codes))
        return quantise(decoded.float())


def build(checkpoint: Checkpoint, options: SamplingOptions) -> VQVAEGenerator:
    """Build the generator from a checkpoint."""
    network = VQVAE(build_config(VQVAEConfig, checkpoint))
    load_weights(network, checkpoint, name="vq-vae")
    return VQVAEGenerator(name="vq-vae", network=network, checkpoint=checkpoint, options=options)
