"""The shards of one lane after a pass: rows in index order, their labels, and their jackknife blocks.

In memory are the facts of each shard, and 8 bytes an image for its place and 8 for its label: features are
read from the files of the shards when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit.core import FeatureSet, IndexArray
from evalkit.errors import NothingMeasuredError
from evalkit.numerics.blocks import LazyBlocks
from evalkit.seeding import stream
from evalkit.shards import ShardLayout, ShardResult

_SHOWN = 20


@dataclass(slots=True)
class Extracted:
    """Every shard of one lane (in order, so far, while images still come), and how it went.

    Of a part only its own shards: what is below of rows in index order is for whole runs.
    """

    layout: ShardLayout
    shards: list[ShardResult] = field(default_factory=list)
    reused: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, shard: ShardResult) -> None:
        """Add the next shard; if it lies in a file its features stay there.

        Raises:
            TemporaryError: the file is gone.
        """
        self.shards.append(shard.left_in_file())

    def features(self, head: str) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` of one head in index order, read anew each time.

        Raises:
            TemporaryError: the file of a shard is gone.
        """
        every = np.arange(sum(shard.shape(head)[0] for shard in self.shards), dtype=np.int64)
        return ShardBlocks(self.shards, head, (every,))[0]

    def labels(self) -> IndexArray | None:
        """Return the int64 ``[n]`` labels of the images, or None where they have none."""
        parts = [shard.facts.get("labels") for shard in self.shards]
        if any(part is None for part in parts):
            return None
        return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])

    def image_size(self) -> tuple[int, int] | None:
        """Return ``(height, width)`` where all images share one size."""
        sizes = {tuple(size) for shard in self.shards for size in shard.facts["sizes"]}
        return sizes.pop() if len(sizes) == 1 else None

    def blocks(self, *, contiguous: bool) -> tuple[IndexArray, ...]:
        """Return the indices of each jackknife block: of those that are whole, while images still come.

        Contiguous blocks are runs of shards, for images that are independent draws in index order; the
        others are a fixed random partition, for files, whose order often follows their classes.
        """
        if contiguous:
            return tuple(
                np.concatenate([self.layout.indices(shard) for shard in block])
                for block in self.layout.blocks()
                if block.stop <= len(self.shards)
            )
        order = stream(0, "block").permutation(self.layout.count)
        return tuple(np.sort(part) for part in np.array_split(order, len(self.layout.blocks())))

    def in_blocks(
        self, head: str, *, contiguous: bool, texts: NDArray[np.float32] | None = None
    ) -> FeatureSet:
        """Return the features of ``head`` cut into blocks, with labels where the images have them.

        Reading them raises TemporaryError where the file of a shard is gone.
        """
        labels, parts = self.labels(), self.blocks(contiguous=contiguous)
        return FeatureSet(
            ShardBlocks(self.shards, head, parts),
            labels=None if labels is None else tuple(labels[part] for part in parts),
            texts=None if texts is None else tuple(texts[part] for part in parts),
        )


class ShardBlocks(LazyBlocks):
    """One head of consecutive shards, the first of them shard 0, cut into blocks.

    Args:
        shards: where the rows are.
        head: which of their heads.
        parts: ascending int64 indices of the images of each block.
    """

    def __init__(self, shards: Sequence[ShardResult], head: str, parts: Sequence[IndexArray]) -> None:
        shapes = [shard.shape(head) for shard in shards]
        super().__init__([len(part) for part in parts], shapes[0][1])
        self._shards, self._head, self._parts = tuple(shards), head, tuple(parts)
        self._edges = np.cumsum([0, *(rows for rows, _ in shapes)])

    def read(self, block: int) -> Iterator[NDArray[np.float32]]:
        """Yield the rows of a block in index order, those of one shard at a time.

        Raises:
            TemporaryError: the file of a shard is gone.
        """
        part = self._parts[block]
        cuts = np.searchsorted(part, self._edges)
        for number, shard in enumerate(self._shards):
            chosen = part[cuts[number] : cuts[number + 1]]
            if len(chosen):
                yield shard.rows(self._head, chosen - self._edges[number])


class MissingShards(NothingMeasuredError):  # noqa: N818 - what it says, not how it went
    """Shards are missing, or damaged, and may not be computed: ``shards`` are their numbers."""

    def __init__(self, shards: Sequence[int], layout: ShardLayout, damage: Sequence[str]) -> None:
        ranges = [f"{shard} (images {layout.range_of(shard)})" for shard in shards[:_SHOWN]]
        more = [f"{len(shards) - _SHOWN} more"] if len(shards) > _SHOWN else []
        super().__init__(
            f"{len(shards)} of {layout.shards} shards are missing: {', '.join([*ranges, *more])}",
            hint="; ".join(damage) or None,
        )
        self.shards = tuple(shards)
