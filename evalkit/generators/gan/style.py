"""Class-conditional style-based generator: z -> mapping network -> w -> modulated synthesis (StyleGAN2).

Karras, Laine, Aittala, Hellsten, Lehtinen & Aila 2020, at 32 pixels and with one w for all layers. The label
is embedded, normalised and joined to the normalised z, as in Karras et al. 2020 (ADA), appendix C. The
image is the sum of one up-sampled RGB contribution for each resolution ("skip" architecture).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from evalkit.generators.gan.style_layers import (
    EqualisedLinear,
    StyleConv,
    ToRGB,
    leaky,
    normalise_second_moment,
    upsample,
)

MAPPING_RATE = 0.01
"""Learning rate of the mapping network relative to the others (Karras et al. 2019, appendix C)."""


@dataclass(frozen=True)
class StyleGANConfig:
    """Sizes; the image starts at 4 pixels and doubles for each further entry of ``channels``."""

    latent_dim: int = 128
    style_dim: int = 128
    mapping_layers: int = 4
    num_classes: int = 10
    channels: tuple[int, ...] = (256, 192, 96, 48)

    def __post_init__(self) -> None:
        """Refuse sizes that no network has.

        Raises:
            ValueError: a size is below 1 (the number of classes may be 0, for none).
        """
        sizes = (self.latent_dim, self.style_dim, self.mapping_layers, len(self.channels), *self.channels)
        if min(sizes) < 1 or self.num_classes < 0:
            raise ValueError(f"impossible sizes: {self}")

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return 4 << (len(self.channels) - 1)

    @property
    def noise_sizes(self) -> tuple[int, ...]:
        """Height of the noise image of each convolution: one at 4 pixels, two at every later size."""
        return (4, *(4 << i for i in range(1, len(self.channels)) for _ in range(2)))

    @property
    def noise_numbers(self) -> int:
        """Normal numbers that one image's noise takes."""
        return sum(size**2 for size in self.noise_sizes)


class MappingNetwork(nn.Module):
    """Normalised latent (and class embedding) to w, with the centre of w of each class for truncation."""

    centre: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        classes = config.num_classes
        self.embed = EqualisedLinear(classes, config.latent_dim) if classes else None
        widths = [config.latent_dim * (2 if classes else 1)] + [config.style_dim] * config.mapping_layers
        self.layers = nn.ModuleList(EqualisedLinear(a, b, rate=MAPPING_RATE) for a, b in pairwise(widths))
        self.register_buffer("centre", torch.zeros(max(classes, 1), config.style_dim))

    def forward(self, z: Tensor, labels: Tensor | None, *, truncation: float = 1.0) -> Tensor:
        """Map z ``[n, d]`` to w, float32 ``[n, d_w]``, drawn towards the class's centre by ``truncation``.

        ``w' = centre + psi (w - centre)`` (Karras et al. 2019, appendix B).
        """
        with torch.autocast(z.device.type, enabled=False):
            x = normalise_second_moment(z.float())
            if self.embed is not None and labels is not None:
                classes = nn.functional.one_hot(labels, len(self.centre)).float()
                x = torch.cat([x, normalise_second_moment(self.embed(classes))], dim=1)
            for layer in self.layers:
                x = leaky(layer(x))
            if truncation == 1.0:
                return x
            return self._centre_of(labels, len(x)).lerp(x, truncation)

    def _centre_of(self, labels: Tensor | None, n: int) -> Tensor:
        return self.centre.expand(n, -1) if labels is None else self.centre[labels]


class SynthesisNetwork(nn.Module):
    """w and noise to images: a learned 4x4 constant, then two modulated convolutions at every size."""

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        first, d = config.channels[0], config.style_dim
        self.constant = nn.Parameter(torch.randn(1, first, 4, 4))
        convs = [StyleConv(first, first, style_dim=d)]
        for a, b in pairwise(config.channels):
            convs += [StyleConv(a, b, style_dim=d, up=True), StyleConv(b, b, style_dim=d)]
        self.convs = nn.ModuleList(convs)
        self.to_rgb = nn.ModuleList(ToRGB(channels, style_dim=d) for channels in config.channels)

    def forward(self, w: Tensor, noise: Tensor) -> Tensor:
        """Map w ``[n, d_w]`` and noise ``[n, noise_numbers]`` to float32 images ``[n, 3, h, w]``."""
        n = len(w)
        sizes = self.config.noise_sizes
        planes = [
            part.view(n, 1, size, size)
            for part, size in zip(noise.split([s * s for s in sizes], dim=1), sizes, strict=True)
        ]
        x = self.constant.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.convs[0](x, w, planes[0])
        image: Tensor = self.to_rgb[0](x, w)
        for stage in range(1, len(self.to_rgb)):
            first, second = 2 * stage - 1, 2 * stage
            x = self.convs[first](x, w, planes[first])
            x = self.convs[second](x, w, planes[second])
            image = upsample(image) + self.to_rgb[stage](x, w)
        return image


class StyleGANGenerator(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(self, z: Tensor, labels: Tensor | None, noise: Tensor) -> Tensor:
        """Return ``[n, 3, h, w]`` in about [-1, 1], without truncation."""
        images: Tensor = self.synthesis(self.mapping(z, labels), noise)
        return images
