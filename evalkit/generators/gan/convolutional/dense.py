"""GAN (Goodfellow et al. 2014) and conditional GAN (Mirza & Osindero 2014) as multi-layer perceptrons.

Names are those of PyTorch-GAN (Linder-Noren): a sequence ``model``, and ``label_emb`` where there are
classes; its first layer has no batch norm. The perceptron of the Wasserstein GAN repository is the same
without batch norm, under ``main``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.gan.convolutional.plain import PlainGAN, completed
from evalkit.generators.sampling import SamplingOptions


@dataclass(frozen=True)
class DenseConfig:
    """Sizes of the generator, and what its tensors do not show.

    Attributes:
        latent_dim: numbers in z.
        num_classes: classes it is conditioned on; 0 where unconditional.
        label_dim: width of the class embedding that goes before z; 0 where unconditional.
        widths: of the hidden layers.
        image_channels: 3, or 1 for grey images.
        resolution: height and width in pixels.
        batch_norm: whether the hidden layers but the first are normalised.
        norm_eps: epsilon of batch norm (PyTorch-GAN: 0.8, which its authors may have meant as momentum).
        leak: slope of the activation below 0.
        bounded: whether the output goes through a hyperbolic tangent.
    """

    latent_dim: int
    num_classes: int
    label_dim: int
    widths: tuple[int, ...]
    image_channels: int
    resolution: int
    batch_norm: bool
    norm_eps: float
    leak: float
    bounded: bool

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        too_small = not self.widths or min(*self.widths, self.latent_dim, self.resolution) < 1
        if too_small or self.image_channels not in {1, 3}:
            raise ValueError("impossible sizes")


class DenseGenerator(nn.Module):
    """Latent ``[n, z]`` (and labels ``[n]``) to images."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        if config.num_classes:
            self.label_emb = nn.Embedding(config.num_classes, config.label_dim)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise((config.label_dim + config.latent_dim, *config.widths))):
            norm = [nn.BatchNorm1d(b, config.norm_eps)] if config.batch_norm and i else []
            layers += [nn.Linear(a, b), *norm, nn.LeakyReLU(config.leak)]
        layers.append(nn.Linear(config.widths[-1], config.image_channels * config.resolution**2))
        self.model = nn.Sequential(*layers, nn.Tanh() if config.bounded else nn.Identity())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, c, h, w]``; the class goes before z."""
        if labels is not None and self.config.num_classes:
            z = torch.cat([self.label_emb(labels), z], dim=1)
        size = self.config.resolution
        images: Tensor = self.model(z).view(len(z), self.config.image_channels, size, size)
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build the generator from a checkpoint."""
    checkpoint = completed(
        checkpoint, {re.sub(r"^main\.", "model.", key): value for key, value in checkpoint.tensors.items()}
    )
    config = configure(
        DenseConfig, checkpoint, inferred=infer(checkpoint.tensors), described=checkpoint.config or {}
    )
    network = DenseGenerator(config)
    load_weights(network, checkpoint, name="mlp-gan")
    return PlainGAN(name="mlp-gan", network=network, checkpoint=checkpoint, options=options)


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what the shapes show: all sizes, classes, and whether there is batch norm.

    Raises:
        CheckpointError: the tensors are not those of such a perceptron.
    """
    weights = {
        int(name.split(".")[1]): tensor
        for name, tensor in tensors.items()
        if re.fullmatch(r"model\.\d+\.weight", name) and tensor.ndim == 2
    }
    ordered = [weights[number] for number in sorted(weights)]
    pixels = ordered[-1].shape[0] if ordered else 0
    grey = math.isqrt(pixels) ** 2 == pixels  # a number and its third are never both squares
    size = math.isqrt(pixels if grey else pixels // 3)
    if len(ordered) < 2 or size**2 * (1 if grey else 3) != pixels:
        raise CheckpointError(
            "this is no perceptron of square grey or RGB images",
            hint="expected tensors are model.0.weight [c, z], ...",
        )
    embedding = tensors.get("label_emb.weight")
    classes, label_dim = (0, 0) if embedding is None else embedding.shape
    return {
        "latent_dim": ordered[0].shape[1] - label_dim,
        "num_classes": classes,
        "label_dim": label_dim,
        "widths": tuple(weight.shape[0] for weight in ordered[:-1]),
        "image_channels": 1 if grey else 3,
        "resolution": size,
        "batch_norm": any(name.endswith("running_mean") for name in tensors),
    }
