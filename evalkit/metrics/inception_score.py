"""Inception score: confident and varied class predictions; it looks at no reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, score_with_jackknife
from evalkit.numerics import inception_score_blocks
from evalkit.numerics.blocks import LazyBlocks
from evalkit.spec import Better, Scalar, Score, Spec

SPLITS = 10
"""As published (Salimans et al. 2016)."""


@METRICS.register("is")
@dataclass(frozen=True, slots=True)
class InceptionScoreMetric(Metric):
    """Mean over splits of exp(E KL(p(y|x) || p(y))) (Salimans et al. 2016).

    Attributes:
        splits: contiguous splits ``i * n // splits``.
        chunk_size: chunks of fixed length instead (5000 in the ADM evaluator); None for splits.
        shuffle_seed: permute first, as torch-fidelity does (2020); None keeps index order.
    """

    name: ClassVar[str] = "is"
    title: ClassVar[str] = "Inception score"
    better: ClassVar[Better] = "higher"
    needs_reference: ClassVar[bool] = False
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="How sure a classifier is about each image and how many classes it sees in all of them: high "
        "where every image is clearly something and the set holds many things.",
        values="1 to the number of classes; real images set the practical ceiling (CIFAR-10 training images: "
        "11.24 with the published InceptionV3).",
        pitfalls="It never looks at real images: one perfect picture of each class scores best, noise that "
        "the classifier likes scores well, and it says little on data unlike ImageNet. It grows with the "
        "number of images in a split, so compare at equal N and splits only.",
        cost="O(n C) for C classes.",
        source="Salimans et al. 2016, section 4; splits and shuffle as in torch-fidelity, chunks as in the "
        "evaluator of guided-diffusion",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_fidelity", "ranks_diversity", "ignores_reference", "at_least_one"}
    )

    splits: int = SPLITS
    chunk_size: int | None = None
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        if self.splits < 1 or (self.chunk_size is not None and self.chunk_size < 1):
            raise UsageError(
                "an inception score needs splits and chunk_size of 1 or more, "
                f"not {self.splits} and {self.chunk_size}"
            )
        if self.chunk_size is not None and self.splits != SPLITS:
            raise UsageError(
                f"an inception score is cut into {self.splits} splits or into chunks of {self.chunk_size}, "
                "not both",
                hint="for splits where the protocol has chunks, add --param is.chunk_size=null",
            )
        if self.shuffle_seed is not None and not 0 <= self.shuffle_seed < 1 << 32:
            raise UsageError(f"the shuffle seed of is lies from 0 to 2^32 - 1, not at {self.shuffle_seed}")

    @property
    def spec(self) -> Spec:
        """Name and parameters; ``splits`` only where there are no chunks."""
        cut: dict[str, Scalar] = (
            {"splits": self.splits} if self.chunk_size is None else {"chunk_size": self.chunk_size}
        )
        params = {"shuffle_seed": self.shuffle_seed, **cut}
        return Spec("metric", self.name, params=tuple(sorted(params.items())))

    @property
    def minimum_images(self) -> int:
        """One for each split."""
        return self.splits if self.chunk_size is None else 1

    @property
    def head(self) -> str:
        """It reads logits."""
        return "logits"

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,  # noqa: ARG002 - the score looks at no reference
        *,
        rng: np.random.Generator,  # noqa: ARG002 - the shuffle has its own published seed
    ) -> Score:
        """Return the score of ``generated`` logits; the spread over splits is in ``details``.

        Raises:
            InvalidInputError: fewer images than splits, or logits that are not finite.
        """
        minimum = self.minimum_images
        check_count(generated.count, minimum=minimum, metric=self.name)
        resampled = len(generated.sizes) > 1 and generated.count - max(generated.sizes) >= minimum
        logits = generated.blocks if isinstance(generated.blocks, LazyBlocks) else generated.stacked()
        sizes = generated.sizes if resampled else ()
        score, without = inception_score_blocks(
            logits, sizes, splits=self.splits, chunk=self.chunk_size, shuffle_seed=self.shuffle_seed
        )
        return score_with_jackknife(
            Estimate(score.mean, [part.mean for part in without], details={"split_std": score.std}),
            generated=generated,
            better=self.better,
            warnings=duplicate_warnings(generated),
        )
