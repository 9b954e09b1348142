"""The frame around every network: check the request, run small chunks in strict numerics, join the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evalkit.errors import InvalidInputError, UsageError
from evalkit.extractors.facts import ExtractorFacts
from evalkit.runtime import strict_numerics

# Images (uint8, on the network's device) and the wanted heads -> float32 [n, d] for each.
ChunkForward = Callable[[Tensor, frozenset[str]], Mapping[str, Tensor]]


def run_in_chunks(
    images: Tensor,
    heads: Sequence[str],
    *,
    facts: ExtractorFacts,
    device: torch.device,
    chunk: int,
    forward: ChunkForward,
) -> dict[str, Tensor]:
    """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features on ``device``, one entry a head.

    ``chunk`` images go through the network at a time, whatever the batch size: memory stays flat, and on
    CPU the activations stay in cache and in recycled allocations, which is twice as fast as one large batch.

    Raises:
        UsageError: no head, an unknown head, or images that are not uint8.
        InvalidInputError: images are not ``[n, 3, h, w]`` or have no pixels.
    """
    wanted = frozenset(heads)
    if not wanted:
        raise UsageError(f"no head of extractor {facts.name!r} was asked for")
    dimensions = {head: facts.dimensions(head) for head in heads}
    if images.dtype != torch.uint8:
        raise UsageError(f"images must be uint8 in 0..255, not {images.dtype}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InvalidInputError(f"images must be [n, 3, h, w], not {list(images.shape)}")
    joined = {
        head: torch.empty((len(images), width), dtype=torch.float32, device=device)
        for head, width in dimensions.items()
    }
    with strict_numerics():
        for start in range(0, len(images), chunk):
            part = images[start : start + chunk].to(device)
            for head, features in forward(part, wanted).items():
                joined[head][start : start + chunk] = features
    return joined
