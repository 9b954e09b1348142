"""What a reference knows about one head: moments, some features, moments of each class. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError, NothingMeasuredError

if TYPE_CHECKING:
    from evalkit.core import Float64Array, IndexArray

BankDtype = Literal["float16", "float32"]
Factor = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Triangle ``[d, r]`` and order ``[d]`` of :func:`evalkit.numerics.linalg.psd_triangle`."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Individual features of some of the images.

    Attributes:
        features: float32 ``[m, d]``.
        index: int64 ``[m]`` global indices of the images.
        dtype: how a file keeps the features; ``float16`` says that ``features`` are already rounded to it.
    """

    features: NDArray[np.float32]
    index: IndexArray
    dtype: BankDtype = "float32"

    @classmethod
    def of(cls, features: NDArray[np.float32], index: IndexArray, *, dtype: BankDtype = "float32") -> Self:
        """Round ``features`` to ``dtype`` and keep them.

        Raises:
            InvalidInputError: a feature is beyond the range of ``dtype``.
        """
        with np.errstate(over="ignore"):
            rounded = np.asarray(features, dtype=np.float32).astype(dtype).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise InvalidInputError(
                f"features of the bank are not finite in {dtype}", hint="keep the bank in float32"
            )
        return cls(rounded, np.asarray(index, dtype=np.int64), dtype)


@dataclass(frozen=True, slots=True, eq=False)
class HeadStatistics:
    """What a reference knows about one head (see :class:`evalkit.core.ReferenceFeatures`).

    Attributes:
        count: images behind the moments; 0 where a foreign file does not say.
        mean: float64 ``[d]``.
        covariance: float64 ``[d, d]`` with divisor n - 1.
        kept: individual features, where the reference has any.
        classes: moments of each class by its label, ascending; empty where they were not kept.
        held: the same head of held-out images, where a held-out reference was named.
        factor: of the covariance, where the file holds it.
    """

    count: int
    mean: Float64Array
    covariance: Float64Array
    kept: Bank | None = None
    classes: Mapping[int, HeadStatistics] = field(default_factory=dict)
    held: HeadStatistics | None = None
    factor: Factor | None = None

    @property
    def dimension(self) -> int:
        """Number of feature dimensions."""
        return len(self.mean)

    @property
    def has_bank(self) -> bool:
        """Whether individual features are there."""
        return self.kept is not None

    @property
    def bank(self) -> NDArray[np.float32]:
        """Individual features, float32 ``[m, d]``.

        Raises:
            NothingMeasuredError: the reference holds moments only.
        """
        if self.kept is None:
            raise NothingMeasuredError(
                "this reference holds a mean and a covariance, but no individual features",
                hint="metrics that look at single images (kd, precision, recall, cmmd, mifd and more) need "
                "them: give the images as the reference, or build one with `evalkit reference build`",
            )
        return self.kept.features

    @property
    def groups(self) -> Mapping[int, HeadStatistics]:
        """Moments of each class by its label, ascending.

        Raises:
            NothingMeasuredError: the reference holds no moments by class.
        """
        if not self.classes:
            raise NothingMeasuredError(
                "this reference holds no moments by class",
                hint="build one from labelled images (a folder for each class): "
                "evalkit reference build IMAGES --name NAME --class-heads HEAD",
            )
        return self.classes

    @property
    def held_out(self) -> HeadStatistics:
        """The same head of real images that the model was not trained on.

        Raises:
            NothingMeasuredError: no held-out reference was named.
        """
        if self.held is None:
            raise NothingMeasuredError(
                "this metric compares with held-out real images, and no held-out reference was named",
                hint="--held-out NAME, a reference of images that the model was not trained on",
            )
        return self.held

    def with_held_out(self, other: HeadStatistics) -> Self:
        """Return a copy that holds ``other`` as the statistics of held-out images.

        Raises:
            InvalidInputError: the dimensions differ.
        """
        if other.dimension != self.dimension:
            raise InvalidInputError(
                f"the held-out reference has {other.dimension} dimensions, the reference {self.dimension}"
            )
        return replace(self, held=other)
