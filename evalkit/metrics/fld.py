"""FLD: how likely held-out real images are under a density that stands on the generated ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.authenticity import part_of_training
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics.likelihood import LikelihoodEstimate, feature_likelihood
from evalkit.spec import Better, Score, Spec

MEMORISED = 1000
"""Above it (or a gap below its negative) the authors' package says that the samples are likely copies."""


@METRICS.register("fld")
@dataclass(frozen=True, slots=True)
class FeatureLikelihoodDivergence(Metric):
    """Feature likelihood divergence (Jiralerspong et al. 2023); the reference is the training set.

    Attributes:
        size: most generated images that are used; of more, so many are drawn at random.
    """

    name: ClassVar[str] = "fld"
    title: ClassVar[str] = "FLD"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    needs_held_out: ClassVar[bool] = True
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="How much less likely held-out real images are under a density that stands on the samples "
        "than under one that stands on training images. It sees all three: fidelity, diversity and novelty.",
        values="Roughly 0 to 100; 0 for samples as good as new real images, slightly negative by chance. "
        "The generalisation gap in the details (training less held-out likelihood) sinks below 0 as "
        "training images are memorised: 60 below with 3 in 10 samples copied from 10 000 training images.",
        pitfalls="The fit stops after 50 epochs as published, before convergence. The value depends on the "
        "number of generated images (10 000 published) and on the features (DINOv2 published), and is too "
        "low where there are fewer than two training images for each generated one. A few copies hardly "
        "move it: read the gap. Samples nearer to the mean than real images are can score below 0. The "
        "training images must be all that the model saw. Of a model as good as real images the error bar "
        "came out up to 1.3 times too wide.",
        cost="50 n m exponentials for n generated and m training images, twice; and as often again as "
        "there are blocks, up to n m = 16 million. At most 1 GiB beside the features.",
        source="Jiralerspong et al. 2023 (arXiv:2302.04440), sections 3-4 and the authors' package fld",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_fidelity", "ranks_diversity", "needs_reference", "order_invariant", "detects_copies"}
    )

    size: int = 10_000

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UsageError(f"size of fld must be at least 2, not {self.size}")

    @property
    def spec(self) -> Spec:
        """Name and the most images that are used."""
        return Spec.of("metric", self.name, size=self.size)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return the divergence of ``generated`` with its error bar over generated images.

        Raises:
            NothingMeasuredError: there is no reference, it holds moments only, or there is no held-out one.
            InvalidInputError: too few images, features that are not finite, or training images of which more
                than half are exact duplicates.
        """
        training = required(reference, self.name)
        held_out = training.held_out.bank
        check_count(generated.count, minimum=2, metric=self.name)
        check_count(len(training.bank), minimum=4, metric=self.name, what="training images")
        check_count(len(held_out), minimum=2, metric=self.name, what="held-out images")
        used = drawn(generated, self.size, rng=rng)
        estimate = feature_likelihood(used.blocks, training.bank, held_out, rng=rng)
        value = estimate.value
        return score_with_jackknife(
            Estimate(
                value.divergence,
                estimate.without,
                details={
                    "generalisation_gap": value.generalisation_gap,
                    "held_out_nll": value.held_out,
                    "training_nll": value.training,
                    "baseline_nll": value.baseline,
                },
            ),
            generated=used,
            better=self.better,
            n_reference=len(training.bank),
            warnings=_warnings(estimate, few_training=len(training.bank) < 2 * used.count)
            + part_of_training(training)
            + duplicate_warnings(generated),
        )


def drawn(generated: FeatureSet, size: int, *, rng: np.random.Generator) -> FeatureSet:
    """Return ``size`` images drawn without replacement, in their blocks; all where there are no more."""
    if generated.count <= size:
        return generated
    chosen = np.sort(rng.choice(generated.count, size, replace=False))
    edges = np.cumsum([0, *generated.sizes])
    found = [chosen[(start <= chosen) & (chosen < stop)] - start for start, stop in pairwise(edges)]
    parts = (block[rows] for block, rows in zip(generated.blocks, found, strict=True))
    return FeatureSet(tuple(part for part in parts if len(part)))


def _warnings(estimate: LikelihoodEstimate, *, few_training: bool) -> tuple[str, ...]:
    warnings = []
    if few_training:
        warnings.append("fewer than two training images for each generated one: too low beside other scores")
    if estimate.repeated:
        warnings.append(
            f"{estimate.repeated} training images are exact duplicates of others: the baseline is fitted to "
            "copies, and the score too low"
        )
    if max(estimate.value.divergence, -estimate.value.generalisation_gap) > MEMORISED:
        warnings.append("so high a value is what copies of training images give: see `evalkit memorisation`")
    if estimate.without and not estimate.refitted:
        warnings.append("the error bar keeps the fitted bandwidths: a tenth too short, more with many copies")
    if estimate.constant:
        warnings.append(
            f"{estimate.constant} features do not vary over the held-out images and were left out"
        )
    return tuple(warnings)
