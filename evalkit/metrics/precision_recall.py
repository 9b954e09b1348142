"""Precision, recall, density and coverage: views of one pass over nearest neighbours."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.compared import Asked, ComparedMetric, Comparison
from evalkit.metrics.scoring import Estimate, bound_warnings, score_with_jackknife
from evalkit.numerics import ManifoldScores, first_order_share, jackknife
from evalkit.numerics.manifolds import Balls
from evalkit.spec import Better, Score, Spec

LAWS = frozenset({"needs_reference", "order_invariant", "non_negative"})
SHARES = LAWS | {"one_at_identity", "at_most_one"}
COST = (
    "(n^2 / 2 + n m + m^2 / 2) d multiplications for n generated and m reference images, once for all of the "
    "family; 8 n d bytes beside the features."
)
SIZES = (
    "It depends on the numbers of images on both sides: compare only at equal numbers. Conventions differ "
    "in k (3 in the paper, 5 in prdc), in closed or open balls, and in the features (VGG16, Inception)."
)


class NeighbourMetric(ComparedMetric):
    """One view of the manifolds.

    A subclass holds ``k``, the neighbour that gives the radius, and ``inclusive``, ``<=`` rather than ``<``.
    """

    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]]

    k: int
    inclusive: bool

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k of {self.name} must be 1 or more, not {self.k}")

    @property
    def spec(self) -> Spec:
        """Name, neighbour and comparison."""
        return Spec.of("metric", self.name, k=self.k, inclusive=self.inclusive)

    @property
    def minimum_images(self) -> int:
        """One more than the neighbour that gives the radius."""
        return self.k + 1

    @property
    def balls(self) -> Balls:
        """The neighbour and the comparison."""
        return Balls(self.k, self.inclusive)

    @property
    def asked(self) -> Asked:
        """All four scores of its balls."""
        return Asked(balls=(self.balls,))

    @abstractmethod
    def view(self, scores: ManifoldScores) -> float:
        """Return this metric's number of the four."""

    def score(self, measured: Comparison) -> Score:
        """Return this metric's number, with its values without each block."""
        found = measured.found.manifolds[self.balls]
        return score_with_jackknife(
            Estimate(
                self.view(found.scores),
                [self.view(part) for part in found.without],
                share=self._share(measured),
            ),
            generated=measured.generated,
            better=self.better,
            n_reference=measured.n_reference,
            warnings=measured.warnings + self._bound_warnings(measured),
        )

    def _counted(self, measured: Comparison) -> int:  # noqa: ARG002 - for those that count
        """Return the images of which this is a share; 0 where it is none."""
        return 0

    def _bound_warnings(self, measured: Comparison) -> tuple[str, ...]:
        counted = self._counted(measured)
        if not counted:
            return ()
        share = self.view(measured.found.manifolds[self.balls].scores)
        return bound_warnings(min(share, 1 - share) * counted, f"of {counted} images")

    def _share(self, measured: Comparison) -> float:
        """Two blocks that reach the same reference points make the jackknife too wide."""
        found = measured.found.manifolds[self.balls]
        if not found.fixed_pairs:
            return 1.0
        pairs = np.zeros((len(found.fixed), len(found.fixed)))
        for block, row in enumerate(found.fixed_pairs):
            pairs[block, block + 1 :] = [self.view(part) for part in row]
        return first_order_share(self.view(found.scores), [self.view(part) for part in found.fixed], pairs)


@METRICS.register("precision")
@dataclass(frozen=True)
class Precision(NeighbourMetric):
    """Share of generated images within the reference manifold (Kynkäänniemi et al. 2019): fidelity."""

    name: ClassVar[str] = "precision"
    title: ClassVar[str] = "Precision"
    any_count: ClassVar[bool] = True
    step: ClassVar[float] = 1.0
    about: ClassVar[About] = About(
        meaning="Share of generated images that look like real ones: they lie in the reference manifold. "
        "Low: implausible images.",
        values="0 to 1; 1 at identity. A perfect model has the share of new real images: 0.67 for CIFAR-10 "
        "test images among 10 000 training images in EfficientNet-Lite0 features.",
        pitfalls="Mild blur or JPEG does not lower it. "
        "It says nothing about diversity: repeating one typical image scores 1. " + SIZES,
        cost=COST,
        source="Kynkäänniemi et al. 2019 (arXiv:1904.06991), eqs. 1-2",
    )
    laws: ClassVar[frozenset[str]] = SHARES | {"ranks_fidelity"}

    k: int = 3
    inclusive: bool = True

    def view(self, scores: ManifoldScores) -> float:
        """Return the precision."""
        return scores.precision

    def _counted(self, measured: Comparison) -> int:
        return measured.generated.count


@METRICS.register("recall")
@dataclass(frozen=True)
class Recall(NeighbourMetric):
    """Share of reference images within the generated manifold (Kynkäänniemi et al. 2019): diversity."""

    name: ClassVar[str] = "recall"
    title: ClassVar[str] = "Recall"
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="Share of real images that the model can make something like: they lie in the generated "
        "manifold. Low: missing variety.",
        values="0 to 1; 1 at identity. A perfect model has the share that new real images have: 0.72 for 1 "
        "024 CIFAR-10 test images and 10 000 training images in EfficientNet-Lite0 features.",
        pitfalls="Wildly scattered images enlarge the manifold and raise it. " + SIZES,
        cost=COST,
        source="Kynkäänniemi et al. 2019 (arXiv:1904.06991), eqs. 1-2",
    )
    laws: ClassVar[frozenset[str]] = SHARES | {"ranks_diversity"}

    k: int = 3
    inclusive: bool = True

    def view(self, scores: ManifoldScores) -> float:
        """Return the recall."""
        return scores.recall

    def _counted(self, measured: Comparison) -> int:
        return measured.n_reference


@METRICS.register("density")
@dataclass(frozen=True)
class Density(NeighbourMetric):
    """Reference balls around a generated image, divided by k (Naeem et al. 2020); it can exceed 1."""

    name: ClassVar[str] = "density"
    title: ClassVar[str] = "Density"
    any_count: ClassVar[bool] = True
    step: ClassVar[float] = 1.0
    about: ClassVar[About] = About(
        meaning="How many reference balls a generated image lies in, over k: fidelity that counts dense "
        "regions more and outliers less than precision does.",
        values="0 upwards, can exceed 1; about 1 for a perfect model.",
        pitfalls="Mild blur and JPEG raise it, as smoother images are more typical, and so does "
        "leaving classes out. "
        "Above 1 is no merit in itself: images crowd where real ones are dense. " + SIZES,
        cost=COST,
        source="Naeem et al. 2020 (arXiv:2002.09797), eq. 3",
    )
    laws: ClassVar[frozenset[str]] = LAWS | {"ranks_noise"}

    k: int = 5
    inclusive: bool = False

    def view(self, scores: ManifoldScores) -> float:
        """Return the density."""
        return scores.density


@METRICS.register("coverage")
@dataclass(frozen=True)
class Coverage(NeighbourMetric):
    """Share of reference balls that hold a generated image (Naeem et al. 2020)."""

    name: ClassVar[str] = "coverage"
    title: ClassVar[str] = "Coverage"
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="Share of real images with a generated image nearby: diversity, by balls of the real "
        "images only, so that scattered samples cannot raise it. Low: missing variety.",
        values="0 to 1; 1 at identity. A perfect model at equal numbers has 1 - 2^-k, about 0.97 at k = 5.",
        pitfalls="It grows with the number of generated images. With a handful of real images left to cover "
        "the interval is too short, and a warning says so. " + SIZES,
        cost=COST,
        source="Naeem et al. 2020 (arXiv:2002.09797), eq. 4",
    )
    laws: ClassVar[frozenset[str]] = SHARES | {"ranks_fidelity", "ranks_diversity"}

    k: int = 5
    inclusive: bool = False

    def view(self, scores: ManifoldScores) -> float:
        """Return the coverage."""
        return scores.coverage

    def _counted(self, measured: Comparison) -> int:
        return measured.n_reference

    def _share(self, measured: Comparison) -> float:
        """Variance over single images in place of the blocks', which is right in the mean but unsteady."""
        found = measured.found.manifolds[self.balls]
        if not found.without:
            return 1.0
        without = [part.coverage for part in found.without]
        blocks = jackknife(found.scores.coverage, without, sizes=measured.generated.sizes).stderr ** 2
        return found.coverage_variance / blocks if found.coverage_variance and blocks else 1.0
