"""Guidance: towards a class by the network itself or by a classifier, and towards a reference image.

All are functions of images at a level; the samplers know nothing of them.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.errors import UsageError
from evalkit.generators.diffusion.process import Denoised, Level
from evalkit.generators.diffusion.samplers import Correction, Denoiser, Gradient, StepNoise


class Classifier(Protocol):
    """A classifier of noisy images."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return logits ``[n, num_classes]`` of ``x [n, 3, h, w]`` at the network's times ``t [n]``."""
        ...


def classifier_free(conditional: Tensor, unconditional: Tensor, scale: float, *, channels: int) -> Tensor:
    """Return unconditional + scale (conditional - unconditional), on the first ``channels`` only.

    ``scale`` 1 is the conditional network, 0 the unconditional, more is guidance; it is 1 + w in Ho &
    Salimans 2022, eq. 6. Channels of a learned variance stay the conditional ones. Epsilon, v and x0 are
    linear in each other at a given x, so that it does not matter which of them the network predicts.
    """
    split, rest = conditional[:, :channels], conditional[:, channels:]
    base = unconditional[:, :channels]
    guided = base + scale * (split - base)
    return torch.cat((guided, rest), dim=1) if rest.shape[1] else guided


def class_gradient(classifier: Classifier, labels: Tensor, *, scale: float) -> Gradient:
    """Return the function (x, level) -> scale times the gradient in x of log p(label | x).

    The gradient of the sum of log-probabilities is each image's own, as long as the classifier has no batch
    statistics (Dhariwal & Nichol 2021, sec. 4).
    """

    def gradient(x: Tensor, level: Level) -> Tensor:
        # Tensors made in inference mode cannot enter autograd: copies made outside it can.
        with torch.inference_mode(mode=False), torch.enable_grad():
            variable, wanted = x.clone().requires_grad_(), labels.clone()
            time = torch.full((len(x),), level.time, dtype=torch.float32, device=x.device)
            logits = classifier(variable, time)
            exact = torch.promote_types(logits.dtype, torch.float32)
            chosen = F.log_softmax(logits, dim=1, dtype=exact).gather(1, wanted[:, None])
            (result,) = torch.autograd.grad(chosen.sum(), variable)
        return scale * result.detach()

    return gradient


def classifier_guided(denoiser: Denoiser, gradient: Gradient) -> Denoiser:
    """Return a denoiser whose noise is noise - sigma gradient (Dhariwal & Nichol 2021, alg. 2).

    For every sampler but the ancestral, which shifts its mean instead (their alg. 1). The new x0 is not
    clipped again, as in guided-diffusion.
    """

    def guided(x: Tensor, level: Level) -> Denoised:
        seen, slope = denoiser(x, level), gradient(x, level)
        noise = (x - level.alpha * seen.clean) / level.sigma - level.sigma * slope
        return Denoised((x - level.sigma * noise) / level.alpha, noise, seen.variance)

    return guided


def low_pass(images: Tensor, factor: int) -> Tensor:
    """Return phi(images): bicubic down-sampling by ``factor`` with anti-aliasing, and back up.

    The filter of Choi et al. 2021: a linear filter of each image.
    """
    size = images.shape[-2:]
    small = F.interpolate(images, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(small, size=size, mode="bicubic", antialias=True)


def check_factor(factor: int, size: tuple[int, int]) -> None:
    """Refuse a factor of :func:`low_pass` for images of ``size``.

    Raises:
        UsageError: ``factor`` does not divide the size.
    """
    if factor < 1 or any(side % factor for side in size):
        raise UsageError(
            f"the reference factor {factor} does not divide images of {size[0]}x{size[1]} pixels",
            hint=f"a power of two such as {math.gcd(*size, 8)}",
        )


def reference_guidance(
    references: Tensor, *, factor: int, noise: StepNoise, down_to: float = 0.0
) -> Correction:
    """Return the correction x + phi(y) - phi(x), y the reference noised to x's level.

    ILVR: Choi et al. 2021, alg. 1.

    Args:
        references: float ``[n, 3, h, w]`` in [-1, 1].
        factor: N of the low-pass filter: the larger, the less of the reference is kept.
        noise: standard normal of the references' shape for each step.
        down_to: the network's time below which nothing is corrected.

    Raises:
        UsageError: ``factor`` does not divide the size.
    """
    check_factor(factor, (references.shape[-2], references.shape[-1]))

    def correct(x: Tensor, level: Level, step: int) -> Tensor:
        if level.time < down_to:
            return x
        noised = level.alpha * references
        if level.sigma > 0:
            noised = noised + level.sigma * noise(step)
        return x + low_pass(noised - x, factor)

    return correct
