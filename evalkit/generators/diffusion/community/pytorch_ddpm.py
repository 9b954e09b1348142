"""The U-Net of w86763777/pytorch-ddpm: DDPM's, with a stored table of time embeddings and even padding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalkit.generators.diffusion.community.layers import (
    GROUPS,
    attend_over_positions,
    convolution,
    doubled,
)


@dataclass(frozen=True)
class PytorchDDPMConfig:
    """Architecture and diffusion process; fields are named after the program's flags.

    Up to ``T`` everything is inferred; the rest comes from a preset or a sidecar (see the program's
    ``flagfile.txt``).
    """

    ch: int
    levels: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[bool, ...]
    T: int
    img_size: int
    beta_1: float
    beta_T: float  # noqa: N815 - the program's own flag
    mean_type: str
    var_type: str


def time_table(steps: int, width: int) -> Tensor:
    """Return float32 ``[steps, width]``: sin and cos interleaved, of t 10000^(-2 i / width).

    Checkpoints store the table; this is what it holds.
    """
    frequencies = torch.exp(-torch.arange(0, width, 2) / width * math.log(10000))
    angles = torch.arange(steps, dtype=torch.float32)[:, None] * frequencies[None]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TimeEmbedding(nn.Module):
    """A row of the table through two layers."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(time_table(steps, width)),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, 4 * width),
        )

    def forward(self, t: Tensor) -> Tensor:
        """Return ``[n, 4 width]`` for whole steps ``t [n]`` of any type."""
        embedding: Tensor = self.timembedding(t.round().long())
        return embedding


class Attention(nn.Module):
    """One-headed attention, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, channels)
        self.proj_q = nn.Conv2d(channels, channels, 1)
        self.proj_k = nn.Conv2d(channels, channels, 1)
        self.proj_v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        h = self.group_norm(x)
        attended = attend_over_positions(self.proj_q(h), self.proj_k(h), self.proj_v(h))
        added: Tensor = x + self.proj(attended)
        return added


class Block(nn.Module):
    """Residual block with the time embedding added between its convolutions, then attention where wanted."""

    def __init__(self, inputs: int, outputs: int, embedding: int, *, attends: bool) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(), convolution(inputs, outputs))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs))
        self.block2 = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Identity(), convolution(outputs, outputs)
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attn = Attention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h, w]``."""
        h = self.block1(x) + self.temb_proj(embedding)[:, :, None, None]
        attended: Tensor = self.attn(self.block2(h) + self.shortcut(x))
        return attended


class Halve(nn.Module):
    """Convolution of stride 2, padded by 1 on every side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Halve height and width; the embedding is not looked at."""
        del embedding
        halved: Tensor = self.main(x)
        return halved


class Double(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = convolution(channels, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Double height and width; the embedding is not looked at."""
        del embedding
        larger: Tensor = self.main(doubled(x))
        return larger


class PytorchDDPMUNet(nn.Module):
    """Noisy image and whole time step to the prediction."""

    def __init__(self, config: PytorchDDPMConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embedding = TimeEmbedding(config.T, config.ch)
        self.head = convolution(3, config.ch)
        lowest, embedding = config.levels[-1], 4 * config.ch
        down, left = _way_down(config)
        self.downblocks = nn.ModuleList(down)
        self.middleblocks = nn.ModuleList(
            [
                Block(lowest, lowest, embedding, attends=True),
                Block(lowest, lowest, embedding, attends=False),
            ]
        )
        self.upblocks = nn.ModuleList(_way_up(config, left))
        self.tail = nn.Sequential(
            nn.GroupNorm(GROUPS, config.levels[0]), nn.SiLU(), convolution(config.levels[0], 3)
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``[n, 3, h, w]`` for ``x [n, 3, h, w]`` at steps ``t [n]``; ``labels`` are not looked at."""
        del labels
        embedding = self.time_embedding(t)
        h = self.head(x)
        left = [h]
        for layer in self.downblocks:
            h = layer(h, embedding)
            left.append(h)
        for layer in self.middleblocks:
            h = layer(h, embedding)
        for layer in self.upblocks:
            seen = torch.cat([h, left.pop()], dim=1) if isinstance(layer, Block) else h
            h = layer(seen, embedding)
        prediction: Tensor = self.tail(h)
        return prediction


def _way_down(config: PytorchDDPMConfig) -> tuple[Iterable[nn.Module], list[int]]:
    layers: list[nn.Module] = []
    channels, left = config.ch, [config.ch]
    for level, outputs in enumerate(config.levels):
        for _ in range(config.num_res_blocks):
            layers.append(Block(channels, outputs, 4 * config.ch, attends=config.attention_levels[level]))
            channels = outputs
            left.append(channels)
        if level < len(config.levels) - 1:
            layers.append(Halve(channels))
            left.append(channels)
    return layers, left


def _way_up(config: PytorchDDPMConfig, left: list[int]) -> Iterable[nn.Module]:
    layers: list[nn.Module] = []
    channels, waiting = config.levels[-1], list(left)
    for level in reversed(range(len(config.levels))):
        outputs, attends = config.levels[level], config.attention_levels[level]
        for _ in range(config.num_res_blocks + 1):
            layers.append(Block(channels + waiting.pop(), outputs, 4 * config.ch, attends=attends))
            channels = outputs
        if level:
            layers.append(Double(channels))
    return layers
