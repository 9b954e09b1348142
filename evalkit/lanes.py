"""A lane: one network's share of the pass over the images, or a probe that makes its own rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.core import Extractor, ImageBatch, IndexArray, Probe
from evalkit.errors import InvalidInputError
from evalkit.shards import ShardStore

Rows = dict[str, NDArray[np.float32]]
Measure = Callable[[IndexArray, ImageBatch | None, Sequence[str]], Rows]


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """What is measured for each index, which heads are wanted, and where the shards are kept."""

    measure: Measure
    heads: tuple[str, ...]
    store: ShardStore

    @classmethod
    def of_extractor(cls, extractor: Extractor, heads: Sequence[str], store: ShardStore) -> Self:
        """Return the lane of a network that sees the images of the pass."""
        return cls(partial(_extracted, extractor), tuple(heads), store)

    @classmethod
    def of_probe(cls, probe: Probe, heads: Sequence[str], store: ShardStore) -> Self:
        """Return the lane of a probe, which needs no images of the pass."""
        return cls(partial(_probed, probe), tuple(heads), store)


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


def index_range(index: IndexArray) -> str:
    """Return ``first..last`` of a run of indices, for messages."""
    return f"{index[0]}..{index[-1]}"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given, so that a clock reads the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
