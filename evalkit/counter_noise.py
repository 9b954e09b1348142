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
    shape = torch.broadcast_shapes(*(word.shape for word in (*counter, *key)))
    c0, c1, c2, c3 = (word.expand(shape).clone() for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, which keeps all 64 bits of a product of two 32-bit words. c1 and
        # c3 are their low halves: what stands above is cut off where it reaches the next product, or the end.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        _fold(c0, second, c1, k0)
        _fold(c2, first, c3, k1)
        c1, c3 = second, first
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1.bitwise_and_(_WORD), c2, c3.bitwise_and_(_WORD)


def _fold(target: Tensor, product: Tensor, low: Tensor, key: Tensor) -> None:
    """Put (high half of ``product``) ^ ``low`` ^ ``key`` into ``target``, which it may be made from."""
    torch.bitwise_right_shift(product, 32, out=target)
    target.bitwise_xor_(low).bitwise_xor_(key).bitwise_and_(_WORD)


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
    words = _words_at(seeds, step, count, stream=stream, device=device)
    return torch.stack(words, dim=-1).flatten(1)[:, :count]


def _words_at(
    seeds: IndexArray, step: int, count: int, *, stream: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four words ``[n, blocks]`` of every block of :func:`bits_at`."""
    keys = torch.from_numpy(seeds).to(device).unsqueeze(1)
    blocks = torch.arange(-(-count // 4), device=device).unsqueeze(0)
    fixed = [torch.full_like(blocks, value) for value in (step, stream, 0)]
    return philox4x32((blocks, *fixed), (keys & _WORD, (keys >> 32) & _WORD))


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
    words = _words_at(seeds, step, count, stream=stream, device=where)
    drawn = torch.empty((len(seeds), words[0].shape[1], 4), dtype=torch.float32, device=where)
    for place in (0, 2):
        unit = words[place].to(torch.float64).add_(1.0).mul_(2.0**-32)
        radius = unit.log_().mul_(-2.0).sqrt_()
        angle = words[place + 1].to(torch.float64).mul_(2.0 * math.pi * 2.0**-32)
        torch.mul(radius, torch.cos(angle), out=drawn[..., place])
        torch.mul(radius, angle.sin_(), out=drawn[..., place + 1])
    return drawn.flatten(1)[:, :count].reshape(len(seeds), *shape).to(device)


def exact_device(device: torch.device | str) -> torch.device:
    """Return where float64 is computed for ``device``: there, or on the CPU for MPS, which has no float64."""
    chosen = torch.device(device)
    return torch.device("cpu") if chosen.type == "mps" else chosen
