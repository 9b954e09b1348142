"""Class probabilities of images, summed: what an inception score without splits needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from evalkit.accumulators import ACCUMULATORS
from evalkit.core import Accumulator, FloatArray, IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.numerics import ClassSums, class_sums


@ACCUMULATORS.register("probabilities")
class ClassProbabilities(Accumulator):
    """Count, sum of p and sum of p log p over images, in float64; it reads logits."""

    name: ClassVar[str] = "probabilities"

    def __init__(self) -> None:
        self._sums = ClassSums(0, np.zeros(0), 0.0)

    @property
    def count(self) -> int:
        """Number of images seen."""
        return self._sums.count

    @property
    def sums(self) -> ClassSums:
        """The sums; ``sums.score()`` is the inception score of all images in one split.

        Raises:
            NothingMeasuredError: nothing was seen yet.
        """
        if self._sums.count == 0:
            raise NothingMeasuredError("there are no logits to score")
        return self._sums

    def update(self, x: FloatArray, index: IndexArray) -> None:
        """Add logits ``x`` ``[n, classes]``; their ``index`` ``[n]`` does not matter here.

        Raises:
            InvalidInputError: shapes disagree, or a value is not finite.
        """
        if len(x) != len(index):
            raise InvalidInputError(f"{len(x)} rows of logits came with {len(index)} indices")
        if len(x):
            self._add(class_sums(x))

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed.

        Raises:
            InvalidInputError: the numbers of classes differ.
        """
        if other.count:
            self._add(other._sums)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return count int64 ``[]``, probabilities float64 ``[classes]``, negative_entropy float64 ``[]``."""
        return {
            "count": np.asarray(self._sums.count),
            "probabilities": self._sums.probabilities.copy(),
            "negative_entropy": np.asarray(self._sums.negative_entropy),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            InvalidInputError: an array is missing, of the wrong shape or not finite.
        """
        try:
            count, entropy = int(state["count"]), float(state["negative_entropy"])
            probabilities = np.array(state["probabilities"])
        except KeyError as error:
            raise InvalidInputError(f"probabilities state lacks {error}") from error
        if count < 0 or probabilities.dtype != np.float64 or probabilities.ndim != 1:
            raise InvalidInputError("probabilities state must hold a count and float64 [classes]")
        if not (np.isfinite(probabilities).all() and np.isfinite(entropy)):
            raise InvalidInputError("probabilities state is not finite")
        rebuilt = cls()
        rebuilt._sums = ClassSums(count, probabilities, entropy)
        return rebuilt

    def _add(self, new: ClassSums) -> None:
        old = self._sums
        if old.count == 0:
            self._sums = new
            return
        if new.probabilities.shape != old.probabilities.shape:
            raise InvalidInputError(
                f"{len(new.probabilities)} classes, not {len(old.probabilities)} as before"
            )
        self._sums = ClassSums(
            old.count + new.count,
            old.probabilities + new.probabilities,
            old.negative_entropy + new.negative_entropy,
        )
