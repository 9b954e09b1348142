"""Precision, recall, density and coverage: four views of one pass over nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evalkit.core import FeatureSet, ReferenceFeatures
from evalkit.errors import InvalidInputError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.metrics.shared import SharedMetric
from evalkit.numerics import ManifoldScores, manifold_scores
from evalkit.spec import Better, Score, Spec

LAWS = frozenset({"needs_reference", "order_invariant", "non_negative"})
SHARES = LAWS | {"one_at_identity", "at_most_one"}


@dataclass(frozen=True, slots=True, eq=False)
class Manifolds:
    """All four scores, without each block too, and what the score needs to know of the inputs."""

    scores: ManifoldScores
    without: tuple[ManifoldScores, ...]
    generated: FeatureSet
    n_reference: int
    warnings: tuple[str, ...]


class NeighbourMetric(SharedMetric[Manifolds]):
    """One of the four; ``name`` is the field of :class:`~evalkit.numerics.ManifoldScores` that it reads.

    A subclass holds ``k``, the neighbour that gives the radius, and ``inclusive``, ``<=`` rather than ``<``.
    """

    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]]

    k: int
    inclusive: bool

    @property
    def spec(self) -> Spec:
        """Name, neighbour and comparison."""
        return Spec.of("metric", self.name, k=self.k, inclusive=self.inclusive)

    @property
    def minimum_images(self) -> int:
        """One more than the neighbour that gives the radius."""
        return self.k + 1

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    @property
    def computation(self) -> tuple[object, ...]:
        """The distances, the neighbour and the comparison."""
        return ("neighbours", self.k, self.inclusive)

    def measure(self, generated: FeatureSet, reference: ReferenceFeatures | None) -> Manifolds:
        """Compare every generated image with every reference image.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: k < 1, fewer than k + 1 images on a side, or features that are not finite.
        """
        if self.k < 1:
            raise InvalidInputError(f"k must be 1 or more, not {self.k}")
        bank = required(reference, self.name).bank
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        check_count(len(bank), minimum=self.minimum_images, metric=self.name, what="reference images")
        scores, without = manifold_scores(generated.blocks, bank, k=self.k, inclusive=self.inclusive)
        return Manifolds(
            scores=scores,
            without=without,
            generated=generated,
            n_reference=len(bank),
            warnings=duplicate_warnings(generated),
        )

    def score(self, measured: Manifolds) -> Score:
        """Return this metric's number of the four."""
        return score_with_jackknife(
            Estimate(
                getattr(measured.scores, self.name), [getattr(part, self.name) for part in measured.without]
            ),
            generated=measured.generated,
            better=self.better,
            n_reference=measured.n_reference,
            warnings=measured.warnings,
        )


@METRICS.register("precision")
@dataclass(frozen=True)
class Precision(NeighbourMetric):
    """Share of generated images within the reference manifold (Kynkäänniemi et al. 2019): fidelity."""

    name: ClassVar[str] = "precision"
    title: ClassVar[str] = "Precision"
    laws: ClassVar[frozenset[str]] = SHARES

    k: int = 3
    inclusive: bool = True


@METRICS.register("recall")
@dataclass(frozen=True)
class Recall(NeighbourMetric):
    """Share of reference images within the generated manifold (Kynkäänniemi et al. 2019): diversity."""

    name: ClassVar[str] = "recall"
    title: ClassVar[str] = "Recall"
    laws: ClassVar[frozenset[str]] = SHARES

    k: int = 3
    inclusive: bool = True


@METRICS.register("density")
@dataclass(frozen=True)
class Density(NeighbourMetric):
    """Reference balls around a generated image, divided by k (Naeem et al. 2020); it can exceed 1."""

    name: ClassVar[str] = "density"
    title: ClassVar[str] = "Density"
    laws: ClassVar[frozenset[str]] = LAWS

    k: int = 5
    inclusive: bool = False


@METRICS.register("coverage")
@dataclass(frozen=True)
class Coverage(NeighbourMetric):
    """Share of reference balls that hold a generated image (Naeem et al. 2020)."""

    name: ClassVar[str] = "coverage"
    title: ClassVar[str] = "Coverage"
    laws: ClassVar[frozenset[str]] = SHARES

    k: int = 5
    inclusive: bool = False
