"""Building a reference: one pass over the features of real images, batch by batch.

builder = ReferenceBuilder({"block": 320, "logits": 1000}, bank_size=1000, bank_heads=("block",))
for index, batch in batches:
    builder.update(extractor(batch.images, ("block", "logits")), index)
reference = builder.build(name="cifar10", title="CIFAR-10 train", ...)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from evalkit.accumulators.bank import FeatureBank
from evalkit.accumulators.grouped import GroupedMoments
from evalkit.accumulators.moments import MomentsAccumulator
from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.references.class_arrays import packed_size
from evalkit.references.heads import Bank, BankDtype, HeadStatistics
from evalkit.references.statistics import Description, Reference
from evalkit.registry import did_you_mean
from evalkit.spec import Spec

LARGEST_CLASSES = 64 << 20
"""Bytes of moments by class that a reference takes in unasked: 0.4 MB a class in 320 dimensions."""


class ReferenceBuilder:
    """Folds features into moments for each head, keeps some of them, and takes moments of each class.

    Args:
        heads: head name -> feature dimensions.
        bank_size: most features to keep for a head (a fixed choice among the indices); 0 keeps none.
        bank_heads: heads whose features are kept; None means all.
        bank_dtype: how the features are kept, in memory as later in the file.
        class_heads: heads of which the moments of each class are taken; every image then needs a label.

    Raises:
        UsageError: a bank or class head is not among ``heads``, or ``bank_size`` is negative.
    """

    def __init__(
        self,
        heads: Mapping[str, int],
        *,
        bank_size: int = 0,
        bank_heads: Sequence[str] | None = None,
        bank_dtype: BankDtype = "float32",
        class_heads: Sequence[str] = (),
    ) -> None:
        banked = tuple(heads) if bank_heads is None else tuple(bank_heads)
        for head, what in (*((h, "features") for h in banked), *((h, "classes") for h in class_heads)):
            if head not in heads:
                raise UsageError(f"{what} of head {head!r} cannot be kept", hint=did_you_mean(head, heads))
        if bank_size < 0:
            raise UsageError(f"the number of features to keep must be 0 or more, not {bank_size}")
        self._dimensions = dict(heads)
        self._dtype: BankDtype = bank_dtype
        self._moments = {head: MomentsAccumulator() for head in heads}
        self._banks = {head: FeatureBank(bank_size, bank_dtype) for head in banked if bank_size}
        self._classes = {head: GroupedMoments() for head in class_heads}

    @property
    def count(self) -> int:
        """Number of images seen."""
        return min((moments.count for moments in self._moments.values()), default=0)

    def update(
        self,
        features: Mapping[str, NDArray[np.float32]],
        index: IndexArray,
        labels: IndexArray | None = None,
    ) -> None:
        """Add the features ``[n, d]`` of every head for the images with global ``index`` ``[n]``.

        ``labels`` int64 ``[n]`` are read where the builder has ``class_heads``.

        Raises:
            InvalidInputError: a head is missing, has another shape, or holds NaN or infinity.
        """
        for head, dimension in self._dimensions.items():
            if head not in features:
                raise InvalidInputError(f"features of head {head!r} are missing")
            if features[head].shape != (len(index), dimension):
                raise InvalidInputError(
                    f"features of head {head!r} have shape {list(features[head].shape)}, "
                    f"not [{len(index)}, {dimension}]"
                )
        for head in self._dimensions:
            self._moments[head].update(features[head], index)
            if head in self._banks:
                self._banks[head].update(features[head], index)
            if head in self._classes:
                self._classes[head].update(features[head], index, labels)

    def build(  # noqa: PLR0913 - one argument for each fact in the header
        self,
        *,
        name: str,
        title: str,
        dataset: str,
        split: str | None,
        resolution: int | None,
        images_sha256: str,
        extractor: Spec,
        class_names: Sequence[str] = (),
        command: str = "",
    ) -> Reference:
        """Return the reference of everything that was added.

        Raises:
            NothingMeasuredError: nothing was added.
            InvalidInputError: a covariance needs at least two images, also of each class, and moments by
                class need a label for each image.
        """
        if self.count == 0:
            raise NothingMeasuredError("a reference needs images; there are none")
        about = Description(
            name=name,
            title=title,
            dataset=dataset,
            split=split,
            resolution=resolution,
            count=self.count,
            images_sha256=images_sha256,
            extractor=extractor,
            class_names=tuple(class_names),
            created_by=_version(),
            command=command,
        )
        return Reference.of(about, {head: self._statistics(head) for head in self._dimensions})

    def _statistics(self, head: str) -> HeadStatistics:
        bank, grouped = self._banks.get(head), self._classes.get(head)
        kept = Bank.of(bank.features, bank.index, dtype=self._dtype) if bank else None
        classes = _classes(grouped) if grouped else {}
        return replace(_moments(self._moments[head]), kept=kept, classes=classes)


def default_class_heads(heads: Mapping[str, int], labels: IndexArray | None) -> tuple[str, ...]:
    """Return the smallest of ``heads`` (name -> dimensions), or none where moments by class make no sense.

    They need a label for each image, more than one class, at least 2 images in each, and at most 64 MB.
    """
    if labels is None or not heads:
        return ()
    smallest = min(heads, key=lambda head: heads[head])
    counts = np.unique(labels, return_counts=True)[1]
    size = len(counts) * packed_size(heads[smallest])
    sensible = len(counts) > 1 and counts.min() >= 2 and size <= LARGEST_CLASSES
    return (smallest,) if sensible else ()


def _classes(grouped: GroupedMoments) -> dict[int, HeadStatistics]:
    groups = grouped.groups
    single = [label for label, moments in groups.items() if moments.count < 2]
    if single:
        raise InvalidInputError(
            f"class {single[0]} has 1 image; moments by class need at least 2 of each",
            hint="leave the moments by class out with --class-heads none",
        )
    return {label: _moments(moments) for label, moments in groups.items()}


def _moments(moments: MomentsAccumulator) -> HeadStatistics:
    covariance = moments.covariance
    # A file keeps one triangle: both are made equal here, so that memory and file agree to the last bit.
    return HeadStatistics(moments.count, moments.mean, (covariance + covariance.T) / 2)


def _version() -> str:
    try:
        return f"evalkit {version('evalkit')}"
    except PackageNotFoundError:  # a checkout that was not installed
        return "evalkit"
