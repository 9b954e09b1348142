"""Building blocks of style-based generators: equalised layers, modulated convolution, blurred up-sampling.

Karras et al. 2018 (equalised learning rate), 2019 (noise inputs, mapping network) and 2020 (StyleGAN2:
modulation and demodulation of the weights instead of instance normalisation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators import in_place
from evalkit.generators.frozen import WeightLayer

SLOPE, GAIN = 0.2, math.sqrt(2.0)
_EPSILON = 1e-8
_TAPS = (1.0, 3.0, 3.0, 1.0)


def leaky(x: Tensor) -> Tensor:
    """Return the leaky rectifier of slope 0.2 times sqrt(2), which about keeps the second moment."""
    return F.leaky_relu(x, SLOPE) * GAIN


def normalise_second_moment(x: Tensor) -> Tensor:
    """Return ``x / sqrt(mean(x^2))`` of each row of float32 ``[n, d]`` (Karras et al. 2018, sec. 4.2)."""
    return x * (x.square().mean(dim=-1, keepdim=True) + _EPSILON).rsqrt()


class EqualisedLinear(nn.Module):
    """Linear layer whose weight is kept at unit variance and scaled by ``rate / sqrt(fan_in)`` when used.

    Every weight so has the same dynamic range, and ``rate`` is its learning rate relative to the others
    (Karras et al. 2018, sec. 4.1; 0.01 in the mapping network of Karras et al. 2019).
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, inputs]`` to ``[n, outputs]``."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualisedConv(nn.Module):
    """Convolution with the equalised learning rate of :class:`EqualisedLinear`, then :func:`leaky`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.stride = 1.0 / math.sqrt(inputs * kernel**2), stride
        self.padding = (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, inputs, h, w]`` to ``[n, outputs, h / stride, w / stride]``."""
        # The rectifier is positively homogeneous, so its gain may come before it, where it costs less.
        weight, bias = self.weight * (self.scale * GAIN), self.bias * GAIN
        return F.leaky_relu(F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding), SLOPE)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Return the factors that bring the modulated filters to unit norm (Karras et al. 2020, eq. 3).

    ``d[n, o] = 1 / sqrt(sum_ik (s[n, i] w[o, i, k])^2 + 1e-8)``.

    Args:
        weight: float32 ``[o, i, kh, kw]``.
        style: float32 ``[n, i]`` scale of each input channel.

    Returns:
        float32 ``[n, o]``.
    """
    return _demodulation(_energy(weight), style)


def _energy(weight: Tensor) -> Tensor:
    return weight.square().sum(dim=(2, 3)).T


def _demodulation(energy: Tensor, style: Tensor) -> Tensor:
    return (style.square() @ energy + _EPSILON).rsqrt()


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False) -> Tensor:
    """Convolve ``x`` with ``weight[o, i, k] * style[n, i]``, not demodulated (Karras et al. 2020, eq. 1).

    Scaling the input channels is the same as scaling the weights of each image, and needs one convolution
    for the whole batch where the grouped form needs one for each image; multiply the result by
    :func:`demodulation` to demodulate.

    Args:
        x: ``[n, i, h, w]`` of any floating type.
        weight: float32 ``[o, i, k, k]``, k odd.
        style: float32 ``[n, i]``.
        up: transposed convolution of stride 2 followed by the blur of :func:`blur`.

    Returns:
        ``[n, o, h, w]``, or ``[n, o, 2h, 2w]`` with ``up``.
    """
    x = x * style[:, :, None, None].to(x.dtype)
    if not up:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))


def blur(x: Tensor) -> Tensor:
    """Filter ``[n, c, h, w]`` by [1, 3, 3, 1] / 4 along both axes, zeros outside; ``[n, c, h - 1, w - 1]``.

    The taps sum to 2 along each axis: the factor that inserting zeros by up-sampling takes away.
    """
    taps = x.new_tensor(_TAPS) / 4.0
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, padding=1, groups=channels)


def upsample(x: Tensor) -> Tensor:
    """Return ``[n, c, 2h, 2w]``: zeros inserted after each pixel, then filtered by [1, 3, 3, 1] / 4 by axis.

    Pixel 2i is ``(x[i-1] + 3 x[i]) / 4`` and pixel 2i+1 is ``(3 x[i] + x[i+1]) / 4``, zeros outside.
    """
    taps = x.new_tensor(_TAPS) / 4.0
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class StyleConv(WeightLayer[tuple[Tensor, Tensor]]):
    """Modulated, demodulated convolution, noise of learned strength, bias and leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, *, style_dim: int, up: bool = False) -> None:
        super().__init__()
        self.affine = EqualisedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.up = 1.0 / math.sqrt(inputs * 9), up

    def derive(self) -> tuple[Tensor, Tensor]:
        """Return the scaled weight, and what its demodulation needs of it."""
        weight = self.weight * self.scale
        return weight, _energy(weight)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Map ``[n, i, h, w]`` by styles from ``w`` ``[n, d]``; ``noise`` is ``[n, 1, h', w']``."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w)
            weight, energy = self.derived
            factor = _demodulation(energy, style)[:, :, None, None]
        y = modulated_conv(x, weight, style, up=self.up)
        # As in EqualisedConv, the rectifier's gain moves into the small factors in front of it.
        noise = (noise * (self.noise_strength * GAIN)).to(y.dtype)
        y = in_place.affine(y, (factor * GAIN).to(y.dtype), noise)
        biased = in_place.add(y, (self.bias * GAIN).to(y.dtype)[:, None, None])
        return F.leaky_relu(biased, SLOPE, inplace=True)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, not demodulated."""

    def __init__(self, inputs: int, *, style_dim: int) -> None:
        super().__init__()
        self.affine = EqualisedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.scale = 1.0 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return float32 ``[n, 3, h, w]``."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w)
        return modulated_conv(x, self.weight * self.scale, style).float() + self.bias[:, None, None]
