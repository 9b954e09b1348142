"""The DDPM as a generator; every random draw of image i comes from image i's own seed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from evalkit.core import IndexArray
from evalkit.errors import UsageError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.diffusion.ddpm import denoise
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.generators.sampling import NativeGenerator, SamplingOptions
from evalkit.seeding import normal_per_image, per_image_generators


class DDPM(NativeGenerator):
    """Class-conditional diffusion with classifier-free guidance."""

    family = "diffusion"
    network: DenoisingUNet

    @property
    def num_classes(self) -> int:
        """Classes it is conditioned on."""
        return self.network.config.num_classes

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.network.config.resolution

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale; 1 is none."""
        return 1.0 if self.options.guidance is None else self.options.guidance

    def _sample(self, seeds: IndexArray, labels: Tensor | None) -> Tensor:
        if labels is None or self.steps is None:
            raise UsageError("the conditional DDPM needs labels and a number of steps")
        generators = per_image_generators(seeds)
        size = (3, self.resolution, self.resolution)
        images, self.evaluations_per_image = denoise(
            self.network,
            normal_per_image(generators, size, device=self.device),
            labels,
            sampler=self.sampler,
            steps=self.steps,
            eta=self.options.eta or 0.0,
            guidance=self.guidance,
            generators=generators,
        )
        return images

    def _settings(self) -> dict[str, Any]:
        return {"guidance": self.guidance, "eta": self.options.eta or 0.0}


def build(checkpoint: Checkpoint, options: SamplingOptions) -> DDPM:
    """Build the generator from a checkpoint."""
    config = build_config(DDPMConfig, checkpoint)
    if options.steps is not None and options.steps > config.train_timesteps:
        raise UsageError(f"--steps must be at most {config.train_timesteps}, not {options.steps}")
    network = DenoisingUNet(config)
    load_weights(network, checkpoint, name="ddpm")
    return DDPM(name="ddpm", network=network, checkpoint=checkpoint, options=options)
