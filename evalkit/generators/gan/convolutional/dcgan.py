"""DCGAN (Radford, Metz & Chintala 2016): transposed convolutions from z ``[n, d, 1, 1]`` to the image.

Names are those of the PyTorch examples: one sequence ``main`` of numbered layers. The repository of
Wasserstein GAN (Arjovsky et al. 2017) has the same network under speaking names, with further 3x3 layers
before the last where asked, or without batch norm; :func:`numbered` turns its names into numbers.
"""

from __future__ import annotations

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

_NAMED = re.compile(
    r"main\.(?P<group>initial|pyramid|final|extra-layers-(?P<extra>\d+))[.:](?P<sizes>\d+(?:-\d+)?)[.:]"
    r"(?P<kind>convt|conv|batchnorm)\.(?P<tensor>\w+)"
)


@dataclass(frozen=True)
class DCGANConfig:
    """Sizes of the generator.

    Attributes:
        latent_dim: numbers in z.
        channels: of the 4x4 feature map and of each doubling but the last.
        image_channels: 3, or 1 for grey images.
        extra_layers: number of 3x3 convolutions before the last layer.
        batch_norm: whether every layer but the last is normalised.
    """

    latent_dim: int
    channels: tuple[int, ...]
    image_channels: int
    extra_layers: int
    batch_norm: bool

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        if not self.channels or min(*self.channels, self.latent_dim) < 1 or self.image_channels not in {1, 3}:
            raise ValueError("impossible sizes")

    @property
    def num_classes(self) -> int:
        """It is unconditional."""
        return 0

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 4 << len(self.channels)


class DCGANGenerator(nn.Module):
    """Latent ``[n, z]`` to images in [-1, 1]."""

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        self.config = config
        widths, layers = config.channels, list[nn.Module]()
        first = nn.ConvTranspose2d(config.latent_dim, widths[0], 4, bias=False)
        self._append(layers, first, widths[0])
        for a, b in pairwise(widths):
            self._append(layers, nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False), b)
        last = widths[-1]
        for _ in range(config.extra_layers):
            self._append(layers, nn.Conv2d(last, last, 3, padding=1, bias=False), last)
        layers.append(
            nn.ConvTranspose2d(last, config.image_channels, 4, stride=2, padding=1, bias=False),
        )
        self.main = nn.Sequential(*layers, nn.Tanh())

    def _append(self, layers: list[nn.Module], convolution: nn.Module, width: int) -> None:
        norm = [nn.BatchNorm2d(width)] if self.config.batch_norm else []
        layers += [convolution, *norm, nn.ReLU()]

    def forward(self, z: Tensor) -> Tensor:
        """Return ``[n, c, h, w]`` in [-1, 1]."""
        images: Tensor = self.main(z[:, :, None, None])
        return images


def build(checkpoint: Checkpoint, options: SamplingOptions) -> PlainGAN:
    """Build the generator from a checkpoint."""
    checkpoint = completed(checkpoint, numbered(checkpoint.tensors))
    config = configure(
        DCGANConfig, checkpoint, inferred=infer(checkpoint.tensors), described=checkpoint.config or {}
    )
    network = DCGANGenerator(config)
    load_weights(network, checkpoint, name="dcgan")
    return PlainGAN(name="dcgan", network=network, checkpoint=checkpoint, options=options)


def numbered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` under numbered names where they have the speaking ones of the WGAN repository.

    ``main.initial:100-512:convt.weight`` becomes ``main.0.weight``. Older files have dots for the colons.
    """
    matches = {name: match for name in tensors if (match := _NAMED.fullmatch(name))}
    if len(matches) != len(tensors):
        return dict(tensors)
    places = sorted({_place(match) for match in matches.values()})
    normalised = any(match["kind"] == "batchnorm" for match in matches.values())
    width = 3 if normalised else 2  # a convolution, its norm, its activation
    return {
        f"main.{places.index(_place(match)) * width + (match['kind'] == 'batchnorm')}.{match['tensor']}": (
            tensors[name]
        )
        for name, match in matches.items()
    }


def _place(match: re.Match[str]) -> tuple[int, int]:
    """Sort key of a layer: the first, the doublings by falling width, further layers, the last."""
    if match["extra"] is not None:
        return 2, int(match["extra"])
    group = {"initial": 0, "pyramid": 1, "final": 3}[match["group"]]
    return group, -int(match["sizes"].split("-")[-1]) if group == 1 else 0


def infer(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the whole configuration: shapes show all of it.

    Raises:
        CheckpointError: the tensors are not those of a DCGAN.
    """
    kernels = {
        int(name.split(".")[1]): tensor
        for name, tensor in tensors.items()
        if re.fullmatch(r"main\.\d+\.weight", name) and tensor.ndim == 4
    }
    ordered = [kernels[number] for number in sorted(kernels)]
    extra = [kernel for kernel in ordered if kernel.shape[-1] == 3]
    ladder = [kernel for kernel in ordered if kernel.shape[-1] == 4]
    if len(ladder) < 2 or len(extra) + len(ladder) != len(ordered):
        raise CheckpointError(
            "this is no DCGAN generator", hint="expected tensors are main.0.weight [z, c, 4, 4], ..."
        )
    return {
        "latent_dim": ladder[0].shape[0],
        "channels": tuple(kernel.shape[1] for kernel in ladder[:-1]),
        "image_channels": ladder[-1].shape[1],
        "extra_layers": len(extra),
        "batch_norm": any(name.endswith("running_mean") for name in tensors),
    }
