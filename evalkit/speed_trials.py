"""How fast a generator samples, in the two scenarios of MLPerf inference (Reddi et al. 2020, section III).

``offline``: all images are wanted, in batches; what counts is images/s at the best batch size.
``single-stream``: one image at a time; what counts is how long one takes, at the median and in the tail.

Warm-up is apart, the device is synchronised around every batch, copying the images to the host is part of the
time, and a trial lasts at least a minimum of seconds and batches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch

from evalkit.core import Generator
from evalkit.energy import energy_counter, energy_per_image
from evalkit.errors import TemporaryError
from evalkit.lanes import synchronise
from evalkit.record import Performance
from evalkit.sources.generated import GeneratedSource
from evalkit.throughput import WarmUp, climb, peak_memory

FEWEST_BATCHES: Final = 3
LARGEST: Final = {"cpu": 256, "cuda": 4096, "mps": 1024}
"""The largest batch that is tried on each kind of device unless sizes are given."""

FEWEST_FOR_P99: Final = 1000
"""Images below which a 99th percentile would be a handful of values: none is reported."""

_FULL = 0.9


@dataclass(frozen=True, slots=True)
class TrialRules:
    """How long a trial lasts: at least ``min_seconds`` and :data:`FEWEST_BATCHES` batches."""

    min_seconds: float = 2.0

    def to_json(self) -> dict[str, float | int]:
        """Return what a speed depends on besides model and machine."""
        return {"min_seconds": self.min_seconds, "fewest_batches": FEWEST_BATCHES}


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of each batch of one trial, all of ``batch_size`` images, and joules an image where known."""

    batch_size: int
    seconds: tuple[float, ...]
    joules_per_image: float | None = None

    @property
    def images(self) -> int:
        """Images that were sampled."""
        return self.batch_size * len(self.seconds)


def time_batches(
    source: GeneratedSource, *, batch_size: int, rules: TrialRules, device: torch.device
) -> Timed:
    """Sample batch after batch until the trial is long enough; one batch before it is not counted."""
    joules = energy_counter(device)
    _timed_batch(source, 0, batch_size, device)
    seconds: list[float] = []
    before, start = joules(), time.perf_counter()
    while len(seconds) < FEWEST_BATCHES or sum(seconds) < rules.min_seconds:
        seconds.append(_timed_batch(source, len(seconds) + 1, batch_size, device))
    elapsed = time.perf_counter() - start
    energy = energy_per_image(before, joules(), seconds=elapsed, images=batch_size * len(seconds))
    return Timed(batch_size, tuple(seconds), energy)


def offline(
    generator: Generator,
    *,
    batch_sizes: tuple[int, ...],
    rules: TrialRules,
    warm: WarmUp,
    device: torch.device,
    dtype: str,
) -> list[Performance]:
    """Return one measurement for each batch size that fits into memory.

    Without ``batch_sizes`` the batch doubles until that does not pay (:func:`evalkit.throughput.climb`) or
    until the next would come near the memory of a CUDA device.

    Raises:
        TemporaryError: not even the first fits.
    """
    measured: list[Performance] = []
    source = GeneratedSource(generator, 2**40)

    def rate_of(size: int) -> float | None:
        if not batch_sizes and measured and not _has_room(measured[-1].peak_memory_bytes, device):
            return None
        try:
            timed = time_batches(source, batch_size=size, rules=rules, device=device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        measured.append(
            summary(timed, scenario="offline", generator=generator, warm=warm, device=device, dtype=dtype)
        )
        return measured[-1].throughput

    if not batch_sizes:
        climb((1 << k for k in range(LARGEST[device.type].bit_length())), rate_of)
    for size in batch_sizes:
        if rate_of(size) is None:
            break
    if not measured:
        raise TemporaryError(
            f"a batch of {next(iter(batch_sizes), 1)} does not fit into the memory of {device}",
            hint="try --batch-sizes 1,4,16",
        )
    return measured


def _has_room(peak: int | None, device: torch.device) -> bool:
    """Whether twice the memory of the last batch stays below nine tenths of a CUDA device's."""
    if device.type != "cuda" or peak is None:
        return True
    return 2 * peak <= _FULL * torch.cuda.get_device_properties(device).total_memory


def single_stream(
    generator: Generator, *, rules: TrialRules, warm: WarmUp, device: torch.device, dtype: str
) -> Performance:
    """Return the measurement of one image at a time."""
    timed = time_batches(GeneratedSource(generator, 2**40), batch_size=1, rules=rules, device=device)
    return summary(
        timed, scenario="single-stream", generator=generator, warm=warm, device=device, dtype=dtype
    )


def summary(
    timed: Timed,
    *,
    scenario: Literal["offline", "single-stream"],
    generator: Generator,
    warm: WarmUp,
    device: torch.device,
    dtype: str,
) -> Performance:
    """Return a trial as a row of the record; percentiles are over batches, in ms an image."""
    milliseconds = 1000.0 * np.asarray(timed.seconds) / timed.batch_size
    many = len(milliseconds) >= FEWEST_FOR_P99
    return Performance(
        scenario=scenario,
        throughput=timed.images / sum(timed.seconds),
        latency_p50_ms=float(np.percentile(milliseconds, 50)),
        latency_p90_ms=float(np.percentile(milliseconds, 90)),
        latency_p99_ms=float(np.percentile(milliseconds, 99)) if many else None,
        nfe=getattr(generator, "evaluations_per_image", None) or None,
        parameters=getattr(generator, "parameter_count", None),
        flops_per_image=warm.flops or None,
        peak_memory_bytes=peak_memory(device),
        energy_per_image_joule=timed.joules_per_image,
        batch_size=timed.batch_size,
        images=timed.images,
        device=str(device),
        dtype=dtype,
        warmup_seconds=warm.seconds,
    )


def best_offline(measured: list[Performance]) -> Performance:
    """Return the fastest batch size, the speed of a model in the offline scenario."""
    return max(measured, key=lambda p: p.throughput)


def _timed_batch(source: GeneratedSource, number: int, size: int, device: torch.device) -> float:
    index = np.arange(number * size, (number + 1) * size, dtype=np.int64)
    synchronise(device)
    start = time.perf_counter()
    for _, images in source.read(index).same_size_groups():
        images.cpu()
    synchronise(device)
    return time.perf_counter() - start
