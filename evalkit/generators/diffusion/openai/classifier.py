"""The noisy classifier of guided-diffusion: half a U-Net, then attention (Dhariwal & Nichol 2021, sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.diffusion.openai.layers import (
    AttentionBlock,
    AttentionPool,
    GroupNorm32,
    timestep_embedding,
)
from evalkit.generators.diffusion.openai.paths import Shape, middle, run, time_embed, way_down
from evalkit.generators.diffusion.openai.reading import read_encoder

_HEAD_CHANNELS = 64  # the public program offers no other, nor the new order of attention


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything is inferred: the public program leaves open nothing that the tensors do not show."""

    shape: Shape
    num_classes: int
    image_size: int


class NoisyClassifier(nn.Module):
    """Noisy image and time to logits over the classes."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.shape

        def attention(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, heads=channels // _HEAD_CHANNELS, new_order=False)

        self.time_embed = time_embed(shape)
        self.input_blocks, _ = way_down(shape, 3, attention)
        self.middle_block = middle(shape, attention)
        self.out = nn.Sequential(
            GroupNorm32(shape.levels[-1]),
            nn.SiLU(),
            AttentionPool(
                config.image_size >> (len(shape.levels) - 1),
                shape.levels[-1],
                head_channels=_HEAD_CHANNELS,
                outputs=config.num_classes,
            ),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return logits ``[n, num_classes]`` for ``x [n, 3, h, w]`` at times ``t [n]``."""
        embedding = self.time_embed(timestep_embedding(t, self.config.shape.width))
        h = x
        for stage in self.input_blocks:
            h = run(stage, h, embedding)  # type: ignore[arg-type]  # a list of layers
        logits: Tensor = self.out(run(self.middle_block, h, embedding).to(x.dtype))
        return logits


def load_classifier(checkpoint: Checkpoint) -> NoisyClassifier:
    """Build the classifier of a checkpoint, frozen and in evaluation mode.

    Raises:
        CheckpointError: the checkpoint is not one of guided-diffusion's classifiers with attention pooling.
    """
    shape, num_classes, side = read_encoder(checkpoint.tensors)
    config = ClassifierConfig(shape, num_classes, image_size=side << (len(shape.levels) - 1))
    classifier = NoisyClassifier(config)
    load_weights(classifier, checkpoint, name="guided-diffusion classifier")
    return classifier.eval().requires_grad_(requires_grad=False)
