"""How fast a generator samples: warm-up apart, device synchronised, extraction timed separately."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from evalkit.core import Generator, ImageSource
from evalkit.extraction import Extracted
from evalkit.lanes import synchronise
from evalkit.record import Performance

WORTHWHILE: Final = 1.05
"""A larger batch is worth its memory where it is faster by this factor."""

_PATIENCE = 2


def climb(sizes: Iterable[int], rate_of: Callable[[int], float | None]) -> dict[int, float]:
    """Return the images/s of growing batches, up to where growing does not pay any more.

    It ends at a size that does not fit, or at the second in a row that is not :data:`WORTHWHILE` times as
    fast as the best before it: one alone may be an unlucky measurement. Which images are drawn, and hence
    every score, does not depend on the batch, so the result decides about time and memory alone.

    Args:
        sizes: ascending.
        rate_of: measures a size; None where it does not fit into memory.
    """
    rates: dict[int, float] = {}
    best, idle = 0.0, 0
    for size in sizes:
        rate = rate_of(size)
        if rate is None:
            break
        idle = 0 if rate >= WORTHWHILE * best else idle + 1
        rates[size], best = rate, max(best, rate)
        if idle == _PATIENCE:
            break
    return rates


def plateau(rates: Mapping[int, float]) -> int:
    """Return the smallest batch that no other is faster than by :data:`WORTHWHILE`.

    Raises:
        ValueError: nothing was measured.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate * WORTHWHILE >= best)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What one image outside the measurement showed.

    Attributes:
        seconds: time to the first image, with everything that is compiled or allocated on the way.
        flops: floating-point operations of that image, two for each multiply-add, over all evaluations.
    """

    seconds: float
    flops: int


def warm_up(source: ImageSource, device: torch.device) -> WarmUp:
    """Sample one image twice: once against the clock, once counting operations."""
    index = np.zeros(1, dtype=np.int64)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    source.read(index)
    synchronise(device)
    seconds = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter:
        source.read(index)
    return WarmUp(seconds=seconds, flops=int(counter.get_total_flops()))


def performance(
    extracted: Extracted, *, generator: Generator, warm: WarmUp, device: torch.device, dtype: str
) -> Performance:
    """Summarise the batches of a run in the ``offline`` scenario.

    ms per image is the batch's time divided by its images; p50 and p90 are over batches. Shards keep their
    own times: where a run was continued on another device or with other threads, those that computed most
    of the shards are reported, and named.
    """
    places = Counter((shard.facts["device"], shard.facts["threads"]) for shard in extracted.shards)
    (place, threads), _ = places.most_common(1)[0]
    batches = [
        (images, read, extract)
        for shard in extracted.shards
        if (shard.facts["device"], shard.facts["threads"]) == (place, threads)
        for images, read, extract in zip(
            shard.facts["images"], shard.facts["read_seconds"], shard.facts["extract_seconds"], strict=True
        )
    ]
    images = np.array([b[0] for b in batches])
    reading = np.array([b[1] for b in batches])
    extracting = np.array([b[2] for b in batches])
    milliseconds = 1000.0 * reading / images
    return Performance(
        scenario="offline",
        throughput=float(images.sum() / reading.sum()),
        latency_p50_ms=float(np.percentile(milliseconds, 50)),
        latency_p90_ms=float(np.percentile(milliseconds, 90)),
        latency_p99_ms=None,
        nfe=round(getattr(generator, "evaluations_per_image", None) or 0) or None,
        parameters=getattr(generator, "parameter_count", None),
        flops_per_image=warm.flops or None,
        peak_memory_bytes=peak_memory(device),
        energy_per_image_joule=None,
        batch_size=int(images.max()),
        images=int(images.sum()),
        device=place,
        dtype=dtype,
        warmup_seconds=warm.seconds,
        extraction_throughput=float(images.sum() / extracting.sum()),
    )


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use since the warm-up: of the device, or of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
