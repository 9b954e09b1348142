"""Memorisation-informed Fréchet distance: MiFID where the features are Inception's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.core import About, FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.frechet import FrechetDistance
from evalkit.metrics.scoring import Estimate, check_count, required, score_with_jackknife
from evalkit.numerics import jackknife
from evalkit.numerics.directions import nearest_cosine_distances
from evalkit.spec import Better, Score, Spec

# Both as in the Kaggle competition's code and in torchmetrics.
OFFSET = 10e-15
SMALLEST_DISTANCE = 1e-8


@METRICS.register("mifd")
@dataclass(frozen=True, slots=True)
class MemorisationInformedDistance(Metric):
    """Fréchet distance divided by the memorisation distance, where that is small (Bai et al. 2021).

    ``m`` is the mean over generated images of ``min (1 - |cos|)`` over reference images. From ``epsilon`` on
    the result is the Fréchet distance itself, below it ``FD / (m + 1e-14)``; 0 where FD is at most 1e-8.

    Attributes:
        epsilon: memorisation distance from which nothing is punished.
    """

    name: ClassVar[str] = "mifd"
    title: ClassVar[str] = "Memorisation-informed Fréchet distance"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    needs_bank: ClassVar[bool] = True
    any_count: ClassVar[bool] = False
    laws: ClassVar[frozenset[str]] = frozenset(
        {
            "ranks_fidelity",
            "ranks_diversity",
            "needs_reference",
            "zero_at_identity",
            "order_invariant",
            "non_negative",
        }
    )
    about: ClassVar[About] = About(
        meaning="The Fréchet distance, made worse where generated images lie too close to single reference "
        "images. A value far above the Fréchet distance says that training images were copied.",
        values="0 to infinity; 0 at identity, equal to the Fréchet distance where nothing was copied",
        pitfalls="The reference must be the training images, and all of them: copies of images outside its "
        "bank stay unseen. The threshold 0.1 was set for Inception's pool3 features; elsewhere good images "
        "may lie below it, so read the memorisation distance beside the number. Moments equal to the "
        "reference's give 0 even where every image is a copy.",
        cost="n m d multiplications for m reference images, beside those of the Fréchet distance",
        source="Bai et al. 2021, On Training Sample Memorization: Lessons from Benchmarking Generative "
        "Modeling with a Large-scale Competition (MiFID)",
    )

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise UsageError(f"the epsilon of mifd lies above 0 and up to 1, not at {self.epsilon}")

    @property
    def spec(self) -> Spec:
        """Name and threshold."""
        return Spec.of("metric", self.name, epsilon=self.epsilon)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return the distance; ``details`` hold its two parts.

        Rows of zeros have no direction and take no part in the memorisation distance.

        Raises:
            NothingMeasuredError: there is no reference, or it holds moments only.
            InvalidInputError: fewer than 2 images, nothing but zeros, or features that are not finite.
        """
        real = required(reference, self.name)
        bank = real.bank
        check_count(generated.count, minimum=self.minimum_images, metric=self.name)
        plain = FrechetDistance().compute(generated, reference, rng=rng)
        sums, counts = _nearest_sums(generated.blocks, bank)
        memorisation = float(sums.sum() / counts.sum())
        without: Sequence[float] = ()
        left = counts.sum() - counts
        if plain.blocks and left.min() > 0:
            every = np.arange(len(sums))
            rest = [float(sums[every != block].sum() / left[block]) for block in every]
            without = [self._combined(fd, m) for fd, m in zip(plain.blocks, rest, strict=True)]
        return score_with_jackknife(
            Estimate(
                self._combined(plain.value, memorisation),
                without,
                share=_share_of(plain),
                details={"frechet_distance": plain.value, "memorisation_distance": memorisation},
            ),
            generated=generated,
            better=self.better,
            n_reference=len(bank),
            warnings=(*plain.warnings, *self._warnings(memorisation, real, int(counts.sum()), generated)),
        )

    def _combined(self, distance: float, memorisation: float) -> float:
        if distance <= SMALLEST_DISTANCE:
            return 0.0
        return distance / ((memorisation if memorisation < self.epsilon else 1.0) + OFFSET)

    def _warnings(
        self, memorisation: float, real: ReferenceFeatures, compared: int, generated: FeatureSet
    ) -> tuple[str, ...]:
        found = []
        if memorisation < self.epsilon:
            found.append(
                f"memorisation: the mean cosine distance to the nearest reference image is "
                f"{memorisation:.3g}, below {self.epsilon:g}, and the Fréchet distance was divided by it"
            )
        if len(real.bank) < real.count:
            found.append(
                f"memorisation was looked for among {len(real.bank)} of {real.count} reference images only"
            )
        if compared < generated.count:
            found.append(
                f"{generated.count - compared} of {generated.count} generated images have features of zeros "
                "and were not compared with single reference images"
            )
        return tuple(found)


def _nearest_sums(
    blocks: Sequence[NDArray[np.float32]], bank: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums of the distances to the nearest reference image, and how many images, block by block."""
    kept = [block[block.any(axis=1)] for block in blocks]
    counts = np.asarray([len(block) for block in kept], dtype=np.int64)
    theirs = bank[bank.any(axis=1)]
    if not counts.sum() or not len(theirs):
        raise InvalidInputError("all features of one side are zero, so that no image is nearest to another")
    distances = nearest_cosine_distances(np.concatenate(kept), theirs)
    edges = np.cumsum(counts)[:-1]
    return np.asarray([part.sum() for part in np.split(distances, edges)], dtype=np.float64), counts


def _share_of(plain: Score) -> float:
    """What the plain distance found to be its own part of the jackknife variance."""
    if not plain.blocks or not plain.stderr:
        return 1.0
    whole = jackknife(plain.value, plain.blocks, sizes=plain.block_sizes).stderr
    return (plain.stderr / whole) ** 2 if whole else 1.0
