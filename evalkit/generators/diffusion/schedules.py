"""Noise schedules of discrete diffusion processes and subsets of their steps, as pure functions in float64.

Betas are those of q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t), t = 0 .. T-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np

from evalkit.core import Float64Array
from evalkit.errors import UsageError
from evalkit.registry import did_you_mean

Spacing = Literal["fractional", "ddim", "leading", "trailing", "trailing-floor", "linspace", "quadratic"]
"""How a few steps are chosen among T; see :func:`chosen_steps`."""


def linear_betas(steps: int) -> Float64Array:
    """Return float64 ``[T]``: linear from 1e-4 to 0.02 at T = 1000, scaled by 1000/T.

    Ho et al. 2020, sec. 4. The scaling, as improved-diffusion's, keeps the noise at the end alike for
    every T.
    """
    scale = 1000 / steps
    return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)


def scaled_linear_betas(steps: int, *, start: float = 0.00085, end: float = 0.012) -> Float64Array:
    """Return float64 ``[T]``: linear in sqrt(beta) (Rombach et al. 2022, latent diffusion's code)."""
    return np.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=np.float64) ** 2


def cosine_betas(steps: int, *, offset: float = 0.008, largest: float = 0.999) -> Float64Array:
    """Return float64 ``[T]`` of alpha_bar(u) = cos²((u + s)/(1 + s) π/2) (Nichol & Dhariwal 2021, eq. 17)."""
    return _betas_of(
        lambda u: math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2, steps, largest=largest
    )


def sigmoid_betas(
    steps: int, *, start: float = -3.0, end: float = 3.0, temperature: float = 1.0, largest: float = 0.999
) -> Float64Array:
    """Return float64 ``[T]`` of a normalised sigmoid alpha_bar (Jabri et al. 2022; lucidrains' defaults).

    alpha_bar(u) = (f(e) - f(s + u (e - s))) / (f(e) - f(s)) with f(x) = 1 / (1 + exp(-x / temperature)), from
    s = ``start`` to e = ``end``.
    """

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x / temperature))

    def kept(u: float) -> float:
        return (logistic(end) - logistic(u * (end - start) + start)) / (logistic(end) - logistic(start))

    return _betas_of(kept, steps, largest=largest)


def _betas_of(kept: Callable[[float], float], steps: int, *, largest: float) -> Float64Array:
    levels = [kept(t / steps) for t in range(steps + 1)]
    return np.array([min(1 - later / earlier, largest) for earlier, later in pairwise(levels)])


SCHEDULES: dict[str, Callable[[int], Float64Array]] = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "scaled-linear": scaled_linear_betas,
    "sigmoid": sigmoid_betas,
}


def chosen_steps(total: int, count: int, spacing: Spacing) -> list[int]:
    """Return ``count`` of the steps ``0 .. total-1``, ascending.

    ``fractional`` and ``ddim`` are improved-diffusion's ``timestep_respacing`` "N" (from 0 to T-1 in rounded
    equal strides) and "ddimN" (the integer stride that gives N); ``leading``, ``trailing`` and ``linspace``
    are those of Lin et al. 2024, table 2; ``trailing-floor`` rounds down as lucidrains; ``quadratic`` is Song
    et al. 2021, app. D.2, ending at 0.8 T.

    Raises:
        UsageError: there are not as many steps, or no such stride.
    """
    if not 1 <= count <= total:
        raise UsageError(f"--steps must be at most {total}, not {count}")
    if spacing not in _CHOICES:
        raise UsageError(f"unknown spacing {spacing!r}", hint=did_you_mean(spacing, _CHOICES))
    steps = _CHOICES[spacing](total, count)
    if len(set(steps)) < count:
        raise UsageError(f"spacing {spacing!r} takes one of {total} steps twice to make {count}")
    return steps


def _fractional(total: int, count: int) -> list[int]:
    # Sums, not products: improved-diffusion adds, and ties of rounding go with its rounding errors.
    stride = (total - 1) / (count - 1) if count > 1 else 1.0
    position, steps = 0.0, []
    for _ in range(count):
        steps.append(round(position))
        position += stride
    return steps


def _integer_stride(total: int, count: int) -> list[int]:
    for stride in range(1, total + 1):
        if len(range(0, total, stride)) == count:
            return list(range(0, total, stride))
    raise UsageError(
        f"no integer stride takes {count} of {total} steps", hint="choose --steps that divides them"
    )


_CHOICES: dict[str, Callable[[int, int], list[int]]] = {
    "fractional": _fractional,
    "ddim": _integer_stride,
    "leading": lambda total, count: [k * (total // count) for k in range(count)],
    # numpy rounds halves to even, and so does diffusers, which walks down from T.
    "trailing": lambda total, count: sorted(round(total - k * (total / count)) - 1 for k in range(count)),
    "trailing-floor": lambda total, count: [int(k * (total / count) - 1) for k in range(1, count + 1)],
    "linspace": lambda total, count: [round(k * (total - 1) / max(count - 1, 1)) for k in range(count)],
    "quadratic": lambda total, count: [int(s**2) for s in np.linspace(0, math.sqrt(total * 0.8), count)],
}
