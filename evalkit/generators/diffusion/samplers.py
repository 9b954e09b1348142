"""Samplers as pure functions of a denoiser, the start and the levels: ancestral, DDIM and DPM-Solver++.

Heun's is in :mod:`evalkit.generators.diffusion.heun`. Each walks down ``levels`` (noisiest first, the last
one clean). Coefficients are float64 numbers computed from the levels; they meet the images in float32. Noise
comes from a function of the step, so that a walk has no state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from evalkit.generators.diffusion.process import Denoised, Level, Variance

StepNoise = Callable[[int], Tensor]
"""Standard normal float32 of the images' shape for step k = 0, 1, … of the walk."""

Correction = Callable[[Tensor, Level, int], Tensor]
"""What is made of x at the level that step k has reached; a reference's guidance, or nothing."""

Gradient = Callable[[Tensor, Level], Tensor]
"""The gradient in x of a log-density to follow."""


class Denoiser(Protocol):
    """x at a level -> x0 and noise; a network with its process, labels and guidance."""

    def __call__(self, x: Tensor, level: Level) -> Denoised:
        """Return what ``x`` is made of at ``level``."""
        ...


def unchanged(x: Tensor, level: Level, step: int) -> Tensor:
    """Return x: the correction that corrects nothing."""
    del level, step
    return x


@dataclass(frozen=True, slots=True)
class Posterior:
    """q(x_s | x_t, x0) = N(clean x0 + noisy x_t, small); ``large`` is the variance of q(x_t | x_s).

    ``floor`` is ``small``, or that of the step before where it vanishes: the logarithm's lower end.
    """

    clean: float
    noisy: float
    small: float
    large: float
    floor: float


def posteriors(levels: Sequence[Level]) -> tuple[Posterior, ...]:
    """Return the posterior of each step down.

    Ho et al. 2020, eqs. 6-7; for any alpha and sigma Kingma et al. 2021, app. A.
    With a = alpha_t / alpha_s and v = sigma_t² - a² sigma_s² (beta of the step where alpha² + sigma² = 1):
    mean = (alpha_s v x0 + a sigma_s² x_t) / sigma_t², small = v sigma_s² / sigma_t², large = v.
    """
    table: list[Posterior] = []
    for now, then in pairwise(levels):
        kept, before, after = now.alpha / then.alpha, now.sigma**2, then.sigma**2
        large = before - kept**2 * after
        small = large * after / before
        floor = small if small > 0 else (table[-1].small if table else large)
        table.append(Posterior(then.alpha * large / before, kept * after / before, small, large, floor))
    return tuple(table)


def step_variance(
    posterior: Posterior, raw: Tensor | None, variance: Variance, *, last: bool
) -> float | Tensor:
    """Return the variance of an ancestral step: a number, or ``[n, 3, h, w]`` where it is learned.

    ``learned`` is exp(raw); ``learned-range`` is exp(u log large + (1 - u) log floor), u = (raw + 1) / 2
    (Nichol & Dhariwal 2021, eq. 15).
    """
    if variance == "fixed-small":
        return posterior.floor
    if variance == "fixed-large":
        return posterior.floor if last else posterior.large
    if raw is None:
        raise ValueError(f"variance {variance!r} needs a network with twice the channels")
    if variance == "learned":
        return raw.exp()
    high, low = math.log(posterior.large), math.log(posterior.floor)
    return ((raw + 1) * ((high - low) / 2) + low).exp()


def ancestral(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Level],
    *,
    variance: Variance,
    noise: StepNoise,
    gradient: Gradient | None = None,
    correct: Correction = unchanged,
) -> Tensor:
    """Return images by the reverse process x_s = mean(x0, x_t) + sqrt(variance) z (Ho et al. 2020, alg. 2).

    No noise is added in the last step. A ``gradient`` shifts the mean by variance times it (Dhariwal & Nichol
    2021, alg. 1).
    """
    table = posteriors(levels)
    for k, (now, then) in enumerate(pairwise(levels)):
        last = k == len(table) - 1
        seen = denoiser(x, now)
        spread = step_variance(table[k], seen.variance, variance, last=last)
        mean = table[k].clean * seen.clean + table[k].noisy * x
        if gradient is not None:
            mean = mean + spread * gradient(x, now)
        if not last:
            mean = mean + (spread.sqrt() if isinstance(spread, Tensor) else math.sqrt(spread)) * noise(k)
        x = correct(mean, then, k)
    return x


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Level],
    *,
    eta: float = 0.0,
    noise: StepNoise | None = None,
    correct: Correction = unchanged,
) -> Tensor:
    """Return images by DDIM: x_s = alpha_s x0 + sqrt(sigma_s² - d²) noise + d z, d = eta sqrt(small).

    Song et al. 2021, eqs. 12 and 16: deterministic at ``eta`` 0, the ancestral sampler of the small variance
    at 1. Of a distilled student of few steps on v (Salimans & Ho 2022) it is the sampler it was trained for.
    """
    table = posteriors(levels) if eta else ()
    for k, (now, then) in enumerate(pairwise(levels)):
        seen = denoiser(x, now)
        variance = eta**2 * table[k].small if eta else 0.0
        x = then.alpha * seen.clean + math.sqrt(max(then.sigma**2 - variance, 0.0)) * seen.noise
        if variance > 0:
            if noise is None:
                raise ValueError("DDIM with eta draws noise")
            x = x + math.sqrt(variance) * noise(k)
        x = correct(x, then, k)
    return x


def dpm_solver(
    denoiser: Denoiser, x: Tensor, levels: Sequence[Level], *, correct: Correction = unchanged
) -> Tensor:
    """Return images by DPM-Solver++(2M): second order from the last two x0 (Lu et al. 2022b, alg. 2).

    With lambda = log(alpha / sigma), h its stride and r = h_before / h: D = x0 + (x0 - x0_before) / (2 r) and
    x_s = sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D. The first step and the last, to sigma 0, have D = x0.
    """
    before, stride_before = None, math.nan
    for k, (now, then) in enumerate(pairwise(levels)):
        clean = denoiser(x, now).clean
        target = clean
        if then.sigma > 0:
            stride = then.log_ratio - now.log_ratio
            if before is not None:
                target = clean + (clean - before) * (stride / (2 * stride_before))
            x = x * (then.sigma / now.sigma) + target * (-then.alpha * math.expm1(-stride))
            before, stride_before = clean, stride
        else:
            x = then.alpha * target
        x = correct(x, then, k)
    return x
