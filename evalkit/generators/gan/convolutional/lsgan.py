"""LSGAN (Mao et al. 2017) and DCGAN as PyTorch-GAN (Linder-Noren) has them: repeat pixels, then convolve.

Names are PyTorch-GAN's: ``l1.0`` and a sequence ``conv_blocks`` (``conv_model`` in older files). Its DCGAN
begins that sequence with a batch norm, with torch's epsilon; its LSGAN does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.gan.convolutional.plain import PlainGAN, completed
from evalkit.generators.sampling import SamplingOptions


@dataclass(frozen=True)
class LSGANConfig:
    """Sizes of the generator, and what its tensors do not show.

    Attributes:
        latent_dim: numbers in z.
        channels: of the first feature map and of each doubling.
        bottom_width: size of the first feature map.
        image_channels: 3, or 1 for grey images.
        first_norm: whether a batch norm comes before the first doubling.
        norm_eps: epsilon of the other batch norms (PyTorch-GAN: 0.8).
        leak: slope of the activation below 0.
    """

    latent_dim: int
    channels: tuple[int, ...]
    bottom_width: int
    image_channels: int
    first_norm: bool
    norm_eps: float
    leak: float

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        too_small = len(self.channels) < 2 or min(*self.channels, self.latent_dim, self.bottom_width) < 1
        if too_small or self.image_channels not in {1, 3}:
            raise ValueError("impossible sizes")

    @property
    def num_classes(self) -> int:
        """It is unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.bottom_width << (len(self.channels) - 1)


class LSGANGenerator(nn.Module):
    """Latent ``[n, z]`` to images in [-1, 1]."""

    def __init__(self, config: LSGANConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.channels[0], config.channels[-1]
        self.l1 = nn.Sequential(nn.Linear(config.latent_dim, first * config.bottom_width**2))
        layers: list[nn.Module] = [nn.BatchNorm2d(first)] if config.first_norm else []
        for a, b in pairwise(config.channels):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b, config.norm_eps),
                nn.LeakyReLU(config.leak),
            ]
        layers += [nn.Conv2d(last, config.image_channels, 3, padding=1), nn.Tanh()]
        self.conv_blocks = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return ``[n, c, h, w]`` in [-1, 1]."""
        size = self.config.bottom_width
        images: Tensor = self.conv_blocks(self.l1(z).view(len(z), -1, size, size))
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build the generator from a checkpoint."""
    renamed = {
        re.sub(r"^conv_model\.", "conv_blocks.", key): value for key, value in checkpoint.tensors.items()
    }
    checkpoint = completed(checkpoint, renamed)
    config = configure(
        LSGANConfig, checkpoint, inferred=infer(checkpoint.tensors), described=checkpoint.config or {}
    )
    network = LSGANGenerator(config)
    load_weights(network, checkpoint, name="lsgan")
    return PlainGAN(name="lsgan", network=network, checkpoint=checkpoint, options=options)


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what the shapes show: all sizes, and whether there is a first batch norm.

    Raises:
        CheckpointError: the tensors are not those of such a generator.
    """
    kernels = {
        int(name.split(".")[1]): tensor
        for name, tensor in tensors.items()
        if re.fullmatch(r"conv_blocks\.\d+\.weight", name) and tensor.ndim == 4
    }
    ordered, dense = [kernels[number] for number in sorted(kernels)], tensors.get("l1.0.weight")
    if len(ordered) < 2 or dense is None or dense.ndim != 2:
        raise CheckpointError(
            "this is no generator of PyTorch-GAN's LSGAN or DCGAN",
            hint="expected tensors are l1.0.weight, conv_blocks.1.weight, ...",
        )
    first = ordered[0].shape[1]
    return {
        "latent_dim": dense.shape[1],
        "channels": (first, *(kernel.shape[0] for kernel in ordered[:-1])),
        "bottom_width": math.isqrt(dense.shape[0] // first),
        "image_channels": ordered[-1].shape[0],
        "first_norm": "conv_blocks.0.running_mean" in tensors,
    }
