"""Heun's sampler of Karras et al. 2022, on any process through x / alpha = x0 + (sigma / alpha) noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from evalkit.generators.diffusion.process import Level
from evalkit.generators.diffusion.samplers import Correction, Denoiser, StepNoise, unchanged


@dataclass(frozen=True, slots=True)
class Churn:
    """The stochastic form's parameters (Karras et al. 2022, alg. 2).

    Attributes:
        amount: S_churn, shared among the steps; 0 is the deterministic form.
        smallest: S_min: no noise at a lower sigma.
        largest: S_max: nor at a higher one.
        noise: S_noise, the standard deviation of what is added.
    """

    amount: float = 0.0
    smallest: float = 0.0
    largest: float = math.inf
    noise: float = 1.0


def heun(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Level],
    *,
    churn: Churn | None = None,
    nearest: Callable[[float], Level] | None = None,
    noise: StepNoise | None = None,
    correct: Correction = unchanged,
) -> Tensor:
    """Return images by Heun's second-order steps of dy/ds = (y - D(y; s)) / s.

    With y = x / alpha and s = sigma / alpha (Karras et al. 2022, alg. 1; alg. 2 with a ``churn``, where
    ``nearest`` gives the level that the noise is raised to). The last step, to sigma 0, is Euler's; hence N
    steps evaluate 2 N - 1 times.
    """
    y = x / levels[0].alpha
    count = len(levels) - 1
    for k, (start, then) in enumerate(pairwise(levels)):
        now = start
        if churn is not None and churn.smallest <= start.ratio <= churn.largest and churn.amount > 0:
            if nearest is None or noise is None:
                raise ValueError("churn needs the process's levels and noise")
            now = nearest((1 + min(churn.amount / count, math.sqrt(2) - 1)) * start.ratio)
            added = math.sqrt(max(now.ratio**2 - start.ratio**2, 0.0))
            y = y + (churn.noise * added) * noise(k)
        slope, stride = _slope(denoiser, y, now), then.ratio - now.ratio
        proposed = y + stride * slope
        if then.sigma > 0:
            proposed = y + (stride / 2) * (slope + _slope(denoiser, proposed, then))
        y = correct(then.alpha * proposed, then, k) / then.alpha
    return y * levels[-1].alpha


def _slope(denoiser: Denoiser, y: Tensor, level: Level) -> Tensor:
    return (y - denoiser(y * level.alpha, level).clean) / level.ratio
