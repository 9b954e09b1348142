"""Intra-class Fréchet distance: intra-FID where the features are Inception's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core import About, FeatureSet, IndexArray, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError
from evalkit.metrics import METRICS
from evalkit.metrics.frechet import (
    CORRECTABLE,
    SMALL_SAMPLE,
    distances,
    mostly_bias,
    without_neighbours,
)
from evalkit.metrics.scoring import (
    Estimate,
    check_count,
    check_width,
    duplicate_warnings,
    required,
    score_with_jackknife,
)
from evalkit.numerics import gaussian_factor
from evalkit.numerics.resampling import second_degree_share_of_some
from evalkit.spec import Better, Score, Spec

_SHOWN = 10  # labels listed in one message


@METRICS.register("intra-fd")
@dataclass(frozen=True, slots=True)
class IntraFrechetDistance(Metric):
    """Mean over classes of the Fréchet distance within the class (Miyato & Koyama 2018)."""

    name: ClassVar[str] = "intra-fd"
    title: ClassVar[str] = "Intra-class Fréchet distance"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    needs_groups: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    any_count: ClassVar[bool] = False
    laws: ClassVar[frozenset[str]] = frozenset(
        {
            "ranks_fidelity",
            "needs_reference",
            "zero_at_identity",
            "symmetric",
            "order_invariant",
            "non_negative",
        }
    )
    about: ClassVar[About] = About(
        meaning="How far the images of each class lie from real images of that class, as a mean over "
        "classes. High where a model ignores its label or collapses within classes, which the plain distance "
        "can miss.",
        values="0 to infinity; 0 at identity",
        pitfalls="Each class has few images, so the bias of the Fréchet distance is larger than over all of "
        "them: with no more images in a class than dimensions the value says little, and it compares only at "
        "one number of images a class. Every class counts the same, however rare it is.",
        cost="one Fréchet distance for each class, and again for each block of the error bar, twice where a "
        "fifth of the mean or more is bias: at most min(n_c, d)^3 + n_c d^2 each",
        source="Miyato & Koyama 2018, cGANs with Projection Discriminator, section 5 (intra-FID); Heusel et "
        "al. 2017, eq. 6",
    )

    @property
    def spec(self) -> Spec:
        """Name; there are no parameters."""
        return Spec.of("metric", self.name)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing is random
    ) -> Score:
        """Return the mean distance; ``details`` hold that of each class as ``class_<label>``.

        Raises:
            NothingMeasuredError: there is no reference, or it holds no moments by class.
            InvalidInputError: images have no labels, a class is missing on one side or has fewer than 2
                images, other dimensions, or features that are not finite.
        """
        groups = required(reference, self.name).groups
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        labels = _checked_labels(generated)
        _check_classes(labels, groups)
        dimension = len(next(iter(groups.values())).mean)
        check_width(generated, dimension)
        rows = _by_class(generated.blocks, labels, groups)
        classes = [_Class.of(tuple(rows.pop(label)), target) for label, target in groups.items()]
        values = [one.value for one in classes]
        without = _mean([one.without for one in classes])
        counts = [one.count for one in classes]
        fewest = min(*counts, *(group.count for group in groups.values()))
        return score_with_jackknife(
            Estimate(
                float(np.mean(values)),
                without,
                share=_share(classes, without, sizes=generated.sizes),
                details={f"class_{label}": value for label, value in zip(groups, values, strict=True)},
            ),
            generated=generated,
            better=self.better,
            n_reference=sum(group.count for group in groups.values()),
            unbiased_limit=fewest >= CORRECTABLE * dimension,
            warnings=_warnings(counts, groups, dimension) + duplicate_warnings(generated),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """One class: its images block by block, the real ones, the distance, and that without each block.

    The factor of the real covariance is made anew where it is needed: a thousand of them fill 33 GB.
    """

    blocks: tuple[NDArray[np.float32], ...]
    real: ReferenceFeatures
    value: float
    without: list[float]

    @classmethod
    def of(cls, blocks: tuple[NDArray[np.float32], ...], real: ReferenceFeatures) -> _Class:
        """Measure one class; ``without`` is empty where some rest is too small."""
        present = FeatureSet(tuple(block for block in blocks if len(block)))
        measured = distances(present, gaussian_factor(real.mean, real.covariance))
        without: list[float] = []
        if len(blocks) > 1 and len(measured.without):
            # A block without images of this class takes nothing away.
            left_out = iter(measured.without.tolist())
            without = [next(left_out) if len(block) else measured.value for block in blocks]
        return cls(blocks, real, measured.value, without)

    @property
    def count(self) -> int:
        return sum(len(block) for block in self.blocks)

    def without_neighbours(self) -> list[float]:
        """The distance without each two neighbouring blocks; nothing where too few images are left."""
        return without_neighbours(self.blocks, gaussian_factor(self.real.mean, self.real.covariance))


def _by_class(
    blocks: Sequence[NDArray[np.float32]], labels: Sequence[IndexArray], classes: Iterable[int]
) -> dict[int, list[NDArray[np.float32]]]:
    """Rows of each class block by block, in one pass: a thousand classes are not a thousand passes."""
    found: dict[int, list[NDArray[np.float32]]] = {label: [] for label in classes}
    for block, mine in zip(blocks, labels, strict=True):
        order = np.argsort(mine, kind="stable")
        rows, ordered = block[order], mine[order]
        for label, parts in found.items():
            start, stop = np.searchsorted(ordered, (label, label + 1))
            parts.append(rows[start:stop])
    return found


def _mean(of_classes: Sequence[Sequence[float]]) -> list[float]:
    """Mean over classes, block by block; nothing where some class has nothing."""
    return np.mean(of_classes, axis=0).tolist() if all(map(len, of_classes)) else []


def _share(classes: Sequence[_Class], without: Sequence[float], *, sizes: Sequence[int]) -> float:
    """Part of the jackknife variance that is the mean's own: the distances are mostly bias (see ``fd``)."""
    value = float(np.mean([one.value for one in classes]))
    if not without or not mostly_bias(value, without, sizes=sizes):
        return 1.0
    rest = _mean([one.without_neighbours() for one in classes])
    if len(rest) < 2:
        return 1.0
    return second_degree_share_of_some(value, without, [(i, i + 1, one) for i, one in enumerate(rest)])


def _checked_labels(generated: FeatureSet) -> tuple[IndexArray, ...]:
    if generated.labels is None:
        raise InvalidInputError(
            "metric 'intra-fd' needs a class label of every generated image",
            hint="a class-conditional model, a folder for each class, or an npz with labels",
        )
    if tuple(len(labels) for labels in generated.labels) != generated.sizes:
        raise InvalidInputError("the labels of the generated images do not fit their features")
    return generated.labels


def _check_classes(labels: tuple[IndexArray, ...], groups: Mapping[int, ReferenceFeatures]) -> None:
    found, counts = np.unique(np.concatenate(labels), return_counts=True)
    for missing, side in (
        (sorted(set(groups) - set(found.tolist())), "generated images"),
        (sorted(set(found.tolist()) - set(groups)), "reference images"),
    ):
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise InvalidInputError(
                f"there is no class {', '.join(map(str, missing[:_SHOWN]))}{more} among the {side}",
                hint="both sides need the same classes under the same labels",
            )
    for label, count in zip(found.tolist(), counts.tolist(), strict=True):
        check_count(count, minimum=2, metric="intra-fd", what=f"generated images of class {label}")


def _warnings(counts: list[int], groups: Mapping[int, ReferenceFeatures], dimension: int) -> tuple[str, ...]:
    """Say how many classes have too few images on either side for the distance to mean much."""
    smaller = [min(count, group.count) for count, group in zip(counts, groups.values(), strict=True)]
    singular = sum(count <= dimension for count in smaller)
    if singular:
        flat = "their covariances are singular and the distances far too high"
        few = f"have no more images than the {dimension} dimensions"
        return (f"small sample, rank-deficient: {singular} of {len(groups)} classes {few}; {flat}",)
    short = sum(count < SMALL_SAMPLE * dimension for count in smaller)
    if short:
        biased = "the distance is biased upwards and compares only at this number of images a class"
        few = f"have fewer images than {SMALL_SAMPLE} x {dimension} dimensions"
        return (f"small sample: {short} of {len(groups)} classes {few}; {biased}",)
    return ()
