"""Building blocks of the networks of Karras et al. 2022, appendix F: one block for DDPM++, NCSN++ and ADM.

Up- and downsampling is a fixed separable filter applied to every channel by itself, beside the convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TAPS = {2: (1.0, 1.0), 4: (1.0, 3.0, 3.0, 1.0)}


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """What a network's blocks have in common.

    Attributes:
        embedding: width of the embedding of noise level and class.
        adaptive_scale: the embedding scales and shifts the second norm (ADM), or is added before it.
        skip_scale: factor after each sum.
        eps: of the group norms.
        filter_size: taps of the resampling filter: 2 a box, 4 the binomial filter.
        project_skips: a resampled shortcut has a 1x1 convolution even where the width stays.
        head_width: of the attention; 0 for a single head.
    """

    embedding: int
    adaptive_scale: bool
    skip_scale: float
    eps: float
    filter_size: int
    project_skips: bool
    head_width: int


def group_norm(channels: int, *, eps: float) -> nn.GroupNorm:
    """Return a norm over 32 groups, or fewer so that each has at least 4 channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


def resampling_filter(size: int) -> Tensor:
    """Return float32 ``[1, 1, size, size]`` that sums to 1; zeros where the file must bring the taps."""
    taps = torch.tensor(_TAPS.get(size, (0.0,) * size))
    total = taps.sum().square().clamp(min=1.0)
    return torch.outer(taps, taps)[None, None] / total


class ResamplingConv(nn.Module):
    """A convolution, with the filter at stride 2 before it (``down``) or its transpose (``up``).

    ``kernel`` 0 leaves the filter alone. ``filter_last`` convolves first, which differs at the border:
    NCSN++'s residual inputs do.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        filter_size: int = 2,
        filter_last: bool = False,
    ) -> None:
        super().__init__()
        self.up, self.down, self.filter_last = up, down, filter_last
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(after)) if kernel else None
        self.register_buffer("resample_filter", resampling_filter(filter_size) if up or down else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, before, h, w]`` to ``[n, after, h', w']``."""
        f = self.resample_filter
        if f is None:
            return self._convolve(x, 0)
        reach = (f.shape[-1] - 1) // 2
        if self.up:
            kernels = (4 * f).expand(x.shape[1], -1, -1, -1)
            x = F.conv_transpose2d(x, kernels, stride=2, padding=reach, groups=x.shape[1])
            return self._convolve(x, 0)
        if self.filter_last:
            return self._halve(self._convolve(x, reach), f, 0)
        return self._convolve(self._halve(x, f, reach), 0)

    def _convolve(self, x: Tensor, extra: int) -> Tensor:
        if self.weight is None:
            return x
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2 + extra)

    @staticmethod
    def _halve(x: Tensor, f: Tensor, padding: int) -> Tensor:
        kernels = f.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernels, stride=2, padding=padding, groups=x.shape[1])


class UNetBlock(nn.Module):
    """Norm, convolution, embedding, norm, convolution and shortcut; then attention where asked for."""

    def __init__(
        self,
        before: int,
        after: int,
        style: BlockStyle,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.style = style
        resampled = up or down
        size = style.filter_size
        self.norm0 = group_norm(before, eps=style.eps)
        self.conv0 = ResamplingConv(before, after, 3, up=up, down=down, filter_size=size)
        self.affine = nn.Linear(style.embedding, after * (2 if style.adaptive_scale else 1))
        self.norm1 = group_norm(after, eps=style.eps)
        self.conv1 = ResamplingConv(after, after, 3)
        self.skip = None
        if resampled or before != after:
            kernel = 1 if style.project_skips or before != after else 0
            self.skip = ResamplingConv(before, after, kernel, up=up, down=down, filter_size=size)
        self.heads = 0
        if attention:
            self.heads = after // style.head_width if style.head_width else 1
        if self.heads:
            self.norm2 = group_norm(after, eps=style.eps)
            self.qkv = ResamplingConv(after, 3 * after, 1)
            self.proj = ResamplingConv(after, after, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map ``[n, before, h, w]`` and ``[n, embedding]`` to ``[n, after, h', w']``."""
        hidden = self.conv0(F.silu(self.norm0(x)))
        change = self.affine(embedding)[:, :, None, None]
        if self.style.adaptive_scale:
            scale, shift = change.chunk(2, dim=1)
            hidden = shift + self.norm1(hidden) * (1 + scale)
        else:
            hidden = self.norm1(hidden + change)
        hidden = self.conv1(F.silu(hidden))
        shortcut = x if self.skip is None else self.skip(x)
        x = (hidden + shortcut) * self.style.skip_scale
        return (self._attend(x) + x) * self.style.skip_scale if self.heads else x

    def _attend(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # The 3 c channels are ordered head, then channel, then query, key, value.
        q, k, v = self.qkv(self.norm2(x)).reshape(n, self.heads, c // self.heads, 3, h * w).unbind(3)
        weights = (q.transpose(2, 3) @ (k / math.sqrt(c // self.heads))).softmax(dim=3)
        mixed = v @ weights.transpose(2, 3)
        out: Tensor = self.proj(mixed.reshape(n, c, h, w))
        return out


class PositionalEmbedding(nn.Module):
    """Noise level to ``x 10000^(-k / (half - endpoint))``, k = 0 .. half - 1, and its sines and cosines.

    ``sines_first`` gives [sin, cos] (DDPM++), otherwise [cos, sin] (ADM).
    """

    def __init__(self, width: int, *, endpoint: bool, sines_first: bool) -> None:
        super().__init__()
        self.pairs, self.endpoint, self.sines_first = width // 2, endpoint, sines_first

    def forward(self, noise: Tensor) -> Tensor:
        """Map float32 ``[n]`` to ``[n, width]``."""
        place = torch.arange(self.pairs, device=noise.device, dtype=torch.float32)
        place = place / (self.pairs - 1 if self.endpoint else self.pairs)
        angle = noise[:, None] * (1 / 10000) ** place
        return torch.cat(
            [angle.sin(), angle.cos()] if self.sines_first else [angle.cos(), angle.sin()], dim=1
        )


class FourierEmbedding(nn.Module):
    """Noise level to [sin, cos] of ``2 pi f x`` for random frequencies f that the file holds (NCSN++)."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(width // 2) * 16)

    def forward(self, noise: Tensor) -> Tensor:
        """Map float32 ``[n]`` to ``[n, width]``."""
        angle = noise[:, None] * (2 * math.pi * self.freqs)
        return torch.cat([angle.sin(), angle.cos()], dim=1)
