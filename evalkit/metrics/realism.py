"""Realism: how many generated images lie in the dense part of the reference manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics.realism import realism_scores
from evalkit.numerics.shares import shares_without_blocks
from evalkit.spec import Better, Score, Spec


@METRICS.register("realism")
@dataclass(frozen=True, slots=True)
class Realism(Metric):
    """Share of generated images with a realism score R of at least 1 (Kynkäänniemi et al. 2019, eq. 3).

    R itself belongs to one image, and is infinite where a reference image is repeated, so that no mean of it
    exists; the share always does. :func:`~evalkit.numerics.realism.realism_scores` returns R image by image.

    Attributes:
        k: which neighbour gives the radius of a ball.
    """

    name: ClassVar[str] = "realism"
    title: ClassVar[str] = "Realism"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    step: ClassVar[float] = 1.0
    about: ClassVar[About] = About(
        meaning="Share of generated images whose realism score R is 1 or more: they lie within the half of "
        "the reference balls that are smallest, where real images are dense. A low share means images "
        "unlike any common real one.",
        values="0 to 1. A perfect model has the share of new real images, well below 1 because half of the "
        "balls are left out: 0.36 for CIFAR-10 test images among 10 000 training images in "
        "EfficientNet-Lite0 features. The median R stands in the details.",
        pitfalls="It says nothing about diversity: repeating one typical image scores 1. It depends on the "
        "number of reference images, and compares only at equal numbers. Rare real images count as unreal.",
        cost="m^2 d + n m d multiplications for n generated and m reference images; 64 MiB beside the "
        "features.",
        source="Kynkäänniemi et al. 2019 (arXiv:1904.06991), section 5 and eq. 3; k = 3",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_fidelity", "needs_reference", "order_invariant", "non_negative", "at_most_one"}
    )

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k of realism must be 1 or more, not {self.k}")

    @property
    def spec(self) -> Spec:
        """Name and neighbour."""
        return Spec.of("metric", self.name, k=self.k)

    @property
    def minimum_images(self) -> int:
        """One more than the neighbour that gives the radius."""
        return self.k + 1

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
        """Return the share of ``generated`` with R >= 1; reference balls are the same without a block.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: fewer than k + 1 images on a side, or features that are not finite.
        """
        bank = required(reference, self.name).bank
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        check_count(len(bank), minimum=self.minimum_images, metric=self.name, what="reference images")
        scores = realism_scores(generated.stacked(), bank, k=self.k)
        realistic = scores >= 1
        # The middle one and not the mean of two, either of which may be infinite.
        median = float(np.quantile(scores, 0.5, method="lower"))
        return score_with_jackknife(
            Estimate(
                float(realistic.mean()),
                shares_without_blocks(realistic, generated.sizes),
                details={"median_score": median} if np.isfinite(median) else {},
            ),
            generated=generated,
            better=self.better,
            n_reference=len(bank),
            warnings=duplicate_warnings(generated),
        )
