"""A lane: one network's share of the pass over the images, or a probe that makes its own rows.

On a GPU each batch of images is copied once, from pinned memory and without waiting, for all lanes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.core import Extractor, ImageBatch, IndexArray, Probe
from evalkit.errors import InvalidInputError
from evalkit.shards import ShardStore
from evalkit.sources.ahead import TimedBatch

Rows = dict[str, NDArray[np.float32]]
Measure = Callable[[IndexArray, ImageBatch | None, Sequence[str]], Rows]


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """What is measured for each index, which heads are wanted, and where the shards are kept.

    ``width`` is how many numbers all of the heads have for one index, 0 where nobody knows.
    """

    measure: Measure
    heads: tuple[str, ...]
    store: ShardStore
    width: int = 0

    @classmethod
    def of_extractor(cls, extractor: Extractor, heads: Sequence[str], store: ShardStore) -> Self:
        """Return the lane of a network that sees the images of the pass."""
        width = sum(extractor.heads[head] for head in heads)
        return cls(partial(_extracted, extractor), tuple(heads), store, width)

    @classmethod
    def of_probe(cls, probe: Probe, heads: Sequence[str], store: ShardStore) -> Self:
        """Return the lane of a probe, which needs no images of the pass."""
        return cls(partial(_probed, probe), tuple(heads), store, sum(probe.heads[head] for head in heads))


def _probed(probe: Probe, index: IndexArray, _batch: ImageBatch | None, heads: Sequence[str]) -> Rows:
    rows = probe(index, heads)
    return {head: np.asarray(rows[head], dtype=np.float32) for head in heads}


def _extracted(
    extractor: Extractor, _index: IndexArray, batch: ImageBatch | None, heads: Sequence[str]
) -> Rows:
    if batch is None:
        raise ValueError("an extractor needs a pass over images")
    out: Rows = {}
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


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One batch: rows of each lane, how long they took, and what the images were."""

    rows: Mapping[int, Rows]
    read: float
    extract: Mapping[int, float]
    sizes: tuple[tuple[int, int], ...] = ()
    labels: IndexArray | None = None


def measured(
    lanes: Sequence[Lane],
    wanted: Mapping[int, Sequence[str]],
    index: IndexArray,
    read: Callable[[], TimedBatch] | None,
    device: torch.device,
) -> Measured:
    """Run each lane in ``wanted`` (number -> heads) once on the images that ``read`` gives, if there are any.

    They are held here alone, so that they are gone before the next ones are asked for.
    """
    timed = None if read is None else read()
    batch = None if timed is None else _on_device(timed.images, device)
    rows: dict[int, Rows] = {}
    seconds: dict[int, float] = {}
    for number, heads in wanted.items():
        start = time.perf_counter()
        rows[number] = lanes[number].measure(index, batch, heads)
        synchronise(device)
        seconds[number] = time.perf_counter() - start
    if timed is None or batch is None:
        return Measured(rows, 0.0, seconds)
    sizes = tuple({(images.shape[2], images.shape[3]) for _, images in batch.same_size_groups()})
    return Measured(rows, timed.seconds, seconds, sizes, batch.labels)


@dataclass(slots=True)
class ShardFacts:
    """What is noted about a shard while it is computed."""

    device: torch.device
    images: list[int] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    extract: list[Mapping[int, float]] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    labels: list[IndexArray | None] = field(default_factory=list)
    out_of_memory_batch: int | None = None

    def add(self, images: int, batch: Measured) -> None:
        """Note one batch of ``images``."""
        self.images.append(images)
        self.read.append(batch.read)
        self.extract.append(batch.extract)
        self.sizes.update(batch.sizes)
        self.labels.append(batch.labels)

    def of(self, number: int) -> dict[str, Any]:
        """Return what is written beside the features of lane ``number``."""
        known = [part for part in self.labels if part is not None]
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "images": self.images,
            "read_seconds": self.read,
            "extract_seconds": [seconds[number] for seconds in self.extract],
            "sizes": sorted(self.sizes),
            "labels": np.concatenate(known).tolist() if len(known) == len(self.labels) else None,
            **({"out_of_memory_batch": self.out_of_memory_batch} if self.out_of_memory_batch else {}),
        }


def _on_device(batch: ImageBatch, device: torch.device) -> ImageBatch:
    if device.type != "cuda" or not isinstance(batch.images, torch.Tensor):
        return batch
    return replace(batch, images=batch.images.to(device, non_blocking=True))


def index_range(index: IndexArray) -> str:
    """Return ``first..last`` of a run of indices, for messages."""
    return f"{index[0]}..{index[-1]}"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given, so that a clock reads the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
