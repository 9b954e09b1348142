"""Reading pairs ahead: while an accelerator measures one part of a batch, a thread decodes the next.

    for part, batch in zip(parts, read_ahead(pairs, parts), strict=True):
        ...

At most two parts exist: the one that was yielded and the one that is being read. An error is raised where
its part would have been yielded, so that order and messages are those of reading without a thread.

Accepted trade-offs: on a CPU a batch is read in one go. Decoding uses every core already, and so do the
measures: side by side they would only take each other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from evalkit.core import IndexArray
from evalkit.pairs.sources import MatchedPairs, PairBatch, PairSource

_PARTS = 4
_LEAST = 8  # pairs in a part


def parts_of(index: IndexArray, pairs: PairSource, *, device: torch.device) -> list[IndexArray]:
    """Return ``index`` in order in the parts that are read one ahead of the other; in one where that is idle.

    Only pairs of files are split: a model that reconstructs images computes where the measures do.
    """
    if device.type == "cpu" or not isinstance(pairs, MatchedPairs):
        return [index]
    return list(np.array_split(index, min(_PARTS, max(len(index) // _LEAST, 1))))


def read_ahead(pairs: PairSource, parts: Sequence[IndexArray]) -> Iterator[PairBatch]:
    """Yield the pairs of each part, the next one read meanwhile.

    Raises:
        Exception: whatever ``pairs`` raises for a part, when its turn has come.
    """
    if len(parts) == 1:
        yield pairs.read(parts[0])
        return
    with ThreadPoolExecutor(1, "evalkit-pairs") as pool:
        reading = pool.submit(pairs.read, parts[0])
        for following in parts[1:]:
            batch = reading.result()
            reading = pool.submit(pairs.read, following)
            yield batch
        yield reading.result()
