"""The frame around every network: check the request, run small chunks in strict numerics, join the heads.

On a CPU the chunks run side by side, one thread each, instead of one after the other with all threads in
every layer. That has no barriers (ten times faster while the machine is shared, no slower while it is
not), and features then do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evalkit.errors import InvalidInputError, UsageError
from evalkit.extractors.facts import ExtractorFacts
from evalkit.runtime import strict_numerics
from evalkit.threads import in_threads

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

    ``chunk`` images go through the network at a time, whatever the batch size, so that memory stays flat.

    Raises:
        UsageError: no head, an unknown head, or images that are not uint8.
        InvalidInputError: images are not ``[n, 3, h, w]`` or have no pixels.
    """
    if not heads:
        raise UsageError(f"no head of extractor {facts.name!r} was asked for")
    joined = {
        head: torch.empty((len(images), facts.dimensions(head)), dtype=torch.float32, device=device)
        for head in heads
    }
    _check_images(images)
    wanted = frozenset(heads)

    def run(part: Tensor) -> Mapping[str, Tensor]:
        with torch.inference_mode():  # a mode of the thread, so it is entered in each worker
            return forward(part.to(device), wanted)

    parts = tuple(images[start : start + chunk] for start in range(0, len(images), chunk))
    with strict_numerics():
        results = in_threads(run, parts) if device.type == "cpu" else map(run, parts)
        for number, result in enumerate(results):
            for head, features in result.items():
                joined[head][number * chunk : (number + 1) * chunk] = features
    return joined


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise UsageError(f"images must be uint8 in 0..255, not {images.dtype}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InvalidInputError(f"images must be [n, 3, h, w], not {list(images.shape)}")
