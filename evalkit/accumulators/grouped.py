"""Mean and covariance of the features of each class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from evalkit.accumulators import ACCUMULATORS
from evalkit.accumulators.moments import EMPTY_WIDTH, MomentsAccumulator
from evalkit.core import Accumulator, FloatArray, IndexArray
from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import checked_features

UNLABELLED = -1  # where images without a label are counted, so that no image is lost unseen
_ARRAYS = ("labels", "counts", "means", "m2")


@ACCUMULATORS.register("grouped")
class GroupedMoments(Accumulator):
    """One :class:`~evalkit.accumulators.moments.MomentsAccumulator` for each class label.

    Memory: ``8 d^2`` bytes a class. Classes are kept in the order of their labels, so that equal streams
    give equal states whatever class came first.
    """

    name: ClassVar[str] = "grouped"

    def __init__(self) -> None:
        self._groups: dict[int, MomentsAccumulator] = {}

    @property
    def count(self) -> int:
        """Number of vectors seen, with a label or without."""
        return sum(moments.count for moments in self._groups.values())

    @property
    def groups(self) -> Mapping[int, MomentsAccumulator]:
        """Moments by label, ascending; empty where nothing was seen.

        Raises:
            InvalidInputError: some images had no label.
        """
        if UNLABELLED in self._groups:
            missing = self._groups[UNLABELLED].count
            raise InvalidInputError(
                f"{missing} of {self.count} images have no label",
                hint="a folder for each class gives every image one",
            )
        return MappingProxyType(self._groups)

    def update(self, x: FloatArray, index: IndexArray, labels: IndexArray | None = None) -> None:
        """Add feature vectors ``x`` ``[n, d]`` of images with ``labels`` int64 ``[n]``, each at least 0.

        Without ``labels`` the images are counted as unlabelled. Nothing is added where anything is refused.

        Raises:
            InvalidInputError: shapes disagree, a value is not finite, or a label is negative.
        """
        if len(x) != len(index):
            raise InvalidInputError(f"{len(x)} feature vectors came with {len(index)} indices")
        if len(x) == 0:
            return
        checked = checked_features(x, "features", minimum=1)
        self._check_width(checked.shape[1])
        known = np.full(len(x), UNLABELLED, dtype=np.int64) if labels is None else _checked_labels(labels, x)
        for label in np.unique(known).tolist():
            rows = known == label
            self._groups.setdefault(label, MomentsAccumulator()).update(checked[rows], index[rows])
        self._sort()

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` has seen; ``other`` is not changed.

        Raises:
            InvalidInputError: the feature dimensions differ.
        """
        if other._groups:
            self._check_width(other._width())
        for label, moments in other._groups.items():
            self._groups.setdefault(label, MomentsAccumulator()).merge(moments)
        self._sort()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return labels and counts int64 ``[k]``, means float64 ``[k, d]`` and m2 float64 ``[k, d, d]``."""
        states = [moments.state() for moments in self._groups.values()]
        groups, width = len(states), self._width()
        return {
            "labels": np.asarray(list(self._groups), dtype=np.int64),
            "counts": np.asarray([part["count"] for part in states], dtype=np.int64),
            "means": np.asarray([part["mean"] for part in states], np.float64).reshape(groups, width),
            "m2": np.asarray([part["m2"] for part in states], np.float64).reshape(groups, width, width),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            InvalidInputError: an array is missing, of the wrong shape or not finite, or labels do not ascend.
        """
        try:
            labels, counts, means, m2 = (np.asarray(state[key]) for key in _ARRAYS)
        except KeyError as error:
            raise InvalidInputError(f"grouped state lacks {error}") from error
        if any(part.dtype != np.int64 or part.shape != means.shape[:1] for part in (labels, counts)):
            raise InvalidInputError("grouped state must have int64 labels and counts, one for each mean")
        if len(m2) != len(labels) or (np.diff(labels) <= 0).any() or (labels < UNLABELLED).any():
            raise InvalidInputError("grouped state must have one m2 for each label, and ascending labels")
        rebuilt = cls()
        for row, label in enumerate(labels.tolist()):
            part = {"count": counts[row], "mean": means[row], "m2": m2[row]}
            rebuilt._groups[label] = MomentsAccumulator.from_state(part)
        return rebuilt

    def _width(self) -> int:
        return len(next(iter(self._groups.values())).mean) if self._groups else EMPTY_WIDTH

    def _check_width(self, width: int) -> None:
        if self._groups and width != self._width():
            raise InvalidInputError(f"features have {width} dimensions, not {self._width()} as before")

    def _sort(self) -> None:
        self._groups = dict(sorted(self._groups.items()))


def _checked_labels(labels: IndexArray, x: FloatArray) -> IndexArray:
    array = np.asarray(labels)
    if array.shape != (len(x),) or array.dtype.kind not in "iu":
        raise InvalidInputError(f"labels must be integers [{len(x)}], not {array.dtype} {list(array.shape)}")
    if (array < 0).any():
        raise InvalidInputError(f"a class label is 0 or more, not {int(array.min())}")
    return array.astype(np.int64)
