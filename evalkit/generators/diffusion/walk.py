"""One walk from noise to images: the sampler that goes by a name, on any process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from evalkit.counter_noise import CHURN_STREAM, STEP_STREAM
from evalkit.errors import UsageError
from evalkit.generators.diffusion.guidance import classifier_guided
from evalkit.generators.diffusion.heun import Churn, heun
from evalkit.generators.diffusion.process import DiscreteProcess, Level, Process
from evalkit.generators.diffusion.samplers import (
    Correction,
    Denoiser,
    Gradient,
    StepNoise,
    ancestral,
    ddim,
    dpm_solver,
    unchanged,
)


def walk(  # noqa: PLR0913 - by keyword but for the first three
    sampler: str,
    denoiser: Denoiser,
    start: Tensor,
    *,
    process: Process,
    levels: Sequence[Level],
    noise: Callable[[int], StepNoise],
    eta: float = 0.0,
    churn: Churn | None = None,
    gradient: Gradient | None = None,
    correct: Correction = unchanged,
) -> Tensor:
    """Return float images ``[n, 3, h, w]``; each sampler takes those of the arguments that are for it.

    Args:
        sampler: ``ancestral``, ``ddim``, ``dpm-solver++`` or ``heun``.
        denoiser: x at a level -> x0 and noise.
        start: x at the first level.
        process: of the denoiser.
        levels: from the noisiest down to the clean one.
        noise: stream (see :mod:`evalkit.counter_noise`) -> noise of each step.
        eta: of DDIM.
        churn: of Heun's.
        gradient: of a classifier.
        correct: applied after each step.

    Raises:
        UsageError: there is no such sampler.
    """
    steps = noise(STEP_STREAM)
    if sampler == "ancestral":
        return ancestral(
            denoiser,
            start,
            levels,
            variance=process.variance,
            noise=steps,
            gradient=gradient,
            correct=correct,
        )
    seen = denoiser if gradient is None else classifier_guided(denoiser, gradient)
    if sampler == "ddim":
        return ddim(seen, start, levels, eta=eta, noise=steps, correct=correct)
    if sampler == "dpm-solver++":
        return dpm_solver(seen, start, levels, correct=correct)
    if sampler == "heun":
        entered = _entered(seen, start, process, levels[0])
        churned = noise(CHURN_STREAM)
        return heun(
            seen, entered, levels, churn=churn, nearest=process.nearest, noise=churned, correct=correct
        )
    raise UsageError(f"diffusion models have no sampler {sampler!r}", hint="`evalkit list samplers`")


def _entered(denoiser: Denoiser, start: Tensor, process: Process, first: Level) -> Tensor:
    # Heun's error grows with the stride in sigma, which is thousands between the noisiest levels of some
    # schedules: a step of DDIM, exact there, leads to the first of its levels.
    if not isinstance(process, DiscreteProcess):
        return start
    noisiest = process.level(len(process.betas) - 1)
    return start if noisiest == first else ddim(denoiser, start, (noisiest, first))
