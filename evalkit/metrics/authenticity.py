"""AuthPct: how many generated images are no closer to a training image than training images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evalkit.core import About, ReferenceFeatures
from evalkit.metrics import METRICS
from evalkit.metrics.compared import Asked, ComparedMetric, Comparison
from evalkit.metrics.scoring import Estimate, score_with_jackknife
from evalkit.numerics.shares import shares_without_blocks
from evalkit.spec import Better, Score, Spec


def part_of_training(reference: ReferenceFeatures) -> tuple[str, ...]:
    """Return a warning where the reference keeps features of some of its images only."""
    kept, count = len(reference.bank), reference.count
    if kept >= count:
        return ()
    return (f"nearest among {kept} of the {count} training images only: copies of the others go unseen",)


@METRICS.register("authpct")
@dataclass(frozen=True)
class AuthPct(ComparedMetric):
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
        cost="m^2 d / 2 + n m d multiplications for n generated and m training images, the same ones as "
        "those of precision; 8 n d bytes beside the features.",
        source="Alaa et al. 2022 (arXiv:2102.08921), section 3.3; printed in percent by dgm-eval (Stein et "
        "al. 2023)",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"needs_reference", "zero_at_identity", "order_invariant", "non_negative", "detects_copies"}
    )

    reference_images: ClassVar[str] = "training images"

    @property
    def spec(self) -> Spec:
        """Name; there are no parameters."""
        return Spec.of("metric", self.name)

    @property
    def minimum_images(self) -> int:
        """A training image needs a neighbour."""
        return 2

    @property
    def asked(self) -> Asked:
        """Which rows are authentic."""
        return Asked(authentic=True)

    def score(self, measured: Comparison) -> Score:
        """Return the percentage of authentic images."""
        authentic, generated = measured.found.authentic, measured.generated
        return score_with_jackknife(
            Estimate(
                100 * float(authentic.mean()),
                [100 * share for share in shares_without_blocks(authentic, generated.sizes)],
            ),
            generated=generated,
            better=self.better,
            n_reference=measured.n_reference,
            warnings=part_of_training(measured.reference) + measured.warnings,
        )
