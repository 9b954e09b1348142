"""Sample i is a function of (base seed, stream, i): seeds, labels and noise keyed by the global index.

Which image is drawn never depends on batch size, rank, worker count or a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]

SEED_SCHEME = "philox4x64(base seed, stream) / 1"
"""Version of the rule that maps an index to a seed and a label; part of the protocol fingerprint."""

_NUMBERS_A_THREAD = 1 << 18
"""Normal numbers that are worth a thread: about 2 ms of drawing, against 0.1 ms to start it."""

_STREAMS = {"latent": 0, "label": 1, "subset": 2, "block": 3, "metric": 4, "path": 5}
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # SplitMix64 finaliser (Steele 2014)


def image_seeds(base_seed: int, index: IndexArray, *, name: str = "latent") -> IndexArray:
    """Return one 63-bit seed for each global index.

    SplitMix64 (Steele, Lea & Flood 2014) at counter ``index + 1`` from a state drawn by Philox from
    ``base_seed``: a bijection of the counter, so no two indices share a seed before the top bit is dropped.

    Args:
        base_seed: non-negative integer.
        index: int64 ``[n]`` global indices.
        name: the stream that the state is drawn from: one for each use, so that uses are independent.

    Returns:
        int64 ``[n]``, each in ``0 .. 2**63 - 1``.
    """
    start = np.uint64(stream(base_seed, name).integers(0, 2**63, dtype=np.uint64))
    with np.errstate(over="ignore"):
        z = start + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * _MIX[0]
        z = (z ^ (z >> np.uint64(27))) * _MIX[1]
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(1)).astype(np.int64)


def balanced_labels(base_seed: int, index: IndexArray, num_classes: int) -> IndexArray:
    """Return a class label for each global index: every run of ``num_classes`` indices holds each class once.

    Returns:
        int64 ``[n]`` in ``0 .. num_classes - 1``.
    """
    labels = np.empty(len(index), dtype=np.int64)
    groups = index // num_classes
    for group in np.unique(groups):
        order = stream(base_seed, "label", int(group)).permutation(num_classes)
        inside = groups == group
        labels[inside] = order[index[inside] % num_classes]
    return labels


def stream(base_seed: int, name: str, *counters: int) -> np.random.Generator:
    """Return the Philox generator of a named stream; ``counters`` select an independent sub-stream."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([base_seed, _STREAMS[name], *counters]))
    )


def per_image_generators(seeds: IndexArray) -> list[torch.Generator]:
    """Return one CPU generator for each image, so that its draws depend on nothing but its seed."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def normal_per_image(seeds: IndexArray, shape: Sequence[int], *, device: torch.device) -> torch.Tensor:
    """Return standard normal float32 ``[n, *shape]``; row i is drawn on the CPU from ``seeds[i]`` alone.

    Row i is what ``torch.randn(*shape, generator=torch.Generator().manual_seed(seeds[i]))`` gives, to the
    last bit. One generator is seeded anew for each row and writes into its place: no object, allocation or
    copy for each image. Many numbers are drawn on several threads, each with a generator of its own.
    """
    drawn = torch.empty(len(seeds), *shape)
    threads = min(torch.get_num_threads(), drawn.numel() // _NUMBERS_A_THREAD, len(seeds))
    if threads <= 1:
        _fill_rows(seeds, drawn)
        return drawn.to(device)
    parts = np.array_split(seeds, threads), torch.tensor_split(drawn, threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_fill_rows, *parts))
    return drawn.to(device)


def _fill_rows(seeds: IndexArray, rows: torch.Tensor) -> None:
    generator = torch.Generator()
    with torch.inference_mode(rows.is_inference()):  # a mode of the thread
        for seed, row in zip(seeds.tolist(), rows.unbind(), strict=True):
            row.normal_(generator=generator.manual_seed(seed))
