"""Self-attention as the public codes of SAGAN and BigGAN have it, whatever its convolutions are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def weigh(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return ``value softmax(query^T key)^T``, float ``[n, v, p]``: each position's mean of the values.

    Args:
        query: ``[n, d, p]``; logits are not scaled (Zhang et al. 2019, eq. 1).
        key: ``[n, d, k]``.
        value: ``[n, v, k]``.
    """
    share = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
    return value @ share.transpose(1, 2)


def attend(
    x: Tensor,
    *,
    theta: Callable[[Tensor], Tensor],
    phi: Callable[[Tensor], Tensor],
    g: Callable[[Tensor], Tensor],
    o: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return ``o`` of the attended values (Zhang et al. 2019, eq. 1 and 2, with max-pooled keys and values).

    Every pixel of ``x`` ``[n, c, h, w]`` asks (``theta``) the 2x2-max-pooled keys (``phi``) for the
    max-pooled values (``g``).
    """
    query = theta(x).flatten(2)
    key = F.max_pool2d(phi(x), 2).flatten(2)
    value = F.max_pool2d(g(x), 2).flatten(2)
    return o(weigh(query, key, value).unflatten(2, x.shape[2:]))
