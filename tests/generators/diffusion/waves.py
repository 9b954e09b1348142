"""Weights and inputs that any program can make again without a random generator: sines of the position."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from tests.generators.layouts import shapes

INPUTS = torch.sin(torch.arange(2 * 3 * 8 * 8, dtype=torch.float64) * 1.3).float().reshape(2, 3, 8, 8)


def fill(network: nn.Module, *, keep: Collection[str] = ()) -> nn.Module:
    """Set the k-th tensor by name to 0.15 sin(0.7390851 i + k), plus 1 for the weights of norms."""
    for k, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if name not in keep:
            place = torch.arange(math.prod(tensor.shape), dtype=torch.float64)
            tensor.copy_((0.15 * torch.sin(place * 0.7390851 + k)).float().reshape(tensor.shape))
            tensor.add_(1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0)
    return network.eval().requires_grad_(requires_grad=False)


def probed(output: Tensor) -> list[float]:
    """Four numbers of ``output``: the first, those at a third and a half, and the last."""
    return [float(output.flatten()[i]) for i in (0, output.numel() // 3, output.numel() // 2, -1)]


def bare(network: nn.Module) -> Mapping[str, Tensor]:
    """The state dict of ``network``, copied."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def strided(layout: str) -> Mapping[str, Tensor]:
    """Tensors of a public layout that hold no memory of their own: overlapping windows of one noise.

    Reading one is as fast as can be, and no two rows are equal.
    """
    noise = 0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    made: dict[str, Tensor] = {}
    for k, (name, (dtype, shape)) in enumerate(shapes(layout).items()):
        if dtype.startswith("int"):
            made[name] = torch.ones(shape, dtype=getattr(torch, dtype))
        else:
            made[name] = noise.as_strided(shape, (641, 101, 11, 1)[4 - len(shape) :], 1000 * k)
    return made
