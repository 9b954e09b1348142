"""Images that a model made of other images: index -> source image -> translated image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.core import ImageBatch, ImageSource, IndexArray, Translator
from evalkit.errors import InvalidInputError
from evalkit.seeding import image_seeds
from evalkit.spec import Spec


@dataclass(frozen=True, eq=False)
class TranslatedSource:
    """The images of ``source`` after ``translator``, whose own spec must identify it (or ``origin`` does)."""

    source: ImageSource
    translator: Translator
    identity: str
    base_seed: int = 0

    @property
    def spec(self) -> Spec:
        """The digest of the images before, and what translates them."""
        return Spec.of(
            "source",
            "translated",
            sha256=self.source.spec.digest(),
            translator=self.identity,
            base_seed=self.base_seed,
        )

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: IndexArray) -> ImageBatch:
        """Translate the images at int64 ``index``; image i draws its noise, if any, from seed i.

        Raises:
            InvalidInputError: the model returned something but one uint8 RGB image for each image.
        """
        batch = self.source.read(index)
        seeds = image_seeds(self.base_seed, index)
        translated: list[Tensor] = [torch.empty(0)] * len(index)
        for positions, images in batch.same_size_groups():
            out = self.translator.translate(images, seeds=seeds[positions])
            if out.ndim != 4 or out.shape[:2] != (len(positions), 3) or out.dtype != torch.uint8:
                raise InvalidInputError(
                    f"the model returned {out.dtype} {list(out.shape)}, not uint8 [{len(positions)}, 3, h, w]"
                )
            for position, image in zip(positions.tolist(), out, strict=True):
                translated[position] = image
        return ImageBatch(images=translated, index=index, labels=batch.labels)
