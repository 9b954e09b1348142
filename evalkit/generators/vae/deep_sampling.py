"""VDVAE as a generator (latents from the prior, pixels drawn from the mixture) and a reconstructor."""

from __future__ import annotations

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.counter_noise import ELEMENT_STREAM, STEP_STREAM, normal_at, uniform_at
from evalkit.generators.autoregressive import logistic_mixture
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.sampling import NativeGenerator, SamplingOptions, quantise
from evalkit.generators.vae.deep import VDVAE, VDVAEConfig
from evalkit.generators.vae.reconstruction import entering


class VDVAEGenerator(NativeGenerator):
    """Pixels are drawn from the mixture of logistics, as the public code does, not its mean.

    Block k takes the noise of step k, the pixels their uniforms from a stream of their own.
    """

    family = "vae"
    network: VDVAE

    @property
    def num_classes(self) -> int:
        """Unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.image_size

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        del labels
        self.evaluations_per_image = 1
        decoder, config = self.network.decoder, self.network.config
        noise = [
            normal_at(seeds, step, (config.zdim, size, size), stream=STEP_STREAM, device=self.device)
            for step, (size, _, _) in enumerate(decoder.plan)
        ]
        return self._pixels(decoder(len(seeds), noise), seeds)

    def _pixels(self, parameters: Tensor, seeds: IndexArray) -> Tensor:
        shape = (self.resolution, self.resolution, self.network.config.num_mixtures + 3)
        uniforms = uniform_at(seeds, 0, shape, stream=ELEMENT_STREAM, device=self.device)
        return logistic_mixture.sample(parameters.float(), uniforms).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Return uint8 ``[n, 3, h, w]``: the median of the likeliest component at the posterior's means.

        Nothing is drawn: every uniform is one half. Pixels enter by the mean and deviation that the
        configuration states.

        Raises:
            InvalidInputError: ``images`` are not uint8, or of another size than the model's.
        """
        del labels
        x = entering(images, self.resolution, name=self.name).to(self.device)
        config = self.network.config
        x = (x.add(1.0).mul(127.5) - config.pixel_mean) / config.pixel_deviation
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            parameters = self.network.decoder(len(x), None, self.network.encoder(x))
        halves = torch.full((*parameters.shape[:3], config.num_mixtures + 3), 0.5)
        drawn = logistic_mixture.sample(parameters.float(), halves.to(self.device))
        return quantise(drawn.permute(0, 3, 1, 2))


def build(checkpoint: Checkpoint, options: SamplingOptions) -> VDVAEGenerator:
    """Build the generator from a checkpoint in the public layout."""
    tensors = checkpoint.tensors
    inferred: dict[str, object] = {}
    if "decoder.gain" in tensors and "decoder.dec_blocks.0.z_proj.weight" in tensors:
        first = tensors["decoder.dec_blocks.0.z_proj.weight"]
        inferred = {
            "width": first.shape[0],
            "zdim": first.shape[1],
            "num_mixtures": tensors["decoder.out_net.out_conv.weight"].shape[0] // 10,
        }
    network = VDVAE(configure(VDVAEConfig, checkpoint, inferred=inferred, described=checkpoint.config or {}))
    load_weights(network, checkpoint, name="vdvae")
    return VDVAEGenerator(name="vdvae", network=network, checkpoint=checkpoint, options=options)
