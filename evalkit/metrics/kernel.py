"""Kernel distance: unbiased squared MMD with the cubic kernel; KID where the features are Inception's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics import kernel_sums
from evalkit.numerics.mmd import kernel_sums_and_subsets
from evalkit.numerics.resampling import second_degree_share
from evalkit.spec import Better, Score, Spec

SUBSET_SIZE = 1000
"""As published (Bińkowski et al. 2018)."""


@METRICS.register("kd")
@dataclass(frozen=True, slots=True)
class KernelDistance(Metric):
    """Squared MMD (Binkowski et al. 2018): the exact U-statistic, or the published mean over subsets.

    The error bar is the jackknife of the exact statistic in both cases: the spread over subsets, which
    papers print, is not a standard error and stands in ``details``.

    Attributes:
        subsets: number of random subsets; None for the exact statistic.
        subset_size: images in each subset.
    """

    name: ClassVar[str] = "kd"
    title: ClassVar[str] = "Kernel distance"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    any_count: ClassVar[bool] = True
    about: ClassVar[About] = About(
        meaning="How far the generated features are from real ones, by how alike images are within and "
        "across the two sets. Unlike a Fréchet distance it has no bias that depends on the number of images.",
        values="0 to infinity, and about 0 (also slightly below) for two samples of the same images; papers "
        "often print it times 1 000",
        pitfalls="The sign is kept: a negative value means no difference that this many images could show. "
        "The published mean over 100 subsets and the exact statistic are two estimates of the same "
        "quantity, and the spread over subsets is no standard error.",
        cost="(n^2 / 2 + n m + m^2 / 2) d multiplications for n generated and m reference images, with "
        "or without subsets; the error bar is free. 8 n d bytes beside the features.",
        source="Bińkowski et al. 2018, section 4 (cubic polynomial kernel, unbiased estimate); Gretton et "
        "al. 2012, eq. 3",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_fidelity", "ranks_diversity", "needs_reference", "symmetric", "order_invariant"}
    )

    subsets: int | None = None
    subset_size: int = SUBSET_SIZE

    def __post_init__(self) -> None:
        if self.subsets is None and self.subset_size != SUBSET_SIZE:
            raise UsageError(
                f"kd draws no subsets of {self.subset_size}: without their number it is the exact statistic",
                hint="add --param kd.subsets=100",
            )
        if self.subset_size < 2 or (self.subsets is not None and self.subsets < 1):
            raise UsageError(
                f"kd needs at least 1 subset of 2 images, not {self.subsets} of {self.subset_size}"
            )

    @property
    def spec(self) -> Spec:
        """Name and parameters; the subset size only where there are subsets."""
        if self.subsets is None:
            return Spec.of("metric", self.name, subsets=None)
        return Spec.of("metric", self.name, subsets=self.subsets, subset_size=self.subset_size)

    @property
    def minimum_images(self) -> int:
        """A subset, or two for the exact statistic."""
        return 2 if self.subsets is None else max(2, self.subset_size)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    @property
    def watched(self) -> KernelDistance:
        """The exact statistic, which the mean over subsets estimates and which needs no thousand images."""
        return self if self.subsets is None else KernelDistance()

    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return the distance of ``generated`` to the features of ``reference``; it may be negative.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: fewer images than 2 or than a subset, or features that are not finite.
        """
        bank = required(reference, self.name).bank
        minimum = 2 if self.subsets is None else self.subset_size
        check_count(generated.count, minimum=minimum, metric=self.name)
        check_count(len(bank), minimum=minimum, metric=self.name, what="reference images")
        estimate = None
        if self.subsets is None:
            sums = kernel_sums(generated.in_memory(), bank)
        else:
            sums, estimate = kernel_sums_and_subsets(
                generated.in_memory(), bank, subsets=self.subsets, subset_size=self.subset_size, rng=rng
            )
        exact = sums.value()
        resampled = len(generated.sizes) > 1 and generated.count - max(generated.sizes) >= 2
        without = sums.without_blocks().tolist() if resampled else ()
        paired = len(generated.sizes) > 2 and sum(sorted(generated.sizes)[:-2]) >= 2
        share = second_degree_share(exact, without, sums.without_pairs()) if paired else 1.0
        value, details = exact, {}
        if estimate is not None:
            value = estimate.mean
            details = {"subset_mean": estimate.mean, "subset_std": estimate.std, "exact": exact}
        return score_with_jackknife(
            Estimate(value, without, centre=exact, share=share, details=details),
            generated=generated,
            better=self.better,
            n_reference=len(bank),
            warnings=duplicate_warnings(generated),
        )
