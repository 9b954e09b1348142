"""Sinusoids of the time as Ho et al. 2020 have them, which several code bases have kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def sinusoids(t: Tensor, width: int, *, base: float = 10000.0) -> Tensor:
    """Return float32 ``[n, width]``: [sin(t f), cos(t f)], f_i = base^(-i / (half - 1)), half = width // 2.

    The frequencies run from 1 to 1 / base inclusive; an odd ``width`` ends in a zero.
    """
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(place * -(math.log(base) / (half - 1)))
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
