"""Random numbers as a function of (image seed, step, stream, element): Philox4x32-10, vectorised in torch.

A stochastic sampler draws fresh noise at every step. With one ``torch.Generator`` for each image that is one
call for each image and step; here it is one call for all images, and no state to keep:

    normal_at(image_seeds(0, index), step, (3, 32, 32), device=device)

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", sec. 3.3) maps a 128-bit
counter and a 64-bit key to four 32-bit words. The key is the image's seed; the counter is (block of four
elements, step, stream, 0). Row i depends on ``seeds[i]`` only, whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IndexArray = NDArray[np.int64]

STEP_STREAM, REFERENCE_STREAM, CHURN_STREAM, ELEMENT_STREAM = 0, 1, 2, 3
"""Streams in use: a sampler's steps, noise put on a reference image, churn, autoregressive uniforms."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four words for each counter and key: Philox4x32-10 (Salmon et al. 2011, sec. 3.3).

    Args:
        counter: four int64 tensors of 32-bit words, broadcastable with each other and with ``key``.
        key: two int64 tensors of 32-bit words.

    Returns:
        Four int64 tensors, each word in ``0 .. 2**32 - 1``.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def _product(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    # int64 products wrap modulo 2**64, which keeps all 64 bits of a product of two 32-bit words.
    product = words * factor
    return (product >> 32) & _WORD, product & _WORD


def bits_at(
    seeds: IndexArray, step: int, count: int, *, stream: int = 0, device: torch.device | str
) -> Tensor:
    """Return int64 ``[n, count]`` random 32-bit words, row i keyed by the 64 bits of ``seeds[i]``.

    Element e is word ``e % 4`` of the block at counter ``(e // 4, step, stream, 0)``; hence fewer elements
    are a prefix of more.

    Args:
        seeds: int64 ``[n]``.
        step: which draw of an image, ``0 .. 2**32 - 1``.
        count: elements for each image.
        stream: which use, ``0 .. 2**32 - 1``; streams are independent.
        device: where the words are computed, bitwise alike everywhere.
    """
    keys = torch.from_numpy(seeds).to(device).unsqueeze(1)
    blocks = torch.arange(-(-count // 4), device=device).unsqueeze(0)
    fixed = [torch.full_like(blocks, value) for value in (step, stream, 0)]
    words = philox4x32((blocks, *fixed), (keys & _WORD, (keys >> 32) & _WORD))
    return torch.stack(words, dim=-1).flatten(1)[:, :count]


def uniform_at(
    seeds: IndexArray, step: int, shape: Sequence[int], *, stream: int = 0, device: torch.device | str
) -> Tensor:
    """Return float32 ``[n, *shape]`` uniform in [0, 1), multiples of 2**-24; arguments as :func:`bits_at`."""
    bits = bits_at(seeds, step, math.prod(shape), stream=stream, device=device)
    return ((bits >> 8).to(torch.float32) * 2.0**-24).view(len(seeds), *shape)


def normal_at(
    seeds: IndexArray, step: int, shape: Sequence[int], *, stream: int = 0, device: torch.device | str
) -> Tensor:
    """Return float32 ``[n, *shape]`` standard normal; arguments as :func:`bits_at`.

    Box & Muller 1958 on pairs of words: r = sqrt(-2 log u), angle 2 pi v, with u in (0, 1] on 2**-32.
    Computed in float64: in float32 log u loses its digits near u = 1 and u itself its smallest values, and
    the float32 functions of different devices differ in the last bits, which the rounding to
    float32 here hides.
    """
    count = math.prod(shape)
    where = exact_device(device)
    bits = bits_at(seeds, step, -(-count // 2) * 2, stream=stream, device=where).view(len(seeds), -1, 2)
    unit = bits.to(torch.float64)
    radius = torch.sqrt(-2.0 * torch.log((unit[..., 0] + 1.0) * 2.0**-32))
    angle = unit[..., 1] * (2.0 * math.pi * 2.0**-32)
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.to(torch.float32).flatten(1)[:, :count].reshape(len(seeds), *shape).to(device)


def exact_device(device: torch.device | str) -> torch.device:
    """Return where float64 is computed for ``device``: there, or on the CPU for MPS, which has no float64."""
    chosen = torch.device(device)
    return torch.device("cpu") if chosen.type == "mps" else chosen
