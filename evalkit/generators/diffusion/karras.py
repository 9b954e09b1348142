"""The process of Karras et al. 2022, x = x0 + sigma noise: its steps and its networks' preconditionings.

A discrete process is a process in sigma too, by x / alpha (their app. C.3): see ``Level.ratio``, so that
Heun's sampler runs on every model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from evalkit.errors import UsageError
from evalkit.generators.diffusion.process import (
    CLEAN,
    Denoised,
    DiscreteProcess,
    Level,
    Variance,
    noise_of,
)
from evalkit.generators.diffusion.schedules import Spacing


def karras_ratios(steps: int, *, smallest: float, largest: float, rho: float = 7.0) -> tuple[float, ...]:
    """Return ``steps`` values of sigma, descending: equal strides in sigma^(1/rho).

    Karras et al. 2022, eq. 5.
    """
    low, high = smallest ** (1 / rho), largest ** (1 / rho)
    return tuple((high + k / max(steps - 1, 1) * (low - high)) ** rho for k in range(steps))


@dataclass(frozen=True)
class KarrasProcess:
    """x = x0 + sigma noise; the network is called with time = sigma and returns the denoised D(x; sigma).

    Attributes:
        sigma_min: of the last step before 0.
        sigma_max: of the first.
        rho: how densely steps lie near sigma_min (7 in the paper).
        sigma_data: standard deviation of the data (0.5), for :func:`edm_preconditioning`.
        known: the only sigmas that the network knows, where it was trained on a few (their iDDPM models: the
            buffer ``u``); every level is rounded to the nearest. Empty: all.
        clip: whether D is clipped to [-1, 1] (EDM does not).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigma_data: float = 0.5
    known: tuple[float, ...] = ()
    clip: bool = False
    variance: Variance = "fixed-small"

    @property
    def most_steps(self) -> int | None:
        """Return how many sigmas are known, where they are a few."""
        return len(self.known) or None

    def levels(self, steps: int, *, spacing: Spacing | None = None) -> tuple[Level, ...]:
        """Return ``steps`` levels from ``sigma_max`` to ``sigma_min``, and :data:`CLEAN`.

        Fewer where two round to the same of a few known sigmas: a step between equals leads nowhere.

        Raises:
            UsageError: a ``spacing`` of discrete steps is asked for, or more steps than sigmas are known.
        """
        if spacing is not None:
            raise UsageError(f"a process in sigma has no steps to space by {spacing!r}")
        if self.known and steps > len(self.known):
            raise UsageError(f"--steps must be at most {len(self.known)}, not {steps}")
        ratios = karras_ratios(steps, smallest=self.sigma_min, largest=self.sigma_max, rho=self.rho)
        return (*dict.fromkeys(self.nearest(ratio) for ratio in ratios), CLEAN)

    def nearest(self, ratio: float) -> Level:
        """Return the level at sigma = ``ratio``, or the nearest that the network knows."""
        sigma = min(self.known, key=lambda known: abs(known - ratio)) if self.known else ratio
        return Level(1.0, sigma, sigma)

    def start(self, level: Level) -> float:
        """Return sigma: the image is negligible beside it (Karras et al. 2022, alg. 1)."""
        return level.sigma

    def denoised(self, output: Tensor, x: Tensor, level: Level) -> Denoised:
        """Return D and the noise (x - D) / sigma."""
        clean = output.clamp(-1.0, 1.0) if self.clip else output
        return Denoised(clean, noise_of(x, clean, level))


def rounded_levels(
    process: DiscreteProcess, steps: int, *, largest: float = 80.0, rho: float = 7.0
) -> tuple[Level, ...]:
    """Return the levels of a discrete process nearest to Karras's steps, and :data:`CLEAN`.

    From ``largest`` (their sigma_max; the noisiest level where that is less) to the cleanest level. At most
    ``steps``: where two round to the same level it is taken once.

    Raises:
        UsageError: more steps than the process has.
    """
    if not 1 <= steps <= len(process.betas):
        raise UsageError(f"--steps must be at most {len(process.betas)}, not {steps}")
    ratios = karras_ratios(
        steps, smallest=process.level(0).ratio, largest=process.nearest(largest).ratio, rho=rho
    )
    unique = dict.fromkeys(process.nearest(ratio) for ratio in ratios)
    return (*unique, CLEAN)


class Preconditioning(NamedTuple):
    """D(x; sigma) = skip x + out F(in x; noise) (Karras et al. 2022, eq. 7)."""

    skip: Tensor
    out: Tensor
    scale_in: Tensor
    noise: Tensor


def edm_preconditioning(sigma: Tensor, *, sigma_data: float) -> Preconditioning:
    """Return EDM's coefficients for float ``sigma`` of any shape (Karras et al. 2022, table 1)."""
    total = (sigma**2 + sigma_data**2).sqrt()
    return Preconditioning(
        skip=sigma_data**2 / total**2,
        out=sigma * sigma_data / total,
        scale_in=1 / total,
        noise=sigma.log() / 4,
    )


def vp_preconditioning(
    sigma: Tensor, *, beta_d: float = 19.9, beta_min: float = 0.1, steps: int = 1000
) -> Preconditioning:
    """Return the VP column of table 1: noise = (M - 1) sigma⁻¹(sigma), ``steps`` = M (Karras et al. 2022)."""
    inner = beta_min**2 + 2 * beta_d * (1 + sigma**2).log()
    time = (inner.sqrt() - beta_min) / beta_d
    return Preconditioning(
        skip=sigma.new_ones(sigma.shape),
        out=-sigma,
        scale_in=1 / (sigma**2 + 1).sqrt(),
        noise=(steps - 1) * time,
    )


def ve_preconditioning(sigma: Tensor) -> Preconditioning:
    """Return the VE column of table 1 (Karras et al. 2022)."""
    return Preconditioning(
        skip=sigma.new_ones(sigma.shape),
        out=sigma,
        scale_in=sigma.new_ones(sigma.shape),
        noise=(sigma / 2).log(),
    )


def iddpm_known_sigmas(
    *, steps: int = 1000, offset: float = 0.008, smallest_ratio: float = 0.001
) -> tuple[float, ...]:
    """Return u_0 .. u_{M-1}, descending: the sigmas of iDDPM's cosine schedule (Karras et al. 2022, table 1).

    u_M = 0, u_{j-1} = sqrt((u_j² + 1) / max(a_{j-1} / a_j, C1) - 1), a_j = sin²(π/2 · j / (M (C2 + 1))).
    """

    def kept(j: int) -> float:
        return math.sin(0.5 * math.pi * j / steps / (offset + 1)) ** 2

    u = [0.0]
    for j in range(steps, 0, -1):
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(kept(j - 1) / kept(j), smallest_ratio) - 1))
    return tuple(reversed(u))[:-1]
