"""The U-Net of pesser/pytorch_diffusion and ermongroup/ddim: DDPM's own, as converted from TensorFlow.

Its traces of TensorFlow: downsampling pads right and bottom only, GroupNorm's eps is 1e-6, and the
frequencies of the time embedding run to 1/10000 inclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.diffusion.community.layers import (
    GROUPS,
    attend_over_positions,
    convolution,
    doubled,
)
from evalkit.generators.diffusion.embedding import sinusoids

_EPSILON = 1e-6


@dataclass(frozen=True)
class DDIMConfig:
    """Architecture and diffusion process; fields are named after the repository's configuration files.

    Up to ``attention_levels`` everything is inferred; the rest comes from a preset or a sidecar.
    """

    ch: int
    levels: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[bool, ...]
    image_size: int
    var_type: str
    beta_schedule: str
    beta_start: float
    beta_end: float
    num_diffusion_timesteps: int


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=_EPSILON)


class Attention(nn.Module):
    """One-headed attention, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        h = self.norm(x)
        added: Tensor = x + self.proj_out(attend_over_positions(self.q(h), self.k(h), self.v(h)))
        return added


class Block(nn.Module):
    """Residual block with the time embedding added between its convolutions."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = convolution(inputs, outputs)
        self.temb_proj = nn.Linear(embedding, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = convolution(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)
        self.projects = inputs != outputs

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h, w]``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.temb_proj(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        added: Tensor = (self.nin_shortcut(x) if self.projects else x) + h
        return added


class Downsample(nn.Module):
    """Convolution of stride 2 over an image padded by one zero at the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width."""
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Double height and width."""
        larger: Tensor = self.conv(doubled(x))
        return larger


class TimeLayers(nn.Module):
    """The two layers behind the sinusoids."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)])

    def forward(self, sinusoids: Tensor) -> Tensor:
        """Map ``[n, width]`` to ``[n, 4 width]``."""
        first, second = self.dense
        embedding: Tensor = second(F.silu(first(sinusoids)))
        return embedding


class Level(nn.Module):
    """The blocks of one resolution, the attention behind each, and the change to the next resolution."""

    def __init__(
        self, inputs: list[int], outputs: int, embedding: int, *, attends: bool, resampling: nn.Module | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(channels, outputs, embedding) for channels in inputs)
        self.attn = nn.ModuleList(Attention(outputs) for _ in inputs) if attends else nn.ModuleList()
        self.resampling = "" if resampling is None else type(resampling).__name__.lower()
        if resampling is not None:
            self.add_module(self.resampling, resampling)

    def resampled(self, x: Tensor) -> Tensor:
        """Pass ``x`` to the next resolution."""
        h: Tensor = self.get_submodule(self.resampling)(x)
        return h

    def step(self, position: int, x: Tensor, embedding: Tensor) -> Tensor:
        """Pass ``x`` through one block and its attention."""
        h: Tensor = self.block[position](x, embedding)
        return self.attn[position](h) if len(self.attn) else h


class Middle(nn.Module):
    """The blocks at the lowest resolution."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.block_1 = Block(channels, channels, embedding)
        self.attn_1 = Attention(channels)
        self.block_2 = Block(channels, channels, embedding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        h: Tensor = self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)
        return h


class DDIMUNet(nn.Module):
    """Noisy image and time step to the predicted noise."""

    def __init__(self, config: DDIMConfig) -> None:
        super().__init__()
        self.config = config
        embedding = 4 * config.ch
        self.temb = TimeLayers(config.ch)
        self.conv_in = convolution(3, config.ch)
        self.down = nn.ModuleList(_way_down(config))
        self.mid = Middle(config.levels[-1], embedding)
        self.up = nn.ModuleList(_way_up(config))
        self.norm_out = _norm(config.levels[0])
        self.conv_out = convolution(config.levels[0], 3)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, 3, h, w]`` for ``x [n, 3, h, w]`` at times ``t [n]``; ``labels`` are not looked at."""
        del labels
        embedding = self.temb(sinusoids(t, self.config.ch))
        left = [self.conv_in(x)]
        for level in cast("Iterable[Level]", self.down):
            for position in range(self.config.num_res_blocks):
                left.append(level.step(position, left[-1], embedding))
            if level.resampling:
                left.append(level.resampled(left[-1]))
        h = self.mid(left[-1], embedding)
        for level in reversed(cast("Sequence[Level]", self.up)):
            for position in range(self.config.num_res_blocks + 1):
                h = level.step(position, torch.cat([h, left.pop()], dim=1), embedding)
            if level.resampling:
                h = level.resampled(h)
        prediction: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return prediction


def _way_down(config: DDIMConfig) -> list[Level]:
    levels, channels = [], config.ch
    for index, outputs in enumerate(config.levels):
        inputs = [channels, *[outputs] * (config.num_res_blocks - 1)]
        levels.append(
            Level(
                inputs,
                outputs,
                4 * config.ch,
                attends=config.attention_levels[index],
                resampling=Downsample(outputs) if index < len(config.levels) - 1 else None,
            )
        )
        channels = outputs
    return levels


def _way_up(config: DDIMConfig) -> list[Level]:
    """Levels from the largest resolution down, as they are numbered; they run in the other order."""
    levels = []
    for index, outputs in enumerate(config.levels):
        below = config.levels[min(index + 1, len(config.levels) - 1)]
        entering = config.levels[index - 1] if index else config.ch
        skips = [*[outputs] * config.num_res_blocks, entering]
        carried = [below, *[outputs] * config.num_res_blocks]
        levels.append(
            Level(
                [a + b for a, b in zip(carried, skips, strict=True)],
                outputs,
                4 * config.ch,
                attends=config.attention_levels[index],
                resampling=Upsample(outputs) if index else None,
            )
        )
    return levels
