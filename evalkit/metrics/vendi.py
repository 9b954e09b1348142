"""Vendi score: how many different images there are, in effect; it looks at no reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, score_with_jackknife
from evalkit.numerics.vendi import vendi_scores
from evalkit.spec import Better, Score, Spec


@METRICS.register("vendi")
@dataclass(frozen=True, slots=True)
class VendiMetric(Metric):
    """Exponential of the entropy of the eigenvalues of the cosine similarities (Friedman & Dieng 2023).

    Attributes:
        order: order q of the entropy; 1 as published, below 1 for more weight on rare kinds of images, above
            for less, ``math.inf`` is written ``"inf"``.
        rank: number of eigenvalues to find where there are more than 2048 images and dimensions, the rest
            bounded; 0 finds all.
    """

    name: ClassVar[str] = "vendi"
    title: ClassVar[str] = "Vendi score"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = False
    any_count: ClassVar[bool] = False
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_diversity", "ignores_reference", "at_least_one", "order_invariant"}
    )
    about: ClassVar[About] = About(
        meaning="The effective number of different images: 1 where all point one way in feature space, n "
        "where no two have anything in common. A low value says that the model repeats itself.",
        values="1 to the smaller of the number of images and of dimensions; compare with the score of as "
        "many real images",
        pitfalls="It knows no real images: noise scores high. It grows with the number of images, so compare "
        "at one number only, and it means nothing without the extractor. Features that are all positive lie "
        "in a narrow cone and give small values: a step of 0.1 can be large.",
        cost="n d min(n, d) for the similarities and min(n, d)^3 for their eigenvalues, once for each block "
        "of the error bar",
        source="Friedman & Dieng 2023, The Vendi Score, definition 3.1; orders: Pasarkar & Dieng 2024, "
        "Cousins of the Vendi Score",
    )

    order: float | str = 1.0
    rank: int = 0

    def __post_init__(self) -> None:
        known = self.order == "inf" or (
            not isinstance(self.order, str) and self.order > 0 and math.isfinite(self.order)
        )
        if not known or self.rank < 0:
            raise UsageError(
                f"a Vendi score needs a positive order and a rank of 0 or more, not {self.order!r} and "
                f"{self.rank}",
                hint="the infinite order is written 'inf'",
            )

    @property
    def spec(self) -> Spec:
        """Name, order and rank."""
        return Spec.of("metric", self.name, order=self.order, rank=self.rank)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - the score looks at no reference
        *,
        rng: np.random.Generator,
    ) -> Score:
        """Return the score of ``generated``, with its bounds in ``details`` where ``rank`` is not 0.

        Raises:
            InvalidInputError: fewer than 2 images, features of zeros, or features that are not finite.
        """
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        whole, without = vendi_scores(generated.blocks, order=float(self.order), rank=self.rank, rng=rng)
        resampled = generated.count - max(generated.sizes) >= self.minimum_images
        return score_with_jackknife(
            Estimate(
                whole.value,
                [part.value for part in without] if resampled else (),
                details={"lower": whole.lower, "upper": whole.upper} if self.rank else {},
            ),
            generated=generated,
            better=self.better,
            warnings=duplicate_warnings(generated),
        )
