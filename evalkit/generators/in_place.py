"""Elementwise steps that overwrite a fresh input while nothing is learnt: the same numbers, no allocation.

Each takes the output of a layer that nobody else holds. While gradients are recorded, which need the input,
they are the ordinary operations.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relu(x: Tensor) -> Tensor:
    """Return ``max(x, 0)``."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


def silu(x: Tensor) -> Tensor:
    """Return ``x sigmoid(x)``."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x + y``, which is written over ``x``."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def affine(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Return ``x * gain + bias``, which is written over ``x``; the product is rounded before the sum."""
    return x * gain + bias if torch.is_grad_enabled() else x.mul_(gain).add_(bias)
