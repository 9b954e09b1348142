"""The bundled DDPM as a generator."""

from __future__ import annotations

from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import build_config
from evalkit.generators.diffusion.ddpm import process_of
from evalkit.generators.diffusion.generator import DiffusionGenerator
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.generators.sampling import SamplingOptions


def build(checkpoint: Checkpoint, options: SamplingOptions) -> DiffusionGenerator:
    """Build the class-conditional generator from a checkpoint."""
    config = build_config(DDPMConfig, checkpoint)
    network = DenoisingUNet(config)
    load_weights(network, checkpoint, name="ddpm")
    return DiffusionGenerator(
        name="ddpm",
        network=network,
        process=process_of(config),
        checkpoint=checkpoint,
        options=options,
        num_classes=config.num_classes,
        resolution=config.resolution,
        null_label=True,
    )
