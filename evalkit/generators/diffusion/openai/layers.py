"""Blocks of the U-Nets of improved-diffusion and guided-diffusion.

Nichol & Dhariwal 2021 (improved DDPM) and Dhariwal & Nichol 2021 (diffusion models beat GANs). Parameter
names are those of the public checkpoints. Dropout keeps its place in the numbering, and does nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Resample = Literal["none", "up", "down"]
_GROUPS = 32


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Return float32 ``[n, width]``: [cos(t f), sin(t f)], f_i = 10000^(-i / half), i < half = width // 2.

    ``t`` is float ``[n]`` and may be fractional. An odd ``width`` ends in a zero.
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    )
    angles = t[:, None].float() * frequencies[None]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(qᵀk / sqrt(d)) applied to the values; all are ``[n, d, tokens]``.

    Queries and keys are each scaled by d^(-1/4), which keeps half precision in range; the softmax is float32.
    """
    scale = queries.shape[1] ** -0.25
    logits = (queries * scale).transpose(1, 2) @ (keys * scale)
    weights = torch.softmax(logits.float(), dim=-1).to(values.dtype)
    return values @ weights.transpose(1, 2)


def attend_heads(qkv: Tensor, heads: int, *, new_order: bool) -> Tensor:
    """Return ``[n, c, tokens]`` of packed ``qkv [n, 3 c, tokens]``.

    The new order packs channels as [q, k, v][head][d]; the older code, and all of improved-diffusion, as
    [head][q, k, v][d]. With one head both are the same.
    """
    n, width, tokens = qkv.shape
    if new_order:
        queries, keys, values = (part.reshape(n * heads, -1, tokens) for part in qkv.chunk(3, dim=1))
    else:
        queries, keys, values = qkv.reshape(n * heads, -1, tokens).chunk(3, dim=1)
    return attend(queries, keys, values).reshape(n, width // 3, tokens)


class GroupNorm32(nn.GroupNorm):
    """Group normalisation over 32 groups, eps 1e-5, computed in float32 whatever the input's type."""

    def __init__(self, channels: int) -> None:
        super().__init__(_GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name for it
        """Normalise in float32 and return the input's type."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).to(input.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions around the time embedding, either of which resampling may precede.

    ``scale_shift`` modulates the second normalisation by (1 + scale) and shift; otherwise the embedding is
    added. Resampling blocks (guided-diffusion) resize without parameters, between activation and convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, scale_shift: bool, resample: Resample = "none"
    ) -> None:
        super().__init__()
        self.outputs, self.scale_shift, self.resample = outputs, scale_shift, resample
        self.in_layers = nn.Sequential(
            GroupNorm32(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(
            GroupNorm32(outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``x [n, inputs, h, w]`` with ``embedding [n, e]`` to ``[n, outputs, h', w']``."""
        norm, activation, convolution = self.in_layers
        h = convolution(_resized(activation(norm(x)), self.resample))
        modulation = self.emb_layers(embedding)[:, :, None, None].to(h.dtype)
        norm, activation, dropout, convolution = self.out_layers
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + modulation)
        h = convolution(dropout(activation(h)))
        residual: Tensor = self.skip_connection(_resized(x, self.resample)) + h
        return residual


def _resized(x: Tensor, resample: Resample) -> Tensor:
    if resample == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(x, 2) if resample == "down" else x


class AttentionBlock(nn.Module):
    """Multi-head self-attention over all positions, added to its input."""

    def __init__(self, channels: int, *, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        flat = x.flatten(2)
        attended = attend_heads(self.qkv(self.norm(flat)), self.heads, new_order=self.new_order)
        added: Tensor = flat + self.proj_out(attended)
        return added.reshape(x.shape)


class AttentionPool(nn.Module):
    """The mean and all positions attend to each other, and the mean's answer is read off (as in CLIP).

    Always in the new order of queries, keys and values.
    """

    def __init__(self, side: int, channels: int, *, head_channels: int, outputs: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.positional_embedding = nn.Parameter(torch.zeros(channels, side**2 + 1))
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, side, side]`` to ``[n, outputs]``."""
        flat = x.flatten(2)
        tokens = torch.cat([flat.mean(dim=-1, keepdim=True), flat], dim=-1)
        tokens = tokens + self.positional_embedding[None].to(tokens.dtype)
        answer: Tensor = self.c_proj(attend_heads(self.qkv_proj(tokens), self.heads, new_order=True))
        return answer[:, :, 0]


class Downsample(nn.Module):
    """Convolution of stride 2, padded by 1 on every side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width."""
        halved: Tensor = self.op(x)
        return halved


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double height and width."""
        doubled: Tensor = self.conv(_resized(x, "up"))
        return doubled
