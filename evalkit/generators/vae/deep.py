"""VDVAE (Child 2021): a VAE of many groups of latents, coarse to fine, with residual blocks between them.

Names and shapes of the tensors are those of the public code (openai/vdvae). Blocks are strings as there:
``32x11`` eleven blocks at 32 pixels, ``32d2`` one that halves afterwards, ``4m1`` one at 4 pixels that first
takes in the 1-pixel state, enlarged by repeating pixels. ``F.gelu`` is the exact one, by the error function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NO_3X3_UP_TO = 2


@dataclass(frozen=True)
class VDVAEConfig:
    """Sizes in the words of the public code; the strings of blocks are not to be seen in the tensors.

    The encoder takes ``(pixel - pixel_mean) / pixel_deviation`` of values 0..255.
    """

    width: int
    zdim: int
    num_mixtures: int
    enc_blocks: str
    dec_blocks: str
    bottleneck_multiple: float
    image_size: int
    no_bias_above: int
    pixel_mean: float
    pixel_deviation: float

    @property
    def middle(self) -> int:
        """Channels inside a block."""
        return int(self.width * self.bottleneck_multiple)


def parse_blocks(text: str) -> list[tuple[int, int | None, int | None]]:
    """Return (resolution, resolution mixed in, factor of the reduction after it) for each block."""
    blocks: list[tuple[int, int | None, int | None]] = []
    for part in text.split(","):
        if "x" in part:
            resolution, count = part.split("x")
            blocks += [(int(resolution), None, None)] * int(count)
        elif "m" in part:
            resolution, mixed = part.split("m")
            blocks.append((int(resolution), int(mixed), None))
        elif "d" in part:
            resolution, factor = part.split("d")
            blocks.append((int(resolution), None, int(factor)))
        else:
            blocks.append((int(part), None, None))
    return blocks


class Block(nn.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions, a GELU before each; only 1x1 at one or two pixels."""

    def __init__(self, widths: tuple[int, int, int], *, resolution: int) -> None:
        super().__init__()
        inputs, middle, outputs = widths
        kernel = 1 if resolution <= _NO_3X3_UP_TO else 3
        self.c1 = nn.Conv2d(inputs, middle, 1)
        self.c2 = nn.Conv2d(middle, middle, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(middle, middle, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(middle, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h, w]``, without a shortcut."""
        for layer in (self.c1, self.c2, self.c3, self.c4):
            x = layer(F.gelu(x))
        return x


class Encoder(nn.Module):
    """Images to the last activation at each resolution."""

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.plan = parse_blocks(config.enc_blocks)
        w = config.width
        self.in_conv = nn.Conv2d(3, w, 3, padding=1)
        self.enc_blocks = nn.ModuleList(Block((w, config.middle, w), resolution=r) for r, _, _ in self.plan)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map ``[n, 3, h, w]`` to activations by resolution."""
        x = self.in_conv(images)
        found = {x.shape[2]: x}
        for block, (_, _, factor) in zip(self.enc_blocks, self.plan, strict=True):
            x = x + block(x)
            if factor is not None:
                x = F.avg_pool2d(x, factor)
            found[x.shape[2]] = x
        return found


class LatentBlock(nn.Module):
    """One group of latents: prior, posterior (``enc``), and what follows from the drawn z."""

    def __init__(self, config: VDVAEConfig, resolution: int) -> None:
        super().__init__()
        w, middle, self.zdim = config.width, config.middle, config.zdim
        self.enc = Block((2 * w, middle, 2 * self.zdim), resolution=resolution)
        self.prior = Block((w, middle, 2 * self.zdim + w), resolution=resolution)
        self.z_proj = nn.Conv2d(self.zdim, w, 1)
        self.resnet = Block((w, middle, w), resolution=resolution)

    def forward(self, x: Tensor, noise: Tensor | None, encoded: Tensor | None) -> Tensor:
        """Return the state after this group.

        z is ``mean + exp(log deviation) * noise`` of the prior, or of the posterior where the image's
        activations ``encoded`` are given; without ``noise`` it is the mean.
        """
        mean, log_deviation, change = self.prior(x).split([self.zdim, self.zdim, x.shape[1]], dim=1)
        if encoded is not None:
            mean, log_deviation = self.enc(torch.cat([x, encoded], dim=1)).chunk(2, dim=1)
        z = mean if noise is None else mean + log_deviation.exp() * noise
        x = x + change + self.z_proj(z)
        return x + cast("Tensor", self.resnet(x))


class OutNet(nn.Module):
    """The last state to the parameters of the mixture of logistics at each pixel."""

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(config.width, 10 * config.num_mixtures, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, width, h, w]`` to ``[n, h, w, 10 mixtures]``."""
        parameters: Tensor = self.out_conv(x)
        return parameters.permute(0, 2, 3, 1)


class Decoder(nn.Module):
    """Groups of latents from coarse to fine, each resolution starting from a learned bias."""

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.plan = parse_blocks(config.dec_blocks)
        self.dec_blocks = nn.ModuleList(LatentBlock(config, resolution) for resolution, _, _ in self.plan)
        resolutions = sorted({resolution for resolution, _, _ in self.plan})
        self.bias_xs = nn.ParameterList(
            nn.Parameter(torch.zeros(1, config.width, r, r)) for r in resolutions if r <= config.no_bias_above
        )
        self.out_net = OutNet(config)
        self.gain = nn.Parameter(torch.ones(1, config.width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, config.width, 1, 1))

    def forward(
        self, n: int, noise: list[Tensor] | None, activations: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Return the parameters ``[n, h, w, 10 mixtures]`` of each pixel.

        Args:
            n: images.
            noise: one normal ``[n, zdim, r, r]`` for each block; None takes the mean of every latent.
            activations: of the encoder, for the posterior; None draws from the prior.
        """
        states = {bias.shape[2]: bias.expand(n, -1, -1, -1) for bias in self.bias_xs}
        for index, (block, (resolution, mixed, _)) in enumerate(zip(self.dec_blocks, self.plan, strict=True)):
            x = states.get(resolution)
            if x is None:
                x = self.gain.new_zeros(n, self.config.width, resolution, resolution)
            if mixed is not None:
                x = x + F.interpolate(states[mixed], scale_factor=resolution // mixed, mode="nearest")
            encoded = None if activations is None else activations[resolution]
            states[resolution] = block(x, None if noise is None else noise[index], encoded)
        parameters: Tensor = self.out_net(states[self.config.image_size] * self.gain + self.bias)
        return parameters


class VDVAE(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
