"""What the two community ports of the DDPM U-Net (Ho et al. 2020) share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32


def attend_over_positions(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return one-headed attention softmax(qᵀk / sqrt(c)) over all positions; all are ``[n, c, h, w]``."""
    scale = queries.shape[1] ** -0.5
    logits = queries.flatten(2).transpose(1, 2) @ keys.flatten(2) * scale
    weights = torch.softmax(logits.float(), dim=-1).to(values.dtype)
    return (values.flatten(2) @ weights.transpose(1, 2)).reshape(values.shape)


def doubled(x: Tensor) -> Tensor:
    """Return ``[n, c, 2 h, 2 w]``: nearest neighbours."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)
