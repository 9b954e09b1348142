"""Sampling that is equal to the last bit, whatever the batch size and however many workers share the work.

The kernels that a network runs through are chosen by the shape of the batch and the number of threads, and
two of them differ in the last bits. Here image i is always computed in the same batch: the whole block of
:data:`BLOCK` indices that i lies in, on one thread. A worker that is asked for a part computes the whole.

    strict = FixedBlockSource(GeneratedSource(generator, count=1024))
    strict.read(np.array([5]))  # the very image that strict.read(np.arange(1024)) has at 5

Accepted trade-offs: about half the speed on two cores, and equality between machines only where their
processors and libraries choose the same kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from evalkit.core import ImageBatch, IndexArray
from evalkit.runtime import bitwise_numerics
from evalkit.sources.generated import GeneratedSource
from evalkit.spec import Spec

BLOCK = 16
"""Images that are always computed together; a power of two, as the sizes of shards are."""

_KEPT_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class FixedBlockSource:
    """The images of ``source``, each computed in its own fixed block."""

    source: GeneratedSource
    _blocks: dict[int, tuple[Tensor, IndexArray | None]] = field(default_factory=dict, init=False)

    @property
    def spec(self) -> Spec:
        """The source's own, with the size of the blocks: other blocks give other last bits."""
        own = self.source.spec
        return Spec.of(own.kind, own.name, sha256=own.sha256, **dict(own.params), block=BLOCK)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: IndexArray) -> ImageBatch:
        """Sample the images at int64 ``index``.

        Raises:
            InvalidInputError: the generator returned something but uint8 ``[n, 3, h, w]``.
        """
        rows = [(self._block(int(i) // BLOCK), int(i) % BLOCK) for i in index]
        images = torch.stack([block[0][row] for block, row in rows])
        labelled = all(block[1] is not None for block, _ in rows)
        labels = np.array([block[1][row] for block, row in rows if block[1] is not None], dtype=np.int64)
        return ImageBatch(images=images, index=index, labels=labels if labelled else None)

    def _block(self, number: int) -> tuple[Tensor, IndexArray | None]:
        if number not in self._blocks:
            index = np.arange(number * BLOCK, (number + 1) * BLOCK, dtype=np.int64)
            with bitwise_numerics():
                # The last block goes beyond the count: its shape must not depend on the count.
                batch = replace(self.source, count=(number + 1) * BLOCK).read(index)
            if not isinstance(batch.images, Tensor):
                raise TypeError("a generator's images share one size")
            while len(self._blocks) >= _KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = (batch.images, batch.labels)
        return self._blocks[number]
