"""Layers of BigGAN: spectral norm from one stored singular vector, batch norm from stored statistics.

The spectral norm of a weight ``W`` (flattened to ``[rows, rest]``) is estimated in evaluation mode as in
training, by one power iteration from the stored left vector ``u``, which stays as it is. The stored value
``sv0`` is a log of the training and is not used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.frozen import WeightLayer
from evalkit.generators.gan.convolutional.spectral import iterated_norm


class SpectralWeight(WeightLayer[Tensor]):
    """A weight, its bias, the stored singular vector and the last logged singular value."""

    def __init__(self, *shape: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * 0.02)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.u0: Tensor
        self.sv0: Tensor
        self.register_buffer("u0", torch.randn(1, shape[0]))
        self.register_buffer("sv0", torch.ones(1))

    def derive(self) -> Tensor:
        """Return the weight over its spectral norm, which no reduced type may round."""
        with torch.autocast(self.weight.device.type, enabled=False):
            unit: Tensor = self.weight / iterated_norm(self.weight, self.u0[0])
            return unit

    @property
    def normalised(self) -> Tensor:
        """The normalised weight."""
        return self.derived


class SpectralLinear(SpectralWeight):
    """A linear layer ``[n, i] -> [n, o]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the normalised weight."""
        return F.linear(x, self.normalised, self.bias)


class SpectralConv(SpectralWeight):
    """A convolution with an odd kernel that keeps the size."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the normalised weight."""
        return F.conv2d(x, self.normalised, self.bias, padding=self.weight.shape[-1] // 2)


class StoredNorm(nn.Module):
    """Batch norm from stored statistics, without gain and bias."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.stored_mean: Tensor
        self.stored_var: Tensor
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normalise(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / sqrt(var + eps)`` by channel."""
        return F.batch_norm(x, self.stored_mean, self.stored_var, eps=self.eps)


class PlainNorm(StoredNorm):
    """Gain and bias by channel."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[n, c, h, w]``."""
        return F.batch_norm(x, self.stored_mean, self.stored_var, self.gain, self.bias, eps=self.eps)


class ConditionalNorm(StoredNorm):
    """Gain ``1 + G(y)`` and bias ``B(y)``.

    Args:
        channels: of the feature map.
        eps: under the root.
        gain: maps the condition ``[n, ...]`` to ``[n, channels]``.
        bias: likewise.
    """

    def __init__(self, channels: int, eps: float, *, gain: nn.Module, bias: nn.Module) -> None:
        super().__init__(channels, eps)
        self.gain, self.bias = gain, bias

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``[n, c, h, w]``."""
        gain = 1.0 + self.gain(condition)[:, :, None, None]
        bias: Tensor = self.bias(condition)[:, :, None, None]
        return torch.addcmul(bias, self.normalise(x), gain)


def linear(in_features: int, out_features: int, *, spectral: bool, bias: bool = True) -> nn.Module:
    """Return a linear layer, spectrally normalised where ``spectral`` says so."""
    if spectral:
        return SpectralLinear(out_features, in_features, bias=bias)
    return nn.Linear(in_features, out_features, bias=bias)


def convolution(
    in_channels: int, out_channels: int, kernel: int, *, spectral: bool, bias: bool = True
) -> nn.Module:
    """Return a convolution that keeps the size, spectrally normalised where ``spectral`` says so."""
    if spectral:
        return SpectralConv(out_channels, in_channels, kernel, kernel, bias=bias)
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
