"""The U-Net of denoising-diffusion-pytorch 2.x, and the buffers that its files hold beside the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from evalkit.errors import CheckpointError
from evalkit.generators.diffusion.lucidrains.layers import (
    Attention,
    LinearAttention,
    ResidualBlock,
    SinusoidalEmbedding,
)
from evalkit.generators.diffusion.process import Prediction

BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "loss_weight",
)
"""What the file holds of the process, each ``[T]``; ``betas`` and ``loss_weight`` say all of it."""


@dataclass(frozen=True)
class LucidrainsConfig:
    """Sizes of the U-Net, and what its files do not say.

    Attributes:
        resolution: height and width of the images; the network runs at any.
        theta: base of the time embedding's frequencies (10000 unless the author changed it).
        auto_normalize: whether images are mapped from [0, 1] to [-1, 1] in training (the package's default).
        objective: what is predicted; ``loss_weight`` shows it.
        timesteps: length of the process.
        embedding: width of the sinusoidal embedding.
        time_width: width of the time's hidden layers.
        channels: of the first convolution and after each stage.
        attention: ``linear`` or ``full`` for each stage; the middle is full.
        heads: for each stage, and the middle.
        head_widths: for each stage, and the middle.
        memories: learned keys and values of each attention.
        out_channels: 3, or 6 where the variance is learned.
    """

    resolution: int
    theta: float
    auto_normalize: bool
    objective: Prediction
    timesteps: int
    embedding: int
    time_width: int
    channels: tuple[int, ...]
    attention: tuple[str, ...]
    heads: tuple[int, ...]
    head_widths: tuple[int, ...]
    memories: int
    out_channels: int

    def __post_init__(self) -> None:
        """Refuse what no such network is, and data in [0, 1].

        Raises:
            CheckpointError: sizes do not go together.
        """
        stages = len(self.channels) - 1
        if not self.auto_normalize:
            raise CheckpointError("models trained on [0, 1] (auto_normalize=False) are not served")
        if stages < 1 or len(self.attention) != stages or not set(self.attention) <= {"linear", "full"}:
            raise CheckpointError(f"impossible stages: {self}")
        if not len(self.heads) == len(self.head_widths) == stages + 1:
            raise CheckpointError(f"one number of heads for each stage and the middle: {self}")
        if self.resolution < 1 or self.resolution % 2 ** (stages - 1):
            raise CheckpointError(
                f"{stages} stages need a resolution that {2 ** (stages - 1)} divides, not {self.resolution}"
            )
        if self.theta <= 1 or self.embedding < 4:
            raise CheckpointError(f"impossible time embedding: {self}")


class UNet(nn.Module):
    """Image and step to a prediction ``[n, out_channels, h, w]``."""

    def __init__(self, config: LucidrainsConfig) -> None:
        super().__init__()
        first, last, width = config.channels[0], config.channels[-1], config.time_width
        self.init_conv = nn.Conv2d(3, first, 7, padding=3)
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(config.embedding, config.theta),
            nn.Linear(config.embedding, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        stages = list(enumerate(pairwise(config.channels)))
        self.downs = nn.ModuleList(_down(config, i, a, b) for i, (a, b) in stages)
        self.ups = nn.ModuleList(_up(config, i, a, b) for i, (a, b) in reversed(stages))
        self.mid_block1 = ResidualBlock(last, last, time_width=width)
        self.mid_attn = Attention(
            last, heads=config.heads[-1], head_width=config.head_widths[-1], memories=config.memories
        )
        self.mid_block2 = ResidualBlock(last, last, time_width=width)
        self.final_res_block = ResidualBlock(2 * first, first, time_width=width)
        self.final_conv = nn.Conv2d(first, config.out_channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map float ``[n, 3, h, w]`` at steps ``[n]`` to the prediction."""
        time = self.time_mlp(t)
        x = first = self.init_conv(x)
        shortcuts: list[Tensor] = []
        for stage in self.downs:
            block1, block2, attention, down = cast("Iterable[nn.Module]", stage)
            x = block1(x, time)
            shortcuts.append(x)
            x = block2(x, time)
            x = attention(x) + x
            shortcuts.append(x)
            x = down(x)
        x = self.mid_block1(x, time)
        x = self.mid_block2(self.mid_attn(x) + x, time)
        for stage in self.ups:
            block1, block2, attention, up = cast("Iterable[nn.Module]", stage)
            x = block1(torch.cat([x, shortcuts.pop()], dim=1), time)
            x = block2(torch.cat([x, shortcuts.pop()], dim=1), time)
            x = up(attention(x) + x)
        out: Tensor = self.final_conv(self.final_res_block(torch.cat([x, first], dim=1), time))
        return out


class LucidrainsDiffusion(nn.Module):
    """The U-Net under the names of the public files, with their buffers."""

    def __init__(self, config: LucidrainsConfig) -> None:
        super().__init__()
        self.config = config
        self.model = UNet(config)
        for name in BUFFERS:
            self.register_buffer(name, torch.zeros(config.timesteps))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002 - no classes
        """Return the prediction ``[n, out_channels, h, w]`` for ``x [n, 3, h, w]`` at steps ``t [n]``."""
        out: Tensor = self.model(x, t)
        return out


def _down(config: LucidrainsConfig, stage: int, before: int, after: int) -> nn.ModuleList:
    coarsest = stage == len(config.channels) - 2
    # Space to depth: the four pixels of a 2x2 square become channels of one, so that none is dropped.
    smaller = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * before, after, 1))
    return nn.ModuleList(
        [
            ResidualBlock(before, before, time_width=config.time_width),
            ResidualBlock(before, before, time_width=config.time_width),
            _attention(config, stage, before),
            nn.Conv2d(before, after, 3, padding=1) if coarsest else smaller,
        ]
    )


def _up(config: LucidrainsConfig, stage: int, before: int, after: int) -> nn.ModuleList:
    # ``before`` and ``after`` are those of the way down: here the stage leads from ``after`` to ``before``.
    larger = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(after, before, 3, padding=1))
    return nn.ModuleList(
        [
            ResidualBlock(after + before, after, time_width=config.time_width),
            ResidualBlock(after + before, after, time_width=config.time_width),
            _attention(config, stage, after),
            nn.Conv2d(after, before, 3, padding=1) if stage == 0 else larger,
        ]
    )


def _attention(config: LucidrainsConfig, stage: int, channels: int) -> nn.Module:
    kind = Attention if config.attention[stage] == "full" else LinearAttention
    return kind(
        channels,
        heads=config.heads[stage],
        head_width=config.head_widths[stage],
        memories=config.memories,
    )
