"""Pairs as data: index -> a generated image, its reference image and, where there is one, its mask.

pairs = MatchedPairs(open_source(out), open_source(truth), pairing)
batch = pairs.read(np.arange(8))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from evalkit.core import ImageBatch, ImageSource, IndexArray
from evalkit.errors import InvalidInputError
from evalkit.pairs.matching import Pairing
from evalkit.spec import Spec

_INSIDE = 128  # of 255: the brighter half of a mask is inside


class NamedSource(ImageSource, Protocol):
    """An image source that can name its images."""

    def name_of(self, index: int) -> str:
        """Return the name of image ``index``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Pairs with their global indices.

    Attributes:
        generated: n uint8 ``[3, h, w]`` tensors; ``reference`` those of the other side, equal sizes.
        masks: n bool ``[1, h, w]`` tensors, true inside, or None.
        index: int64 ``[n]``.
    """

    generated: Sequence[Tensor]
    reference: Sequence[Tensor]
    masks: Sequence[Tensor] | None
    index: IndexArray

    def same_size_groups(self) -> Iterator[tuple[IndexArray, Tensor, Tensor, Tensor | None]]:
        """Yield ``(positions, generated, reference, masks)``, stacked, for each size."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(self.reference):
            by_shape.setdefault(tuple(image.shape), []).append(position)
        for positions in by_shape.values():
            yield (
                np.asarray(positions, dtype=np.int64),
                torch.stack([self.generated[p] for p in positions]),
                torch.stack([self.reference[p] for p in positions]),
                torch.stack([self.masks[p] for p in positions]) if self.masks is not None else None,
            )


class PairSource(Protocol):
    """A finite, fixed sequence of pairs."""

    @property
    def spec(self) -> Spec:
        """What the pairs are: digests of both sides, of the masks and of who belongs to whom."""
        ...

    @property
    def reference_sha256(self) -> str:
        """Digest of the reference images that are used, in order."""
        ...

    @property
    def masks_sha256(self) -> str | None:
        """Digest of the masks, or None where there are none."""
        ...

    @property
    def pairing(self) -> Pairing:
        """Who belongs to whom, and how many were left out."""
        ...

    def __len__(self) -> int:
        """Number of pairs."""
        ...

    def names(self, index: int) -> tuple[str, str]:
        """Return the names of the generated and of the reference image of a pair."""
        ...

    def read(self, index: IndexArray) -> PairBatch:
        """Return the pairs at int64 ``index``.

        Raises:
            InvalidInputError: an image cannot be used, or the two of a pair differ in size.
        """
        ...


@final
class MatchedPairs:
    """Pairs of two image sets, and their masks where ``pairing`` tells which.

    ``same_size`` refuses a pair whose images differ in size; nothing but edits and their sources may.
    """

    def __init__(
        self,
        generated: NamedSource,
        reference: NamedSource,
        pairing: Pairing,
        *,
        masks: NamedSource | None = None,
        same_size: bool = True,
    ) -> None:
        self._same_size = same_size
        self._generated = generated
        self._reference = reference
        self._masks = masks if pairing.masks is not None else None
        self._pairing = pairing

    @property
    def pairing(self) -> Pairing:
        """Who belongs to whom."""
        return self._pairing

    @cached_property
    def spec(self) -> Spec:
        """Digests of both sides' content and decoding, and of the positions of the pairs."""
        positions = hashlib.sha256(self._pairing.generated.tobytes() + self._pairing.reference.tobytes())
        return Spec.of(
            "pairs",
            "matched",
            sha256=positions.hexdigest(),
            count=len(self),
            generated=self._generated.spec.digest(),
            reference=self._reference.spec.digest(),
            masks=self.masks_sha256,
        )

    @cached_property
    def reference_sha256(self) -> str:
        """Digest of the reference set and of the positions that are used."""
        return used_digest(self._reference, self._pairing.reference)

    @cached_property
    def masks_sha256(self) -> str | None:
        """Digest of the masks that are used."""
        positions = self._pairing.masks
        return None if self._masks is None or positions is None else used_digest(self._masks, positions)

    def __len__(self) -> int:
        return len(self._pairing)

    def names(self, index: int) -> tuple[str, str]:
        """Return the names of both images of a pair."""
        return (
            self._generated.name_of(int(self._pairing.generated[index])),
            self._reference.name_of(int(self._pairing.reference[index])),
        )

    def read(self, index: IndexArray) -> PairBatch:
        """Return the pairs at ``index``; each image is decoded once."""
        generated = _images(self._generated.read(self._pairing.generated[index]))
        reference = _images(self._reference.read(self._pairing.reference[index]))
        pairs = zip(index, generated, reference, strict=True) if self._same_size else ()
        for position, one, other in pairs:
            _check_sizes(one, other, names=self.names(int(position)))
        return PairBatch(generated, reference, self._read_masks(index, reference), index)

    def _read_masks(self, index: IndexArray, targets: Sequence[Tensor]) -> list[Tensor] | None:
        if self._masks is None or self._pairing.masks is None:
            return None
        positions = self._pairing.masks[index]
        return [
            read_mask(image, size=target.shape[1:], name=self._masks.name_of(int(position)))
            for image, target, position in zip(
                _images(self._masks.read(positions)), targets, positions, strict=True
            )
        ]


def used_digest(source: ImageSource, positions: IndexArray) -> str:
    """Return a digest of the images of ``source`` at ``positions``: of content, not of any path."""
    return hashlib.sha256(source.spec.digest().encode() + positions.tobytes()).hexdigest()


def read_mask(image: Tensor, *, size: Sequence[int], name: str) -> Tensor:
    """Return the bool ``[1, h, w]`` mask in a uint8 ``[3, h, w]`` image: true where it is 128 or brighter.

    Raises:
        InvalidInputError: another size, coloured, or written as 0 and 1 so that nothing would be inside.
    """
    if tuple(image.shape[1:]) != tuple(size):
        raise InvalidInputError(
            f"mask {name!r} is {_size(image.shape[1:])}, its image {_size(size)} (width x height)"
        )
    if not (torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])):
        raise InvalidInputError(
            f"mask {name!r} is coloured", hint="a mask is white (255) inside and black (0) outside"
        )
    brightest = int(image[0].max())
    if 0 < brightest < _INSIDE:
        raise InvalidInputError(
            f"the brightest pixel of mask {name!r} is {brightest} of 255, so that nothing is inside",
            hint="a mask is white (255) inside and black (0) outside; multiply a 0/1 mask by 255",
        )
    return image[:1] >= _INSIDE


def _images(batch: ImageBatch) -> list[Tensor]:
    return list(batch.images)


def _check_sizes(generated: Tensor, reference: Tensor, *, names: tuple[str, str]) -> None:
    if generated.shape != reference.shape:
        raise InvalidInputError(
            f"generated {names[0]!r} is {_size(generated.shape[1:])}, its reference {names[1]!r} "
            f"{_size(reference.shape[1:])} (width x height)",
            hint="paired metrics compare pixel by pixel and evalkit never resizes silently: "
            "resize one side yourself, by a method that you report",
        )


def _size(size: Sequence[int]) -> str:
    height, width = size
    return f"{width} x {height}"
