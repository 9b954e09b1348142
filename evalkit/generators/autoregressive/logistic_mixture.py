"""Mixture of discretised logistics over RGB pixels (Salimans et al. 2017, sec. 2.1 and 2.2).

Parameters of a pixel: K mixture logits, and for each channel K means, K log scales and K coefficients. The
means of green and blue move with the channels before: ``m_g + a r`` and ``m_b + b r + c g``, where a, b, c
are tanh of the coefficients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST_LOG_SCALE = -7.0
_EDGE = 1e-5
"""Uniforms are kept this far from 0 and 1, as in the public code: no draw is further out than 11.5 scales."""


def split(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split ``[..., 10 K]`` into logits ``[..., K]``, means, log scales and coefficients ``[..., 3, K]``.

    The 9 K numbers after the logits are three channels of 3 K: means, log scales, coefficients. The
    coefficients a, b, c stand in the places of red, green and blue.
    """
    mixtures = parameters.shape[-1] // 10
    logits, rest = parameters[..., :mixtures], parameters[..., mixtures:]
    means, log_scales, coefficients = rest.unflatten(-1, (3, 3 * mixtures)).split(mixtures, dim=-1)
    return logits, means, log_scales.clamp(min=LOWEST_LOG_SCALE), torch.tanh(coefficients)


def sample(parameters: Tensor, uniforms: Tensor) -> Tensor:
    """Draw RGB in [-1, 1], not rounded to 8 bits, as the public code of PixelCNN++ and VDVAE does.

    The component is the largest of ``logit - log(-log u)`` (Gumbel); the value is
    ``mean + scale (log u - log(1 - u))``, clipped.

    Args:
        parameters: ``[..., 10 K]``.
        uniforms: ``[..., K + 3]`` in [0, 1): K for the component, one for each channel.

    Returns:
        ``[..., 3]`` in the type of ``parameters``.
    """
    logits, means, log_scales, coefficients = split(parameters)
    u = uniforms.to(parameters.dtype) * (1.0 - 2.0 * _EDGE) + _EDGE
    mixtures = logits.shape[-1]
    component = (logits - torch.log(-torch.log(u[..., :mixtures]))).argmax(dim=-1)
    place = component[..., None, None].expand(*component.shape, 3, 1)
    mean, log_scale, (a, b, c) = (
        means.gather(-1, place)[..., 0],
        log_scales.gather(-1, place)[..., 0],
        coefficients.gather(-1, place)[..., 0].unbind(dim=-1),
    )
    drawn = u[..., mixtures:]
    x = mean + log_scale.exp() * (drawn.log() - (1.0 - drawn).log())
    red = x[..., 0].clamp(-1.0, 1.0)
    green = (x[..., 1] + a * red).clamp(-1.0, 1.0)
    blue = (x[..., 2] + b * red + c * green).clamp(-1.0, 1.0)
    return torch.stack([red, green, blue], dim=-1)


def log_likelihood(parameters: Tensor, pixels: Tensor) -> Tensor:
    """Return the log probability ``[...]`` in nats of 8-bit pixels, given as x / 127.5 - 1 ``[..., 3]``.

    The probability of a value is the logistic mass of its bin of width 2/255; the bins of 0 and 255 reach to
    infinity. Where the mass is below 1e-5 it is the density at the centre times the width.
    """
    logits, means, log_scales, coefficients = split(parameters)
    red, green = pixels[..., 0, None], pixels[..., 1, None]
    a, b, c = coefficients.unbind(dim=-2)
    shift = torch.stack([torch.zeros_like(a), a * red, b * red + c * green], dim=-2)
    x = pixels[..., None]
    centred, inverse = x - means - shift, torch.exp(-log_scales)
    upper, lower = inverse * (centred + 1.0 / 255.0), inverse * (centred - 1.0 / 255.0)
    mass = torch.sigmoid(upper) - torch.sigmoid(lower)
    middle = inverse * centred
    log_density = middle - log_scales - 2.0 * torch.nn.functional.softplus(middle)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), log_density - math.log(127.5))
    below = torch.nn.functional.logsigmoid(upper)
    above = -torch.nn.functional.softplus(lower)
    each = torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))
    return torch.logsumexp(each.sum(dim=-2) + torch.log_softmax(logits, dim=-1), dim=-1)
