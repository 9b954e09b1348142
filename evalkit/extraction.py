"""The one pass over the images: source -> extractor -> one whole file for each shard.

Every shard is computed in the same batches whatever was interrupted before it, so a resumed run ends in
the identical files. The images of a batch exist only inside :func:`extract`.

Accepted trade-offs: an interruption drops the batches of the shard at hand (at most 64 images at the 1 024 of
the embedded protocol, 512 from 8 192 images on); a half shard would be a second kind of state.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from evalkit.core import Extractor, FeatureSet, ImageBatch, ImageSource, IndexArray
from evalkit.errors import EvalkitError, InvalidInputError, TemporaryError
from evalkit.runtime import strict_numerics
from evalkit.seeding import stream
from evalkit.shards import ShardLayout, ShardResult, ShardStore

Progress = Callable[[int], None]
_KEY = 16


class Interrupted(EvalkitError):  # noqa: N818 - the user did it, it is no error
    """A signal asked the run to stop; every whole shard is kept."""

    exit_code = 130


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to extract: the first ``layout.count`` images of ``source`` through ``heads`` of ``extractor``.

    ``fresh`` forgets the shards of earlier runs.
    """

    source: ImageSource
    extractor: Extractor
    heads: tuple[str, ...]
    layout: ShardLayout
    store: ShardStore
    batch_size: int
    device: torch.device
    fresh: bool = False


@dataclass(slots=True)
class Extracted:
    """Every shard of a job, and how it went."""

    layout: ShardLayout
    shards: list[ShardResult] = field(default_factory=list)
    reused: int = 0
    warnings: list[str] = field(default_factory=list)

    def features(self, head: str) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` of one head in index order."""
        return np.concatenate([shard.features[head] for shard in self.shards])

    def image_size(self) -> tuple[int, int] | None:
        """Return ``(height, width)`` where all images share one size."""
        sizes = {tuple(size) for shard in self.shards for size in shard.facts["sizes"]}
        return sizes.pop() if len(sizes) == 1 else None

    def in_contiguous_blocks(self, head: str) -> FeatureSet:
        """Blocks are runs of shards: for images that are independent draws in index order."""
        return FeatureSet(
            tuple(
                np.concatenate([self.shards[s].features[head] for s in block])
                for block in self.layout.blocks()
            )
        )

    def in_shuffled_blocks(self, head: str) -> FeatureSet:
        """Blocks are a fixed random partition: for files, whose order often follows their classes."""
        features = self.features(head)
        order = stream(0, "block").permutation(len(features))
        parts = np.array_split(order, len(self.layout.blocks()))
        return FeatureSet(tuple(features[np.sort(part)] for part in parts))


def default_batch_size(device: torch.device) -> int:
    """Return the batch size of ``--batch-size auto``; a batch never crosses a shard."""
    return 64 if device.type == "cpu" else 512


def state_store(state: Path, source: ImageSource, extractor: Extractor, layout: ShardLayout) -> ShardStore:
    """Return where the shards of these images through this extractor lie: keyed by content, not by name."""
    images, network = source.spec.digest()[:_KEY], extractor.spec.digest()[:_KEY]
    return ShardStore(state / f"{images}-{network}-{layout.shard_size}")


def extract(job: Job, *, progress: Progress, stop: Callable[[], int]) -> Extracted:
    """Compute every shard that is not there yet, in order, and return them all.

    Args:
        job: what to extract.
        progress: called with the number of images done, batch by batch.
        stop: returns the number of a signal that arrived, or 0; asked after each batch.

    Raises:
        Interrupted: ``stop`` said so; whole shards are kept.
        InvalidInputError: an image or a feature is not usable.
        TemporaryError: another process works on the same state, or the disk is full.
    """
    done = Extracted(job.layout)
    with _exclusive(job.store.folder), strict_numerics():
        if job.fresh:
            job.store.clear()
        for shard in range(job.layout.shards):
            index = job.layout.indices(shard)
            result, warning = job.store.read(shard, len(index))
            if warning:
                done.warnings.append(warning)
            if result is None or not set(job.heads) <= set(result.features):
                # What was extracted before stays: asking for heads in turn never computes one twice.
                heads = tuple(dict.fromkeys([*job.heads, *(result.features if result else ())]))
                result = _compute(replace(job, heads=heads), index, progress=progress, stop=stop)
                job.store.write(shard, result)
            else:
                done.reused += len(index)
                progress(len(index))
            done.shards.append(result)
    return done


def _compute(job: Job, index: IndexArray, *, progress: Progress, stop: Callable[[], int]) -> ShardResult:
    parts: dict[str, list[NDArray[np.float32]]] = {head: [] for head in job.heads}
    facts: dict[str, Any] = {
        "device": str(job.device), "threads": torch.get_num_threads(),
        "images": [], "read_seconds": [], "extract_seconds": [], "sizes": [],
    }  # fmt: skip
    size, position = min(job.batch_size, len(index)), 0
    while position < len(index):
        part = index[position : position + size]
        try:
            features, timing = _one_batch(job, part)
        except torch.OutOfMemoryError:
            if size == 1:
                raise TemporaryError(
                    f"one image does not fit into the memory of {job.device}",
                    hint="free the device, or choose another with --device",
                ) from None
            torch.cuda.empty_cache()
            size = max(size // 2, 1)
            facts["out_of_memory_batch"] = size
            continue
        for head in job.heads:
            parts[head].append(features[head])
        facts["images"].append(len(part))
        facts["read_seconds"].append(timing.read)
        facts["extract_seconds"].append(timing.extract)
        facts["sizes"] = sorted({*map(tuple, facts["sizes"]), *timing.sizes})
        position += len(part)
        progress(len(part))
        if signal_number := stop():
            raise _interruption(signal_number)
    return ShardResult({head: np.concatenate(x) for head, x in parts.items()}, facts)


@dataclass(frozen=True, slots=True)
class _Timing:
    read: float
    extract: float
    sizes: tuple[tuple[int, int], ...]


def _one_batch(job: Job, index: IndexArray) -> tuple[dict[str, NDArray[np.float32]], _Timing]:
    start = time.perf_counter()
    batch = job.source.read(index)
    synchronise(job.device)
    middle = time.perf_counter()
    features = _features(job.extractor, batch, job.heads)
    synchronise(job.device)
    end = time.perf_counter()
    sizes = tuple({(images.shape[2], images.shape[3]) for _, images in batch.same_size_groups()})
    return features, _Timing(middle - start, end - middle, sizes)


def _features(
    extractor: Extractor, batch: ImageBatch, heads: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    out: dict[str, NDArray[np.float32]] = {}
    for positions, images in batch.same_size_groups():
        for head, values in extractor(images, heads).items():
            if not bool(torch.isfinite(values).all()):
                raise InvalidInputError(
                    f"features of head {head!r} are not finite (images {index_range(batch.index)})",
                    hint="are the extractor's weights whole?",
                )
            filled = out.setdefault(head, np.empty((len(batch), values.shape[1]), dtype=np.float32))
            filled[positions] = values.float().cpu().numpy()
    return out


def index_range(index: IndexArray) -> str:
    """Return ``first..last`` of a run of indices, for messages."""
    return f"{index[0]}..{index[-1]}"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given, so that a clock reads the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _interruption(number: int) -> Interrupted:
    error = Interrupted("stopped by a signal; whole shards are kept", hint="run the same command to continue")
    error.exit_code = 128 + number  # type: ignore[misc]  # 130 for SIGINT, 143 for SIGTERM
    return error


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the operating system frees it when the holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=False)
        lock.acquire()
    except Timeout as error:
        holder = (folder / ".holder").read_text().strip() if (folder / ".holder").is_file() else "unknown"
        raise TemporaryError(
            f"another evalkit run works on {folder} ({holder})", hint="wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise TemporaryError(
            f"cannot write to {folder}: {error.strerror}", hint="choose another --out"
        ) from error
    try:
        _note_holder(folder)
        yield
    finally:
        lock.release()


def _note_holder(folder: Path) -> None:
    (folder / ".holder").write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
