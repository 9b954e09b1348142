"""A fixed random subset of an image source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evalkit.core import ImageBatch, ImageSource, IndexArray
from evalkit.seeding import stream
from evalkit.spec import Spec


@dataclass(frozen=True, eq=False)
class SubsetSource:
    """``count`` images of ``source``, drawn without replacement from ``base_seed``, in the source's order."""

    source: ImageSource
    count: int
    base_seed: int = 0

    @property
    def spec(self) -> Spec:
        """The digest of the source's spec (content and decoding), and which subset."""
        return Spec.of(
            "source",
            "subset",
            sha256=self.source.spec.digest(),
            count=self.count,
            of=len(self.source),
            base_seed=self.base_seed,
        )

    def __len__(self) -> int:
        return self.count

    def read(self, index: IndexArray) -> ImageBatch:
        """Return the images at positions ``index`` of the subset."""
        batch = self.source.read(self.positions(index))
        return ImageBatch(images=batch.images, index=index, labels=batch.labels)

    def positions(self, index: IndexArray) -> IndexArray:
        """Return where the images at ``index`` of the subset lie in the source, int64 ``[n]``."""
        return self._chosen[index]

    @cached_property
    def _chosen(self) -> IndexArray:
        chosen = stream(self.base_seed, "subset").choice(len(self.source), self.count, replace=False)
        return np.sort(chosen).astype(np.int64)
