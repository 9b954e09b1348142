"""Layers of the denoising U-Net in the package denoising-diffusion-pytorch, 2.x.

Root mean square norms in place of group norms, a few learned keys and values that every position may attend
to, and attention that is linear in the number of positions (Shen et al. 2021) but at the coarsest size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.diffusion.embedding import sinusoids


class SinusoidalEmbedding(nn.Module):
    """Time to :func:`~evalkit.generators.diffusion.embedding.sinusoids` of base ``theta``."""

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.width, self.theta = width, theta

    def forward(self, t: Tensor) -> Tensor:
        """Map float ``[n]`` to float32 ``[n, width]``."""
        return sinusoids(t, self.width, base=self.theta)


class ChannelNorm(nn.Module):
    """``g sqrt(c) x / ||x||`` over the c channels of each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape."""
        normed: Tensor = F.normalize(x, dim=1)
        return normed * self.g * math.sqrt(self.g.shape[1])


class ConvBlock(nn.Module):
    """3x3 convolution, norm, scale and shift by the time, SiLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, after, 3, padding=1)
        self.norm = ChannelNorm(after)

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Map ``[n, before, h, w]`` to ``[n, after, h, w]``; ``modulation`` is (scale, shift)."""
        x = self.norm(self.proj(x))
        if modulation is not None:
            x = x * (1 + modulation[0]) + modulation[1]
        return F.silu(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks, the first of them modulated, beside a shortcut."""

    def __init__(self, before: int, after: int, *, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * after))
        self.block1 = ConvBlock(before, after)
        self.block2 = ConvBlock(after, after)
        self.res_conv = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map ``[n, before, h, w]`` and the time's embedding ``[n, time_width]`` to ``[n, after, h, w]``."""
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)
        hidden = self.block2(self.block1(x, (scale, shift)))
        out: Tensor = self.res_conv(x) + hidden
        return out


class Attention(nn.Module):
    """Softmax attention between all positions, with learned keys and values before those of the positions."""

    def __init__(self, channels: int, *, heads: int, head_width: int, memories: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.norm = ChannelNorm(channels)
        self.mem_kv = nn.Parameter(torch.randn(2, heads, memories, head_width))
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape; the shortcut is the caller's."""
        n, _, h, w = x.shape
        _, heads, _, width = self.mem_kv.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(n, 3, heads, width, h * w).transpose(3, 4).unbind(1)
        k, v = (
            torch.cat([memory.expand(n, -1, -1, -1), own], dim=2)
            for memory, own in zip(self.mem_kv, (k, v), strict=True)
        )
        weights = (q @ k.transpose(2, 3) * width**-0.5).softmax(dim=3)
        mixed = (weights @ v).transpose(2, 3).reshape(n, heads * width, h, w)
        out: Tensor = self.to_out(mixed)
        return out


class LinearAttention(nn.Module):
    """Attention through a ``[width, width]`` summary; softmax over features of q, places of k."""

    def __init__(self, channels: int, *, heads: int, head_width: int, memories: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.norm = ChannelNorm(channels)
        self.mem_kv = nn.Parameter(torch.randn(2, heads, head_width, memories))
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, channels, 1), ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, c, h, w]`` to the same shape; the shortcut is the caller's."""
        n, _, h, w = x.shape
        _, heads, width, _ = self.mem_kv.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(n, 3, heads, width, h * w).unbind(1)
        k, v = (
            torch.cat([memory.expand(n, -1, -1, -1), own], dim=3)
            for memory, own in zip(self.mem_kv, (k, v), strict=True)
        )
        summary = k.softmax(dim=3) @ v.transpose(2, 3)
        mixed = summary.transpose(2, 3) @ (q.softmax(dim=2) * width**-0.5)
        out: Tensor = self.to_out(mixed.reshape(n, heads * width, h, w))
        return out
