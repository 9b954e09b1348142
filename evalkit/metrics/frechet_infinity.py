"""FID∞ of Chong & Forsyth: the Fréchet distance at infinitely many images, by a line in 1/N."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from evalkit.accumulators.moments import MomentsAccumulator
from evalkit.core import About, FeatureSet, FloatArray, IndexArray, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.scoring import Estimate, check_count, duplicate_warnings, required, score_with_jackknife
from evalkit.numerics import GaussianFactor, frechet_distance_to, gaussian_factor
from evalkit.numerics.infinity import keyed_order, leave_out_order, line_in_inverse, subset_sizes
from evalkit.spec import Better, Score, Spec

# In images per dimension: the smallest subset (the published 5 000 are 2.4 of Inception's 2 048 dimensions),
# the fewest images, and the fewest without a block for an error bar.
SMALLEST_SUBSET = 2
FEWEST = 4
FEWEST_LEFT = 3


@METRICS.register("fd-infinity")
@dataclass(frozen=True, slots=True)
class FrechetInfinity(Metric):
    """Intercept of the distance against 1/N over random subsets (Chong & Forsyth 2020, section 3.1).

    With the defaults and 50 000 images the sizes are the published ones: 15 from 5 000 to 50 000. The subsets
    are prefixes of one random order instead of 15 independent ones, so that moments are gathered in one pass.

    Attributes:
        points: number of subset sizes, evenly spaced.
        fraction: smallest subset as a part of all images; never fewer than 2 images per dimension.
    """

    name: ClassVar[str] = "fd-infinity"
    title: ClassVar[str] = "Fréchet distance at infinity"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    about: ClassVar[About] = About(
        meaning="The Fréchet distance that infinitely many images would have against the same reference: "
        "unlike the distance itself it can be compared between different numbers of images.",
        values="About 0 (also below) for a perfect model; no upper bound.",
        pitfalls="The bias is a line in 1/N only where N is many times the dimension: on real features the "
        "limit is 8 % too low at 4 images a dimension and 1 % at 10. The reference's own error stays in it. "
        "The bias-corrected value of fd is closer at small N, and cheaper. Of a good model the "
        "interval is up to 1.6 times too wide: cautious.",
        cost="n d^2 for the moments and a few d^3 a point, once for the value and once for each block.",
        source="Chong & Forsyth 2020, section 3.1 (FID-infinity, without quasi-random latents).",
    )
    laws: ClassVar[frozenset[str]] = frozenset(
        {"ranks_fidelity", "ranks_diversity", "needs_reference", "order_invariant"}
    )

    points: int = 15
    fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.points < 2:
            raise UsageError(f"fd-infinity needs at least 2 points, not {self.points}")
        if not 0 < self.fraction < 1:
            raise UsageError(f"fraction of fd-infinity lies between 0 and 1, not at {self.fraction}")

    @property
    def spec(self) -> Spec:
        """Name, number of points and smallest subset."""
        return Spec.of("metric", self.name, points=self.points, fraction=self.fraction)

    def minimum_for(self, dimension: int) -> int:
        """So many that every subset has full rank."""
        return max(self.minimum_images, FEWEST * dimension)

    @property
    def head(self) -> str:
        """It reads features."""
        return "features"

    def compute(
        self, generated: FeatureSet, reference: ReferenceFeatures | None, *, rng: np.random.Generator
    ) -> Score:
        """Return the limit of the distance of ``generated`` to the moments of ``reference``.

        The leave-one-block-out values repeat the whole procedure. They are left out where fewer than 3 images
        per dimension remain without a block.

        Raises:
            NothingMeasuredError: there is no reference.
            InvalidInputError: fewer than 4 images per dimension, other dimensions, or features not finite.
        """
        real = required(reference, self.name)
        target = gaussian_factor(real.mean, real.covariance)
        dimension = len(target.mean)
        check_count(generated.count, minimum=FEWEST * dimension, metric=self.name)
        if any(block.ndim != 2 or block.shape[1] != dimension for block in generated.blocks):
            raise InvalidInputError(f"generated features do not have the reference's {dimension} dimensions")
        features = generated.stacked()
        order = keyed_order(features, rng.bytes(32))
        limit, slope = self._limit(features, order, target)
        sizes = generated.sizes
        without = []
        if len(sizes) > 1 and generated.count - max(sizes) >= FEWEST_LEFT * dimension:
            for start, stop in pairwise((0, *accumulate(sizes))):
                rest = leave_out_order(order, start=start, stop=stop)
                without.append(self._limit(features, rest, target)[0])
        return score_with_jackknife(
            Estimate(limit, without, details={"slope": slope}),
            generated=generated,
            better=self.better,
            n_reference=real.count,
            warnings=duplicate_warnings(generated),
        )

    def _limit(self, features: FloatArray, order: IndexArray, target: GaussianFactor) -> tuple[float, float]:
        """Limit and slope over prefixes of the rows in ``order``."""
        start = max(math.ceil(self.fraction * len(order)), SMALLEST_SUBSET * len(target.mean))
        sizes = subset_sizes(len(order), start=start, points=self.points)
        moments = MomentsAccumulator()
        distances = []
        for begin, end in pairwise((0, *sizes.tolist())):
            rows = order[begin:end]
            moments.update(features[rows], rows)
            distances.append(frechet_distance_to(target, mean=moments.mean, cov=moments.covariance))
        return line_in_inverse(sizes, np.asarray(distances))
