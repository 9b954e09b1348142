"""Diffusion of Gaussian data, where everything is known: the exact denoiser and the exact flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.generators.diffusion.process import Denoised, Level


@dataclass(frozen=True)
class Gaussian:
    """x0 ~ N(mean, deviation²), each component on its own."""

    mean: Tensor
    deviation: Tensor

    def total(self, level: Level) -> Tensor:
        """Return the variance of x at a level."""
        return level.alpha**2 * self.deviation**2 + level.sigma**2

    def clean(self, x: Tensor, level: Level) -> Tensor:
        """Return E[x0 | x]."""
        gain = level.alpha * self.deviation**2 / self.total(level)
        return self.mean + gain * (x - level.alpha * self.mean)

    def __call__(self, x: Tensor, level: Level) -> Denoised:
        """Return the exact denoiser's view of x."""
        clean = self.clean(x, level)
        return Denoised(clean, (x - level.alpha * clean) / level.sigma)

    def flow(self, x: Tensor, start: Level) -> Tensor:
        """Return where the probability flow takes x from a level to the clean end: quantiles stay."""
        return self.mean + self.deviation * (x - start.alpha * self.mean) / self.total(start).sqrt()


def example(dtype: torch.dtype = torch.float64) -> Gaussian:
    """Return a Gaussian of 12 different components, shaped as an image ``[3, 2, 2]``."""
    return Gaussian(
        mean=torch.linspace(-0.6, 0.7, 12, dtype=dtype).view(3, 2, 2),
        deviation=torch.linspace(0.1, 0.9, 12, dtype=dtype).view(3, 2, 2),
    )


def start(count: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal ``[n, 3, 2, 2]``."""
    return torch.randn(count, 3, 2, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
