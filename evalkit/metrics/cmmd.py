"""CMMD: maximum mean discrepancy of normalised features; CLIP's where the extractor is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics.gaussian_mmd import gaussian_sums
from evalkit.numerics.resampling import second_degree_share
from evalkit.spec import Better, Score, Spec


@METRICS.register("cmmd")
@dataclass(frozen=True, slots=True)
class GaussianKernelDistance(Metric):
    """Squared MMD of unit vectors with a Gaussian kernel, biased V-statistic (Jayasumana et al. 2024).

    Attributes:
        sigma: bandwidth of the kernel.
        scale: what the statistic is multiplied by for printing.
    """

    name: ClassVar[str] = "cmmd"
    title: ClassVar[str] = "CMMD"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    laws: ClassVar[frozenset[str]] = frozenset(
        {
            "ranks_fidelity",
            "ranks_diversity",
            "needs_reference",
            "zero_at_identity",
            "symmetric",
            "order_invariant",
            "non_negative",
        }
    )
    about: ClassVar[About] = About(
        meaning="How far the two clouds of feature directions lie apart, with no assumption that they are "
        "Gaussian. Near 0 the images cannot be told from real ones by these features.",
        values="0 to 40 at sigma 10 and scale 1000; 0 for the very same images, and for two samples of one "
        "distribution about scale (1/n + 1/m) times the mean of 1 - k for n generated, m reference images",
        pitfalls="The published numbers are of CLIP ViT-L/14-336 features, and hold for no other extractor. "
        "Only directions count: features that differ in length alone are equal. The statistic is biased "
        "upwards by the order of 1/n, so compare at one number of images. At sigma 10 the kernel is almost "
        "linear: it sees means of directions far better than their spread.",
        cost="(n^2 / 2 + n m + m^2 / 2) d multiplications; the error bar is free",
        source="Jayasumana et al. 2024, Rethinking FID, section 4; Gretton et al. 2012, eq. 5",
    )

    sigma: float = 10.0
    scale: float = 1000.0

    def __post_init__(self) -> None:
        if not all(number > 0 and math.isfinite(number) for number in (self.sigma, self.scale)):
            raise UsageError(f"cmmd needs a positive sigma and scale, not {self.sigma} and {self.scale}")

    @property
    def spec(self) -> Spec:
        """Name, bandwidth and scale."""
        return Spec.of("metric", self.name, sigma=self.sigma, scale=self.scale)

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
        """Return the discrepancy of ``generated`` to the features of ``reference``.

        The V-statistic is linear in 1/n in expectation, so its bias-corrected value holds at any n.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: fewer than 2 images, features of zeros, or features that are not finite.
        """
        bank = required(reference, self.name).bank
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        check_count(len(bank), minimum=self.minimum_images, metric=self.name, what="reference images")
        sums = gaussian_sums(generated.blocks, bank, sigma=self.sigma)
        resampled = len(generated.sizes) > 1
        without = (self.scale * sums.without_blocks()).tolist() if resampled else ()
        value, share = self.scale * sums.value(), 1.0
        if len(generated.sizes) > 2:
            share = second_degree_share(value, without, self.scale * sums.without_pairs())
        return score_with_jackknife(
            Estimate(value, without, share=share),
            generated=generated,
            better=self.better,
            n_reference=len(bank),
            unbiased_limit=True,
            warnings=duplicate_warnings(generated),
        )
