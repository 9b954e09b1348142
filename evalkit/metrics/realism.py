"""Realism: how many generated images lie in the dense part of the reference manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.compared import Asked, ComparedMetric, Comparison
from evalkit.metrics.scoring import Estimate, score_with_jackknife
from evalkit.numerics.shares import shares_without_blocks
from evalkit.spec import Better, Score, Spec


@METRICS.register("realism")
@dataclass(frozen=True)
class Realism(ComparedMetric):
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
        cost="m^2 d / 2 + n m d multiplications for n generated and m reference images, the same ones as "
        "those of precision; 8 n d bytes beside the features.",
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
    def asked(self) -> Asked:
        """The realism scores of its neighbour."""
        return Asked(realism=(self.k,))

    def score(self, measured: Comparison) -> Score:
        """Return the share of images with R >= 1; reference balls are the same without a block."""
        scores, generated = measured.found.realism[self.k], measured.generated
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
            n_reference=measured.n_reference,
            warnings=measured.warnings,
        )
