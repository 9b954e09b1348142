"""Noise levels, what a network predicts at them, and the two kinds of process that samplers integrate.

A level is a pair (alpha, sigma): x = alpha x0 + sigma noise. Discrete processes have alpha² + sigma² = 1,
those of Karras et al. 2022 alpha = 1. Samplers know levels only, so each runs on either kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from evalkit.core import Float64Array
from evalkit.errors import UsageError
from evalkit.generators.diffusion.schedules import SCHEDULES, Spacing, chosen_steps
from evalkit.registry import did_you_mean

Prediction = Literal["epsilon", "v", "sample"]
Variance = Literal["fixed-small", "fixed-large", "learned", "learned-range"]


class DenoisingNetwork(Protocol):
    """The network of a diffusion model, as every sampler here calls it."""

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Return the process's prediction, float ``[n, 3, h, w]``; ``[n, 6, h, w]`` with a learned variance.

        Args:
            x: float32 ``[n, 3, h, w]``: alpha x0 + sigma noise.
            t: float32 ``[n]``, the time that the network itself sees: step * time_scale of a
                :class:`DiscreteProcess` (whole numbers where time_scale is 1; networks with a table of
                embeddings cast to int64), sigma of a Karras process.
            labels: int64 ``[n]``, or None where unconditional; ``num_classes`` is the null label of networks
                trained for classifier-free guidance.
        """
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """x = alpha x0 + sigma noise, and the time that the network sees there."""

    alpha: float
    sigma: float
    time: float

    @property
    def ratio(self) -> float:
        """The noise of x / alpha, sigma / alpha, which is what Karras et al. call sigma."""
        return self.sigma / self.alpha

    @property
    def log_ratio(self) -> float:
        """Half the log signal-to-noise ratio, log(alpha / sigma): lambda of Lu et al. 2022."""
        return math.log(self.alpha) - math.log(self.sigma) if self.alpha else -math.inf


CLEAN = Level(alpha=1.0, sigma=0.0, time=0.0)
"""Where every sampler ends."""


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """The network's view of x at a level: x = alpha clean + sigma noise.

    ``variance`` holds the second half of the output's channels where the variance is learned, else None.
    """

    clean: Tensor
    noise: Tensor
    variance: Tensor | None = None


class Process(Protocol):
    """What samplers ask of a process."""

    @property
    def variance(self) -> Variance:
        """Which variance ancestral sampling draws with."""
        ...

    @property
    def most_steps(self) -> int | None:
        """Most steps that can be walked; None where there is no limit."""
        ...

    def levels(self, steps: int, *, spacing: Spacing | None = None) -> tuple[Level, ...]:
        """Return ``steps`` levels from the noisiest down, and :data:`CLEAN`."""
        ...

    def nearest(self, ratio: float) -> Level:
        """Return the level that the network knows whose sigma / alpha is nearest to ``ratio``."""
        ...

    def start(self, level: Level) -> float:
        """Return the standard deviation of x at the first level, from which sampling starts."""
        ...

    def denoised(self, output: Tensor, x: Tensor, level: Level) -> Denoised:
        """Return what the network's ``output`` at ``x`` and ``level`` means."""
        ...


@dataclass(frozen=True)
class DiscreteProcess:
    """A diffusion of T steps: alpha² = prod(1 - beta), sigma² = 1 - alpha² (Ho et al. 2020, eq. 4).

    Attributes:
        betas: T float64 numbers (a list or array is frozen to a tuple).
        prediction: what the first three output channels are: the noise, v = alpha noise - sigma x0
            (Salimans & Ho 2022, app. D), or x0.
        variance: of the ancestral step: ``fixed-small`` the posterior's, ``fixed-large`` beta (Ho et al.
            2020, sec. 3.2), ``learned`` the log itself, ``learned-range`` Nichol & Dhariwal 2021, eq. 15.
        clip: whether predictions of x0 are clipped to [-1, 1].
        rederive_noise: whether the noise is computed anew from a clipped x0 (improved-diffusion, lucidrains),
            or kept as predicted (diffusers); only DDIM uses the noise.
        time_scale: the network sees step * time_scale (improved-diffusion's rescaled steps: 1000 / T).
        spacing: how fewer than T steps are chosen.
    """

    betas: Sequence[float]
    prediction: Prediction
    variance: Variance = "fixed-small"
    clip: bool = True
    rederive_noise: bool = True
    time_scale: float = 1.0
    spacing: Spacing = "fractional"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if not self.betas or not all(0 < beta <= 1 for beta in self.betas):
            raise UsageError("a diffusion process needs betas in (0, 1]")

    @property
    def most_steps(self) -> int:
        """Return T."""
        return len(self.betas)

    @cached_property
    def alpha_bars(self) -> Float64Array:
        """Return prod(1 - beta), float64 ``[T]``."""
        kept = np.cumprod(1 - np.asarray(self.betas, dtype=np.float64))
        return np.asarray(kept, dtype=np.float64)

    def level(self, step: int) -> Level:
        """Return the level of x after ``step + 1`` noising steps."""
        kept = float(self.alpha_bars[step])
        return Level(math.sqrt(kept), math.sqrt(1 - kept), step * self.time_scale)

    def levels(self, steps: int, *, spacing: Spacing | None = None) -> tuple[Level, ...]:
        """Return ``steps`` levels from the noisiest down, and :data:`CLEAN`.

        Raises:
            UsageError: the process has not as many steps, or they cannot be spaced so.
        """
        chosen = chosen_steps(len(self.betas), steps, spacing or self.spacing)
        return (*(self.level(step) for step in reversed(chosen)), CLEAN)

    def nearest(self, ratio: float) -> Level:
        """Return the level whose sigma / alpha is nearest to ``ratio`` (Karras et al. 2022, app. C.3.4)."""
        return self.level(int(np.argmin(np.abs(self._ratios - ratio))))

    def start(self, level: Level) -> float:
        """Return 1: x_T is taken for a standard normal (Ho et al. 2020)."""
        del level
        return 1.0

    @cached_property
    def _ratios(self) -> Float64Array:
        return np.sqrt((1 - self.alpha_bars) / np.maximum(self.alpha_bars, np.finfo(np.float64).tiny))

    def denoised(self, output: Tensor, x: Tensor, level: Level) -> Denoised:
        """Return x0, clipped where the process clips, the noise and the variance's channels of ``output``."""
        channels = x.shape[1]
        prediction, rest = output[:, :channels], output[:, channels:]
        clean, noise = convert(prediction, x, level, self.prediction)
        if self.clip:
            clean = clean.clamp(-1.0, 1.0)
            noise = noise_of(x, clean, level) if self.rederive_noise else noise
        return Denoised(clean, noise, rest if rest.shape[1] else None)


def discrete_process(
    schedule: str,
    steps: int,
    *,
    prediction: Prediction,
    variance: Variance = "fixed-small",
    clip: bool = True,
    rederive_noise: bool = True,
    time_scale: float = 1.0,
    spacing: Spacing = "fractional",
) -> DiscreteProcess:
    """Return the process of a named schedule (a key of ``SCHEDULES``) of ``steps`` steps.

    Raises:
        UsageError: there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown noise schedule {schedule!r}", hint=did_you_mean(schedule, SCHEDULES))
    return DiscreteProcess(
        betas=tuple(SCHEDULES[schedule](steps)),
        prediction=prediction,
        variance=variance,
        clip=clip,
        rederive_noise=rederive_noise,
        time_scale=time_scale,
        spacing=spacing,
    )


def convert(output: Tensor, x: Tensor, level: Level, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Return (x0, noise) of a prediction at ``x = alpha x0 + sigma noise``.

    From v by x0 = alpha x - sigma v and noise = sigma x + alpha v, over alpha² + sigma² (Salimans & Ho 2022,
    app. D); otherwise by solving for the other.
    """
    if prediction == "epsilon":
        return clean_of(x, output, level), output
    if prediction == "sample":
        return output, noise_of(x, output, level)
    total = level.alpha**2 + level.sigma**2
    clean = x * (level.alpha / total) - output * (level.sigma / total)
    return clean, x * (level.sigma / total) + output * (level.alpha / total)


def clean_of(x: Tensor, noise: Tensor, level: Level) -> Tensor:
    """Return x0 = (x - sigma noise) / alpha."""
    return (x - level.sigma * noise) / level.alpha


def noise_of(x: Tensor, clean: Tensor, level: Level) -> Tensor:
    """Return noise = (x - alpha x0) / sigma."""
    return (x - level.alpha * clean) / level.sigma
