"""The conditional VAE as a generator and a reconstructor."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.latent import LatentNativeGenerator
from evalkit.generators.sampling import SamplingOptions, quantise
from evalkit.generators.vae.conditional import CVAE, CVAEConfig
from evalkit.generators.vae.reconstruction import entering


class CVAEGenerator(LatentNativeGenerator):
    """Samples show the decoder's mean, without its pixel noise; grey models give three equal channels."""

    family = "vae"
    network: CVAE

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
            raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
        return self.network.decode(latents, labels).expand(-1, 3, -1, -1)

    @torch.inference_mode()
    def reconstruct(self, images: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Return the decoder's image of the posterior mean, uint8 like ``images`` ``[n, 3, h, w]``.

        Raises:
            InvalidInputError: ``images`` are not uint8, or of another size than the model's.
            UsageError: there are no labels, not one for each image, or some that are no class.
        """
        if labels is None:
            raise UsageError(f"model {self.name!r} is class-conditional and needs labels")
        x = entering(images, self.resolution, name=self.name).to(self.device)
        if len(labels) != len(x) or not ((labels >= 0) & (labels < self.num_classes)).all():
            raise UsageError(
                f"model {self.name!r} needs a label in 0..{self.num_classes - 1} for each of {len(x)} images"
            )
        if self.network.config.channels == 1:
            x = x.mean(dim=1, keepdim=True)
        wanted = torch.from_numpy(labels).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean, _ = self.network.encode(x, wanted)
            decoded = self.network.decode(mean, wanted)
        return quantise(decoded.float().expand(-1, 3, -1, -1))


def build(checkpoint: Checkpoint, options: SamplingOptions) -> CVAEGenerator:
    """Build the generator from a checkpoint; sizes come from the shapes, the channels where they fit once."""
    network = CVAE(
        configure(CVAEConfig, checkpoint, inferred=_sizes(checkpoint), described=checkpoint.config or {})
    )
    load_weights(network, checkpoint, name="cvae")
    return CVAEGenerator(name="cvae", network=network, checkpoint=checkpoint, options=options)


def _sizes(checkpoint: Checkpoint) -> dict[str, object]:
    weights = {k: v for k, v in checkpoint.tensors.items() if k.endswith(".weight") and v.ndim == 2}
    layers = sorted(
        (k for k in weights if re.fullmatch(r"encoder\.\d+\.weight", k)), key=lambda k: int(k.split(".")[1])
    )
    if not layers or not {"to_posterior.weight", "to_image.weight", "decoder.0.weight"} <= set(weights):
        return {}
    pixels, latent = weights["to_image.weight"].shape[0], weights["to_posterior.weight"].shape[0] // 2
    found: dict[str, object] = {
        "latent_dim": latent,
        "hidden": tuple(weights[k].shape[0] for k in layers),
        "num_classes": weights["decoder.0.weight"].shape[1] - latent,
    }
    for channels in (1, 3):  # never both: 3 is no square of a ratio
        size = math.isqrt(pixels // channels)
        if channels * size**2 == pixels:
            found |= {"channels": channels, "resolution": size}
    return found
