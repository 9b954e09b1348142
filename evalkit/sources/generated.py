"""A generator as an image source: index -> seed and label -> image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import OutOfMemoryError, Tensor

from evalkit.core import Generator, ImageBatch, IndexArray, PromptedGenerator
from evalkit.errors import EvalkitError, InvalidInputError, UsageError
from evalkit.seeding import SEED_SCHEME, balanced_labels, image_seeds
from evalkit.spec import Spec, sha256_of


@dataclass(frozen=True, eq=False)
class GeneratedSource:
    """``count`` samples of ``generator`` from ``base_seed``; labels are balanced by index.

    ``origin`` tells generators apart whose own specs say too little: their import path and checkpoint digest.
    ``prompts`` are those of images 0, 1, …, for generators that take them; they begin again where they end.
    """

    generator: Generator
    count: int
    base_seed: int = 0
    origin: str = ""
    prompts: tuple[str, ...] = ()

    @property
    def prompted(self) -> bool:
        """Whether the generator draws from prompts."""
        return isinstance(self.generator, PromptedGenerator) and self.generator.takes_prompts

    @property
    def spec(self) -> Spec:
        """The generator's spec, the seeds and the prompts drawn from; identifies every image."""
        told = {"prompts": sha256_of(list(self.prompts))} if self.prompted and self.prompts else {}
        return Spec.of(
            "source",
            "generated",
            sha256=self.generator.spec.digest(),
            base_seed=self.base_seed,
            scheme=SEED_SCHEME,
            origin=self.origin,
            **told,
        )

    def __len__(self) -> int:
        return self.count

    def read(self, index: IndexArray) -> ImageBatch:
        """Sample the images at int64 ``index``.

        Raises:
            InvalidInputError: the generator returned something but uint8 ``[n, 3, h, w]``.
            UsageError: it draws from prompts and there are none.
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
            return self._draw(seeds, index, labels)
        try:
            return self._draw(seeds, index, labels)
        except (EvalkitError, MemoryError, OutOfMemoryError):
            raise
        except Exception as error:  # somebody's own code may raise anything
            raise InvalidInputError(
                f"the generator {self.origin.partition(' ')[0]} failed: {type(error).__name__}: {error}"
            ) from error

    def _draw(self, seeds: IndexArray, index: IndexArray, labels: IndexArray | None) -> Tensor:
        generator = self.generator
        if not (isinstance(generator, PromptedGenerator) and generator.takes_prompts):
            return generator.generate(seeds, labels=labels)
        if not self.prompts:
            raise UsageError("this model draws from prompts", hint="--prompts FILE, one line an image")
        prompts = [self.prompts[int(i) % len(self.prompts)] for i in index]
        return generator.generate_prompted(seeds, prompts, labels=labels)
