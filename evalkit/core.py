"""READ FIRST: the tensor-facing types that every part of evalkit speaks. No implementation.

Generator / folder / archive -> ImageSource -> ImageBatch -> Extractor -> Accumulator -> Metric -> Score

An image source is a function from a global index to a uint8 RGB image. A shard, a fixed range of
indices, is the only unit of work. The two sides of a comparison are always called *generated* and
*reference*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.numerics.blocks import LazyBlocks, sizes_of
from evalkit.spec import Better, Score, Spec

if TYPE_CHECKING:
    from torch import Tensor

Float64Array = NDArray[np.float64]
FloatArray = NDArray[np.float32] | NDArray[np.float64]
IndexArray = NDArray[np.int64]

Reads = Literal["images", "pairs", "paths", "latents"]
"""What the rows of a metric's features are made from: single images, pairs of a generated and a reference
image, steps along a latent path, or latents with the attributes of their images."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """Images with their global indices.

    Attributes:
        images: uint8 ``[n, 3, h, w]`` in 0..255 on any device; or a sequence of n uint8 ``[3, h, w]``
            tensors when sizes differ.
        index: int64 ``[n]`` global indices, in the order of ``images``.
        labels: int64 ``[n]`` class labels, or None.
    """

    images: Tensor | Sequence[Tensor]
    index: IndexArray
    labels: IndexArray | None = None

    def __len__(self) -> int:
        return len(self.index)

    def same_size_groups(self) -> Iterator[tuple[IndexArray, Tensor]]:
        """Yield ``(positions, images)``: positions in the batch and their stacked uint8 ``[m, 3, h, w]``."""
        if isinstance(self.images, torch.Tensor):
            yield np.arange(len(self), dtype=np.int64), self.images
            return
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(self.images):
            by_shape.setdefault(tuple(image.shape), []).append(position)
        for positions in by_shape.values():
            yield np.asarray(positions, dtype=np.int64), torch.stack([self.images[p] for p in positions])


@runtime_checkable
class ImageSource(Protocol):
    """A finite, fixed sequence of images: index -> uint8 RGB image."""

    @property
    def spec(self) -> Spec:
        """What the images are; its ``sha256`` changes when any image changes."""
        ...

    def __len__(self) -> int:
        """Number of images available."""
        ...

    def read(self, index: IndexArray) -> ImageBatch:
        """Return the images at int64 ``index`` (any order; each in ``0..len-1``)."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A model that can be sampled; image i depends on nothing but weights, sampler, seed i and label i."""

    @property
    def spec(self) -> Spec:
        """Network name, sampler and its parameters, and the checkpoint's SHA-256."""
        ...

    @property
    def family(self) -> str:
        """``gan``, ``vae``, ``autoregressive`` or ``diffusion`` (``other`` for callables)."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of class labels it is conditioned on; 0 where unconditional."""
        ...

    @property
    def resolution(self) -> int:
        """Height and width of the images in pixels."""
        ...

    def generate(self, seeds: IndexArray, *, labels: IndexArray | None = None) -> Tensor:
        """Return uint8 ``[n, 3, h, w]`` images, one for each 64-bit seed (and label)."""
        ...


@runtime_checkable
class PromptedGenerator(Generator, Protocol):
    """A generator that is told in words what to draw; :meth:`generate` may then refuse."""

    @property
    def takes_prompts(self) -> bool:
        """Whether each image needs a prompt (one class may serve models with and without words)."""
        ...

    def generate_prompted(
        self, seeds: IndexArray, prompts: Sequence[str], *, labels: IndexArray | None = None
    ) -> Tensor:
        """Return uint8 ``[n, 3, h, w]``, one image for each 64-bit seed and its prompt (and label)."""
        ...


@runtime_checkable
class LatentGenerator(Generator, Protocol):
    """A generator that shows its latent space: z -> w -> image, or z -> image."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """``("z", "w")``, or ``("z",)`` where there is no mapping network."""
        ...

    def latents(self, seeds: IndexArray) -> Tensor:
        """Return float32 ``[n, d]`` latents z, one for each seed; what :meth:`generate` starts from."""
        ...

    def mapping(self, z: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Map z ``[n, d]`` to w, float32 ``[n, d_w]``.

        Raises:
            evalkit.errors.UsageError: there is no mapping network.
        """
        ...

    def synthesis(
        self, latents: Tensor, *, space: str, noise_seeds: IndexArray, labels: IndexArray | None = None
    ) -> Tensor:
        """Return float32 ``[n, 3, h, w]`` in about [-1, 1], never quantised, never autocast.

        ``latents`` lie in ``space``. Equal ``noise_seeds`` give equal noise, so that two points of a path
        share it.
        """
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """A model with an encoder: image -> code -> image."""

    def reconstruct(self, images: Tensor, *, labels: IndexArray | None = None) -> Tensor:
        """Return the reconstructions of uint8 ``[n, 3, h, w]`` images, uint8 of the same shape."""
        ...


@runtime_checkable
class Translator(Protocol):
    """A model from image to image; output i depends on nothing but weights, image i and seed i."""

    @property
    def spec(self) -> Spec:
        """Network name, its settings, and the checkpoint's SHA-256."""
        ...

    @property
    def family(self) -> str:
        """``gan``, ``vae``, ``autoregressive`` or ``diffusion`` (``other`` for callables)."""
        ...

    def translate(self, images: Tensor, *, seeds: IndexArray) -> Tensor:
        """Return uint8 ``[n, 3, h', w']`` of uint8 ``[n, 3, h, w]``; without noise the ``seeds`` do nothing.

        Raises:
            evalkit.errors.UsageError: the images have a type or size that the model does not take.
        """
        ...


@runtime_checkable
class Probe(Protocol):
    """A function from indices to rows of numbers that is not one network over single images.

    The pair metrics, the perceptual path length and the linear separability are probes: the same engine
    cuts them into shards, resumes them and keeps their rows.
    """

    @property
    def spec(self) -> Spec:
        """Everything that can move a row, with the digests of models, images and weights."""
        ...

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of columns."""
        ...

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 ``[n, d]`` rows for int64 ``index`` ``[n]``, one entry for each head."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """A fixed network that maps images to features; each *head* is one named feature vector."""

    @property
    def spec(self) -> Spec:
        """Name, resizer and the SHA-256 of the weights."""
        ...

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        ...

    @property
    def published(self) -> bool:
        """Whether the weights are the ones that the extractor's name stands for."""
        ...

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head."""
        ...


class Accumulator(ABC):
    """Mergeable statistics of a stream of feature vectors.

    Laws (proven in tests/contract): the order of updates does not matter beyond the stated tolerance,
    merge is associative and leaves ``other`` unchanged, the empty state is its unit, and
    ``from_state(state())`` is the same accumulator bit for bit.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of vectors seen."""

    @abstractmethod
    def update(self, x: FloatArray, index: IndexArray) -> None:
        """Add feature vectors ``x`` ``[n, d]`` of the images with global indices ``index`` ``[n]``."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as plain arrays."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild an accumulator from :meth:`state`."""


@dataclass(frozen=True, slots=True)
class FeatureInput:
    """One thing that a metric reads: a head of an extractor (``extractor`` is a registered name)."""

    extractor: str
    head: str


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSet:
    """Features of one side, split into jackknife blocks.

    Blocks of a run lie in the files of its shards (:class:`~evalkit.numerics.blocks.LazyBlocks`): who goes
    through them, or through their pieces, has one in memory at a time.

    Attributes:
        blocks: float32 ``[n_b, d]`` arrays, in index order; one block where no jackknife is wanted.
        labels: int64 ``[n_b]`` class labels of the images, block by block, or None.
        texts: float32 ``[n_b, d]`` features of the images' prompts, block by block, or None.
    """

    blocks: Sequence[NDArray[np.float32]]
    labels: tuple[IndexArray, ...] | None = None
    texts: tuple[NDArray[np.float32], ...] | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images in each block."""
        return sizes_of(self.blocks)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield all features in the order of :meth:`stacked`, float32 ``[m, d]``, a shard's at a time."""
        if isinstance(self.blocks, LazyBlocks):
            for block in range(len(self.blocks)):
                yield from self.blocks.pieces(block)
        else:
            yield from self.blocks

    def stacked(self) -> NDArray[np.float32]:
        """All features, float32 ``[n, d]``; of those that lie in files one copy, kept for all who ask."""
        if isinstance(self.blocks, LazyBlocks):
            return self.blocks.stacked()
        return self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks)

    def in_memory(self) -> tuple[NDArray[np.float32], ...]:
        """All blocks at once, for who compares every row with every other: views of :meth:`stacked`."""
        if isinstance(self.blocks, LazyBlocks):
            self.blocks.stacked()
        return tuple(self.blocks)


class ReferenceFeatures(Protocol):
    """What a reference knows about one head of one extractor."""

    @property
    def count(self) -> int:
        """Number of images behind the moments."""
        ...

    @property
    def mean(self) -> Float64Array:
        """Mean ``[d]``."""
        ...

    @property
    def covariance(self) -> Float64Array:
        """Covariance ``[d, d]`` with divisor n - 1."""
        ...

    @property
    def bank(self) -> NDArray[np.float32]:
        """Individual features ``[m, d]``, ``m <= count``.

        Raises:
            evalkit.errors.NothingMeasuredError: the reference holds moments only.
        """
        ...

    @property
    def groups(self) -> Mapping[int, ReferenceFeatures]:
        """Moments of each class by its label.

        Raises:
            evalkit.errors.NothingMeasuredError: the reference holds no moments by class.
        """
        ...

    @property
    def held_out(self) -> ReferenceFeatures:
        """The same head of real images that the model was not trained on.

        Raises:
            evalkit.errors.NothingMeasuredError: no held-out reference was named.
        """
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What a newcomer must know to read a metric; the source of ``docs/metrics.md``.

    Attributes:
        meaning: one or two sentences: what a good and a bad value say about the images.
        values: the range, and the value of a perfect model (``0 to infinity; 0 at identity``).
        pitfalls: what makes the number mislead.
        cost: what it costs beside extraction, in terms of the number of images n and dimensions d.
        source: the paper, with equation or section.
    """

    meaning: str
    values: str
    pitfalls: str
    cost: str
    source: str


class Metric(ABC):
    """A named protocol from features to a :class:`~evalkit.spec.Score`; it never owns a network.

    ``laws`` names the properties that hold for it; the contract tests prove each and refuse an empty set.
    ``needs_bank`` says that moments of the reference are not enough, ``needs_groups`` that moments by class
    are read, ``needs_held_out`` that a second, held-out reference is, ``needs_labels`` and ``needs_prompts``
    that every generated image must have one. A run asks for these and for ``minimum_images`` before it
    samples anything.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    better: ClassVar[Better]
    needs_reference: ClassVar[bool]
    needs_bank: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    needs_held_out: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = False
    reads: ClassVar[Reads] = "images"
    any_count: ClassVar[bool]
    step: ClassVar[float] = 0.0
    about: ClassVar[About]
    laws: ClassVar[frozenset[str]]

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Name and every parameter that can move the number."""

    @property
    def minimum_images(self) -> int:
        """Fewest images of each side whose features it reads one by one."""
        return 2

    def minimum_for(self, dimension: int) -> int:  # noqa: ARG002 - most need no more in more dimensions
        """Fewest generated images for features of ``dimension`` dimensions."""
        return self.minimum_images

    @property
    @abstractmethod
    def head(self) -> str:
        """Role of the head it reads: ``features`` or ``logits``; the protocol maps roles to heads.

        A metric that does not read images names the head of its probe.
        """

    @property
    def watched(self) -> Metric:
        """What is computed while images still come: itself, or what it estimates at random, exactly."""
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that labels are compared with; empty for the reference's, or numbers."""
        return ()

    @property
    def variant(self) -> str:
        """What the record names beside the label, where that is not the head that was read."""
        return ""

    @abstractmethod
    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return the score of ``generated`` (against ``reference``) with its jackknife error bar."""
