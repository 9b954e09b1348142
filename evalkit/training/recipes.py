"""The recipes of the bundled checkpoints: everything that decides what comes out, in one frozen table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.core import ImageSource
from evalkit.errors import InvalidInputError
from evalkit.generators.autoregressive.gated import GatedPixelCNNConfig
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.diffusion.unet import DDPMConfig
from evalkit.generators.gan.cgan import CGANConfig
from evalkit.generators.gan.convolutional.residual import ResidualConfig
from evalkit.generators.gan.style import StyleGANConfig
from evalkit.generators.vae.conv_vae import VAEConfig
from evalkit.generators.vae.quantised import VQVAEConfig
from evalkit.registry import Registry
from evalkit.training.diffusion import DDPMTask
from evalkit.training.gan import CGANTask
from evalkit.training.gated_pixelcnn import GatedPixelCNNTask
from evalkit.training.latent_mixture import add_mixture
from evalkit.training.loop import TrainingSet, TrainingTask
from evalkit.training.residual_gan import ResidualGANTask
from evalkit.training.style_gan import StyleGANTask
from evalkit.training.vae import VAETask
from evalkit.training.vqvae import VQVAETask

TaskFactory = Callable[[int, str, int], TrainingTask]
_READ_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a bundled checkpoint is made: ``task(steps, device, seed)`` trained for ``steps`` batches."""

    name: str
    title: str
    steps: int
    batch_size: int
    task: TaskFactory
    complete: Callable[[Path, TrainingSet], None] | None = None
    """Adds to the exported file what is fitted after the training."""


RECIPES: Registry[Recipe] = Registry("recipe")


def _ddpm(steps: int, device: str, seed: int) -> TrainingTask:
    return DDPMTask(config=DDPMConfig(), steps=steps, device=device, seed=seed, half_life_images=20_000.0)


def _ddpm_large(steps: int, device: str, seed: int) -> TrainingTask:
    config = DDPMConfig(patch=1, channels=(64, 128, 128), attention=(False, True, False), groups=32)
    return DDPMTask(
        config=config, steps=steps, device=device, seed=seed, learning_rate=4e-4, half_life_images=500_000.0
    )


def _cgan(steps: int, device: str, seed: int) -> TrainingTask:
    return CGANTask(config=CGANConfig(), steps=steps, device=device, seed=seed)


def _stylegan(steps: int, device: str, seed: int) -> TrainingTask:
    del steps  # they say when to stop, and nothing else
    return StyleGANTask(config=StyleGANConfig(), device=device, seed=seed)


def _sngan(steps: int, device: str, seed: int) -> TrainingTask:
    config = ResidualConfig(
        latent_dim=128, num_classes=10, channels=(256, 224, 144, 96), upsampling="nearest", attention=0,
        bottom_width=4, spectral_norm=False,
    )  # fmt: skip
    return ResidualGANTask(config=config, steps=steps, device=device, seed=seed)


def _vae(steps: int, device: str, seed: int) -> TrainingTask:
    return VAETask(config=VAEConfig(), steps=steps, device=device, seed=seed)


def _vqvae(steps: int, device: str, seed: int) -> TrainingTask:
    return VQVAETask(config=VQVAEConfig(), steps=steps, device=device, seed=seed, autoencoder_share=0.4)


def _gated_pixelcnn(steps: int, device: str, seed: int) -> TrainingTask:
    return GatedPixelCNNTask(config=GatedPixelCNNConfig(), steps=steps, device=device, seed=seed)


def _with_mixture(path: Path, data: TrainingSet) -> None:
    add_mixture(path, path, data)


for _recipe in (
    Recipe("ddpm", "patched U-Net 96-128, v-prediction, cosine schedule", 6000, 64, _ddpm),
    Recipe("ddpm-large", "U-Net 64-128-128 on single pixels; wants a GPU", 40_000, 256, _ddpm_large),
    Recipe("cgan", "convolutional G and D, hinge loss, projection", 4000, 64, _cgan),
    Recipe("stylegan", "mapping network, modulated synthesis, logistic loss, lazy R1", 2750, 64, _stylegan),
    Recipe("sngan", "residual G and projection D, spectral norm, hinge loss", 2000, 128, _sngan),
    Recipe("vq-vae", "8x8 codes of 512 vectors, gated PixelCNN prior", 4000, 64, _vqvae),
    Recipe(
        "gated-pixelcnn", "two gated stacks, 256-way softmax, maximum likelihood", 1500, 32, _gated_pixelcnn
    ),
    Recipe("vae", "convolutional VAE, 128 latents, optimal shared variance", 1400, 128, _vae, _with_mixture),
):
    RECIPES.register(_recipe.name)(_recipe)


def read_training_set(source: ImageSource, *, resolution: int, num_classes: int) -> TrainingSet:
    """Read every image of ``source`` into memory.

    Raises:
        InvalidInputError: a size is not ``resolution``, or labels are missing or out of range.
    """
    images, labels = [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        batch = source.read(np.arange(start, min(start + _READ_AT_ONCE, len(source)), dtype=np.int64))
        for _, group in batch.same_size_groups():
            if tuple(group.shape[2:]) != (resolution, resolution):
                raise InvalidInputError(
                    f"training images must be {resolution}x{resolution}, one is {list(group.shape[2:])}",
                    hint="resize them first: a recipe never changes pixels silently",
                )
            images.append(group.numpy())
        labels.append(np.zeros(len(batch), dtype=np.int64) if batch.labels is None else batch.labels)
        if num_classes and (
            batch.labels is None or batch.labels.min() < 0 or batch.labels.max() >= num_classes
        ):
            raise InvalidInputError(
                f"this recipe needs a label 0..{num_classes - 1} for each image",
                hint="a parquet file with a label column, or a folder with one sub-folder for each class",
            )
    return TrainingSet(np.concatenate(images), np.concatenate(labels))


def export(task: TrainingTask, path: Path, facts: dict[str, object]) -> None:
    """Write the task's averaged weights as an evalkit checkpoint with ``facts`` in its header."""
    config, tensors = task.export()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, tensors, architecture=task.architecture, config=config, training=facts)
