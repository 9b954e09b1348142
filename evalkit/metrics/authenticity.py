"""AuthPct: how many generated images are no closer to a training image than training images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics.memorisation import authentic_rows
from evalkit.numerics.shares import shares_without_blocks
from evalkit.spec import Better, Score, Spec


def part_of_training(reference: ReferenceFeatures) -> tuple[str, ...]:
    """Return a warning where the reference keeps features of some of its images only."""
    kept, count = len(reference.bank), reference.count
    if kept >= count:
        return ()
    return (f"nearest among {kept} of the {count} training images only: copies of the others go unseen",)


@METRICS.register("authpct")
@dataclass(frozen=True, slots=True)
class AuthPct(Metric):
    """Percentage of authentic generated images (Alaa et al. 2022); the reference is the training set."""

    name: ClassVar[str] = "authpct"
    title: ClassVar[str] = "AuthPct"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    step: ClassVar[float] = 100.0
    about: ClassVar[About] = About(
        meaning="Percentage of generated images that lie farther from their nearest training image than "
        "that training image lies from its own nearest neighbour. A low value says that samples crowd "
        "around training images: copying.",
        values="0 to 100; 0 for copies of the training set. A perfect model has the value of new real "
        "images: 80 for CIFAR-10 test images among 10 000 training images in EfficientNet-Lite0 features.",
        pitfalls="It measures novelty and nothing else: noise scores 100. Read it beside a measure of "
        "quality. The reference must be the whole training set; copies of images left out of it go unseen. "
        "dgm-eval prints this percentage, the fld package the same less 50.",
        cost="m^2 d / 2 + n m d multiplications for n generated and m training images; 64 MiB beside the "
        "features.",
        source="Alaa et al. 2022 (arXiv:2102.08921), section 3.3; printed in percent by dgm-eval (Stein et "
        "al. 2023)",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"needs_reference", "zero_at_identity", "order_invariant", "non_negative", "detects_copies"}
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
        """Return the percentage of authentic images among ``generated``.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: fewer than 2 images on a side, or features that are not finite.
        """
        real = required(reference, self.name)
        check_count(generated.count, minimum=2, metric=self.name)
        check_count(len(real.bank), minimum=2, metric=self.name, what="training images")
        authentic = authentic_rows(generated.stacked(), real.bank)
        return score_with_jackknife(
            Estimate(
                100 * float(authentic.mean()),
                [100 * share for share in shares_without_blocks(authentic, generated.sizes)],
            ),
            generated=generated,
            better=self.better,
            n_reference=len(real.bank),
            warnings=part_of_training(real) + duplicate_warnings(generated),
        )
