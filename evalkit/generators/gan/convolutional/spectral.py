"""Spectral normalisation (Miyato et al. 2018), frozen: the layers of `torch.nn.utils.spectral_norm`.

A stored weight ``W`` comes with its singular vectors ``u`` and ``v``; in evaluation mode nothing is
iterated and the layer uses ``W / (u^T W v)``, W being flattened to ``[rows, rest]``. Other codes iterate
once from the stored ``u`` in every pass: :func:`iterated_norm`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.frozen import WeightLayer


def iterated_norm(weight: Tensor, left: Tensor) -> Tensor:
    """Return ``|W v|`` with ``v = W^T u / |W^T u|``: one power iteration, of which nothing is kept.

    Args:
        weight: ``[rows, ...]``.
        left: the stored u, ``[rows]``.
    """
    flat = weight.flatten(1)
    norm: Tensor = torch.linalg.vector_norm(flat @ F.normalize(left @ flat, dim=0))
    return norm


class SpectralWeight(WeightLayer[Tensor]):
    """A weight, its bias and the singular vectors that were stored with it."""

    def __init__(self, *shape: int, bias: bool = True) -> None:
        super().__init__()
        rest = torch.Size(shape[1:]).numel()
        self.weight_orig = nn.Parameter(torch.randn(shape) * 0.02)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.weight_u: Tensor
        self.weight_v: Tensor
        self.register_buffer("weight_u", torch.randn(shape[0]))
        self.register_buffer("weight_v", torch.randn(rest))

    def derive(self) -> Tensor:
        """Return the weight over its spectral norm, which no reduced type may round."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            flat = self.weight_orig.flatten(1)
            return self.weight_orig / torch.dot(self.weight_u, flat @ self.weight_v)

    @property
    def weight(self) -> Tensor:
        """The normalised weight."""
        return self.derived


class SpectralLinear(SpectralWeight):
    """A linear layer ``[n, i] -> [n, o]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the normalised weight."""
        return F.linear(x, self.weight, self.bias)


class SpectralConv(SpectralWeight):
    """A convolution with an odd kernel that keeps the size."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the normalised weight."""
        return F.conv2d(x, self.weight, self.bias, padding=self.weight_orig.shape[-1] // 2)
