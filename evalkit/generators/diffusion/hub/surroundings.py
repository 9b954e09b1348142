"""What pipelines touch besides their arguments: torch's global random streams, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers.utils import logging
from torch import Tensor

_MIX = 0x9E3779B97F4A7C15  # the golden ratio in 64 bits


@contextmanager
def no_progress() -> Iterator[None]:
    """Switch diffusers' loading bars off inside."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def own_global_stream(seed: int, device: str) -> Iterator[Callable[[], bool]]:
    """Seed torch's global streams from ``seed`` inside, restore them after; yields whether any was used.

    They are seeded by another number than ``seed`` itself, with which the image's own generator begins: equal
    numbers would add the starting noise again at a later step.
    """
    where = torch.device(device)
    cuda = [where.index or 0] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed((seed ^ _MIX) % 2**63)
        before = _states(cuda)

        def moved() -> bool:
            return any(not torch.equal(a, b) for a, b in zip(before, _states(cuda), strict=True))

        yield moved


def _states(cuda: list[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in cuda)]
