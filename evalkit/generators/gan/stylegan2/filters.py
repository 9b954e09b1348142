"""Resampling of images by finite impulse response filters: insert zeros, pad, filter, drop samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Padding = tuple[int, int, int, int]
"""Pixels added to the zero-inserted image: left, right, top, bottom; negative ones are cut off."""


def resample(
    x: Tensor, taps: Tensor | None, *, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0)
) -> Tensor:
    """Up-sample by zero insertion, pad, convolve with ``up^2 taps`` and keep every ``down``-th pixel.

    ``y[i] = up * sum_k taps[k] x_up[i * down + len(taps) - 1 - k]`` along each axis, where
    ``x_up[up * i] = x[i]``, zero elsewhere, padded: a convolution, so the taps run backwards.

    Args:
        x: ``[n, c, h, w]`` of any floating type.
        taps: float32 ``[k]`` (separable) or ``[k, k]``; None leaves pixels as they are.
        up: factor of up-sampling, which ``up^2`` keeps the mean of.
        down: factor of down-sampling.
        padding: left, right, top, bottom.

    Returns:
        ``[n, c, (up h + top + bottom - k) // down + 1, (up w + left + right - k) // down + 1]``.
    """
    left, right, top, bottom = padding
    if taps is None:
        taps = torch.ones(1, device=x.device)
    gain = float(up)
    if taps.ndim == 1:
        taps = (taps * gain).to(x.dtype)
        x = _filter(x, taps[None, :], up=(1, up), down=(1, down), padding=(left, right, 0, 0))
        return _filter(x, taps[:, None], up=(up, 1), down=(down, 1), padding=(0, 0, top, bottom))
    taps = (taps * gain**2).to(x.dtype)
    return _filter(x, taps, up=(up, up), down=(down, down), padding=padding)


def _filter(
    x: Tensor, taps: Tensor, *, up: tuple[int, int], down: tuple[int, int], padding: Padding
) -> Tensor:
    channels = x.shape[1]
    kernel = taps.expand(channels, 1, *taps.shape)
    if up == (1, 1):
        return F.conv2d(F.pad(x, padding), kernel.flip([2, 3]), stride=down, groups=channels)
    # A transposed convolution is the full convolution of the zero-inserted image; what lies outside the
    # padded image is cut off it (or, where the padding is wider than the taps, added as zeros).
    full = F.conv_transpose2d(x, kernel, stride=up, groups=channels)
    wanted = []
    for axis in (1, 0):
        k, factor = taps.shape[axis], up[axis]
        before, after = padding[2 * (1 - axis)], padding[2 * (1 - axis) + 1]
        wanted += [before - k + 1, after - k + factor]
    return F.pad(full, wanted)[:, :, :: down[0], :: down[1]]


def upsample(x: Tensor, taps: Tensor) -> Tensor:
    """Double the size of ``[n, c, h, w]``, pixels staying at the centre of their two copies."""
    k = taps.shape[-1]
    before, after = (k + 1) // 2, (k - 2) // 2
    return resample(x, taps, up=2, padding=(before, after, before, after))


def smooth_doubled(x: Tensor, taps: Tensor, *, kernel: int) -> Tensor:
    """Filter the ``2 h + kernel - 2`` pixels that a transposed convolution of stride 2 gives to ``2 h``.

    The taps are multiplied by 4, the factor that up-sampling by zero insertion takes away.
    """
    k = taps.shape[-1]
    before = kernel // 2 + (k + 1) // 2 - (kernel - 1)
    after = kernel // 2 + (k - 2) // 2 - (kernel - 2)
    gained = taps * (4.0 if taps.ndim == 2 else 2.0)
    return resample(x, gained, padding=(before, after, before, after))
