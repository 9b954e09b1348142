"""What an edit did to an image and to its caption, in CLIP's space: the rows of ``clip-directional``.

    edits = EditedImages(open_source("edited"), open_source("originals"))
    probe = DirectionalProbe(edits, source_prompts, prompts, extractor=build_extractor("clip-vit-l-14"))
    rows = probe(np.arange(64), ["clip-directional"])["clip-directional"]  # float32 [64, 4]

Accepted trade-offs: all captions are encoded when the probe is built (each different one once), so that a
missing tokenizer or a long caption is told before the first image is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.core import Extractor, ImageSource, IndexArray
from evalkit.errors import InvalidInputError, UsageError
from evalkit.numerics.cosine import cosine_rows, directional_cosine
from evalkit.registry import did_you_mean
from evalkit.spec import Spec, sha256_of

HEAD: Final = "clip-directional"
IMAGE_SIZE: Final = "image_size"
"""The head that keeps (height, width) of each edited image."""
_IMAGE: Final = "image"
_COLUMNS: Final = 4  # evalkit.metrics.directional.COLUMNS


class Edits(Protocol):
    """Edited images with what they were made from."""

    @property
    def generated(self) -> Sequence[Tensor]:
        """The edited images, uint8 ``[3, h, w]`` each."""
        ...

    @property
    def reference(self) -> Sequence[Tensor]:
        """The source images."""
        ...


class EditSource(Protocol):
    """A finite, fixed sequence of edits, such as :class:`evalkit.pairs.sources.PairSource`."""

    @property
    def spec(self) -> Spec:
        """What the images are, by content."""
        ...

    def __len__(self) -> int:
        """Number of edits."""
        ...

    def read(self, index: IndexArray) -> Edits:
        """Return the edits at int64 ``index``."""
        ...


@dataclass(frozen=True, slots=True)
class EditBatch:
    """Edited images and, in the same order, what they were made from: uint8 ``[3, h, w]`` each."""

    generated: Sequence[Tensor]
    reference: Sequence[Tensor]


@final
class EditedImages:
    """Edits from two image sets: image i of ``edited`` was made from image i of ``source``.

    Raises:
        InvalidInputError: the sets are not of one length.
    """

    def __init__(self, edited: ImageSource, source: ImageSource) -> None:
        if len(edited) != len(source):
            raise InvalidInputError(f"{len(edited)} edited images cannot come from {len(source)} sources")
        self._edited, self._source = edited, source

    @property
    def spec(self) -> Spec:
        """The digests of both sets."""
        digest = sha256_of([self._edited.spec.to_json(), self._source.spec.to_json()])
        return Spec.of("edits", "images", sha256=digest)

    @property
    def source_sha256(self) -> str:
        """Digest of the images that were edited: of content, not of any path."""
        return self._source.spec.digest()

    def __len__(self) -> int:
        return len(self._edited)

    def read(self, index: IndexArray) -> EditBatch:
        """Return the edits at int64 ``index``; an image need not have the size of its source.

        Raises:
            InvalidInputError: an image cannot be used.
        """
        return EditBatch(list(self._edited.read(index).images), list(self._source.read(index).images))


class ImageTextExtractor(Extractor, Protocol):
    """An extractor that also encodes prompts, such as :class:`evalkit.extractors.clip.OpenClip`."""

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` features in the space of the head ``image``."""
        ...


@final
class DirectionalProbe:
    """Row i: how edit i moved image and caption; a :class:`~evalkit.core.Probe`.

    Args:
        edits: source images as the reference side, edited ones as the generated side.
        source_prompts: a caption of each source image.
        prompts: a caption of each edited image.
        extractor: maps both to one space.

    Raises:
        UsageError: not one caption of each kind for every edit, or a network that encodes no text.
    """

    def __init__(
        self,
        edits: EditSource,
        source_prompts: Sequence[str],
        prompts: Sequence[str],
        *,
        extractor: ImageTextExtractor,
    ) -> None:
        if len(source_prompts) != len(edits) or len(prompts) != len(edits):
            raise UsageError(
                f"{len(edits)} edits need as many captions before and after, not {len(source_prompts)} and "
                f"{len(prompts)}",
                hint="the manifest needs the columns source_prompt and prompt in every row",
            )
        if _IMAGE not in extractor.heads:
            raise UsageError(f"extractor {extractor.spec.name!r} does not encode text")
        self._edits, self._extractor = edits, extractor
        self._captions = sha256_of([list(source_prompts), list(prompts)])
        self._was, self._became = (extractor.encode_text(list(texts)) for texts in (source_prompts, prompts))

    @property
    def spec(self) -> Spec:
        """The digests of the images, the captions and the network."""
        parts = [self._edits.spec.to_json(), self._captions, self._extractor.spec.to_json()]
        return Spec.of("probe", HEAD, sha256=sha256_of(parts))

    @property
    def heads(self) -> Mapping[str, int]:
        """Four columns (see :data:`evalkit.metrics.directional.COLUMNS`), and two for the size."""
        return {HEAD: _COLUMNS, IMAGE_SIZE: 2}

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 ``[n, d]`` rows for int64 ``index`` ``[n]``; one reading makes all heads.

        Raises:
            UsageError: an unknown head.
            InvalidInputError: an image cannot be used, or a feature is not finite or zero.
        """
        for head in heads:
            if head not in self.heads:
                raise UsageError(f"the probe has no head {head!r}", hint=did_you_mean(head, self.heads))
        batch = self._edits.read(index)
        source, edited = (self._features(images) for images in (batch.reference, batch.generated))
        direction = directional_cosine(
            source_image=source,
            edited_image=edited,
            source_text=self._was[index],
            edited_text=self._became[index],
        )
        defined = np.isfinite(direction)
        similarities = cosine_rows(source, edited), cosine_rows(edited, self._became[index])
        if np.isnan(similarities).any():
            raise InvalidInputError("an embedding is zero", hint="are the weights of the network whole?")
        rows = np.stack([np.where(defined, direction, 0.0), defined, *similarities], axis=1)
        sizes = np.array([image.shape[1:] for image in batch.generated], dtype=np.float32)
        made = {HEAD: rows.astype(np.float32), IMAGE_SIZE: sizes}
        return {head: made[head] for head in heads}

    def _features(self, images: Sequence[Tensor]) -> NDArray[np.float32]:
        rows = np.empty((len(images), self._extractor.heads[_IMAGE]), dtype=np.float32)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_shape.setdefault(tuple(image.shape), []).append(position)
        for positions in by_shape.values():
            stacked = torch.stack([images[position] for position in positions])
            rows[positions] = self._extractor(stacked, [_IMAGE])[_IMAGE].float().cpu().numpy()
        return rows
