"""A generator as an image source: index -> seed and label -> image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import OutOfMemoryError, Tensor

from evalkit.core import Generator, ImageBatch, IndexArray
from evalkit.errors import EvalkitError, InvalidInputError
from evalkit.seeding import SEED_SCHEME, balanced_labels, image_seeds
from evalkit.spec import Spec


@dataclass(frozen=True, eq=False)
class GeneratedSource:
    """``count`` samples of ``generator`` from ``base_seed``; labels are balanced by index.

    ``origin`` tells generators apart whose own specs say too little: their import path and checkpoint digest.
    """

    generator: Generator
    count: int
    base_seed: int = 0
    origin: str = ""

    @property
    def spec(self) -> Spec:
        """The generator's spec and the seeds; identifies every image."""
        return Spec.of(
            "source",
            "generated",
            sha256=self.generator.spec.digest(),
            base_seed=self.base_seed,
            scheme=SEED_SCHEME,
            origin=self.origin,
        )

    def __len__(self) -> int:
        return self.count

    def read(self, index: IndexArray) -> ImageBatch:
        """Sample the images at int64 ``index``.

        Raises:
            InvalidInputError: the generator returned something but uint8 ``[n, 3, h, w]``.
        """
        classes = self.generator.num_classes
        labels = balanced_labels(self.base_seed, index, classes) if classes else None
        images = self._generate(index, labels)
        if images.ndim != 4 or images.shape[:2] != (len(index), 3) or str(images.dtype) != "torch.uint8":
            raise InvalidInputError(
                f"the generator returned {images.dtype} {list(images.shape)}, "
                f"not uint8 [{len(index)}, 3, h, w]",
                hint="map [-1, 1] to uint8 inside generate(); evalkit never guesses the range",
            )
        return ImageBatch(images=images, index=index, labels=labels)

    def _generate(self, index: IndexArray, labels: IndexArray | None) -> Tensor:
        seeds = image_seeds(self.base_seed, index)
        if not self.origin:
            return self.generator.generate(seeds, labels=labels)
        try:
            return self.generator.generate(seeds, labels=labels)
        except (EvalkitError, MemoryError, OutOfMemoryError):
            raise
        except Exception as error:  # somebody's own code may raise anything
            raise InvalidInputError(
                f"the generator {self.origin.partition(' ')[0]} failed: {type(error).__name__}: {error}"
            ) from error
