"""FID∞ of Chong & Forsyth: the Fréchet distance at infinitely many images, by a line in 1/N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from evalkit.accumulators.moments import MomentsAccumulator
from evalkit.core import (
    About,
    FeatureSet,
    Float64Array,
    FloatArray,
    IndexArray,
    Metric,
    ReferenceFeatures,
)
from evalkit.errors import UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.frechet_target import target_of
from evalkit.metrics.scoring import (
    Estimate,
    check_count,
    check_width,
    duplicate_warnings,
    required,
    score_with_jackknife,
)
from evalkit.numerics import LEAVE_OUT_ERROR, GaussianFactor, frechet_distance_to
from evalkit.numerics.frechet import RELATIVE_ERROR
from evalkit.numerics.infinity import keyed_order, leave_out_order, line_in_inverse, subset_sizes
from evalkit.numerics.resampling import second_degree_share_of_some
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
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="The Fréchet distance that infinitely many images would have against the same reference: "
        "unlike the distance itself it can be compared between different numbers of images.",
        values="About 0 (also below) for a perfect model; no upper bound.",
        pitfalls="The bias is a line in 1/N only where N is many times the dimension: on real features the "
        "limit is 8 % too low at 4 images a dimension and 1 % at 10. The reference's own error stays in it. "
        "The bias-corrected value of fd is closer at small N, and cheaper.",
        cost="n d^2 for the moments and a few d^3 a point, once for the value and once for each block, and "
        "two points more for each block.",
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

        The leave-one-block-out values take the block out of each subset. They are left out where fewer than
        3 images per dimension remain without a block, or where a subset loses its full rank.

        Raises:
            NothingMeasuredError: there is no reference.
            InvalidInputError: fewer than 4 images per dimension, other dimensions, or features not finite.
        """
        real = required(reference, self.name)
        target = target_of(real)
        dimension = len(target.mean)
        check_count(generated.count, minimum=FEWEST * dimension, metric=self.name)
        check_width(generated, dimension)
        features, sizes = generated.stacked(), generated.sizes
        subsets = self._subsets(features, dimension, rng=rng)
        limit, slope = subsets.limit(target)
        without: list[float] = []
        share = 1.0
        if len(sizes) > 1 and generated.count - max(sizes) >= FEWEST_LEFT * dimension:
            without, share = _left_out(subsets, target, sizes=sizes)
        return score_with_jackknife(
            Estimate(limit, without, share=share, details={"slope": slope}),
            generated=generated,
            better=self.better,
            n_reference=real.count,
            warnings=duplicate_warnings(generated),
        )

    def _subsets(self, features: FloatArray, dimension: int, *, rng: np.random.Generator) -> _Subsets:
        """Prefixes of a random order of the rows."""
        order = keyed_order(features, rng.bytes(32))
        start = max(math.ceil(self.fraction * len(order)), SMALLEST_SUBSET * dimension)
        sizes = subset_sizes(len(order), start=start, points=self.points)
        return _Subsets(features, tuple(np.split(order, sizes[:-1])))


@dataclass(frozen=True, slots=True, eq=False)
class _Subsets:
    """Growing subsets of the rows ``[n, d]``: the first part, the first two, and so on to all of them."""

    features: FloatArray
    parts: tuple[IndexArray, ...]

    def without(self, block: tuple[int, int]) -> _Subsets:
        """The subsets without the rows from ``block[0]`` to before ``block[1]``."""
        start, stop = block
        return _Subsets(
            self.features, tuple(leave_out_order(part, start=start, stop=stop) for part in self.parts)
        )

    def ends(self) -> _Subsets:
        """The smallest and the largest subset alone."""
        return _Subsets(self.features, (self.parts[0], np.concatenate(self.parts[1:])))

    @property
    def of_full_rank(self) -> bool:
        """Whether the smallest has more rows than dimensions, and the largest more than the smallest."""
        return len(self.parts[0]) > self.features.shape[1] and any(map(len, self.parts[1:]))

    def distances(self, target: GaussianFactor, *, relative_error: float) -> tuple[IndexArray, Float64Array]:
        """Sizes of the subsets and their distances."""
        moments = MomentsAccumulator()
        sizes, found = [], []
        for rows in self.parts:
            moments.update(self.features[rows], rows)
            sizes.append(moments.count)
            found.append(
                frechet_distance_to(
                    target, mean=moments.mean, cov=moments.covariance, relative_error=relative_error
                )
            )
        return np.asarray(sizes, dtype=np.int64), np.asarray(found)

    def limit(self, target: GaussianFactor) -> tuple[float, float]:
        """Limit and slope of the line through all of them."""
        return line_in_inverse(*self.distances(target, relative_error=RELATIVE_ERROR))


def _left_out(
    subsets: _Subsets, target: GaussianFactor, *, sizes: Sequence[int]
) -> tuple[list[float], float]:
    """Limits without each block, and the part of their jackknife's variance that is the limit's own.

    Drawing the subsets afresh from what is left would fill each up with rows of the next, and count that
    as a spread which the limit does not have. The limit of a model next to perfect is of second order, which
    the jackknife counts twice (see ``fd``). The share is that of the line through the first and the last
    point: on real and synthetic features it is within 0.04 of that of all 15, at an eighth of the cost.
    """
    edges = list(pairwise((0, *accumulate(sizes))))
    rests = [subsets.without(block) for block in edges]
    if not all(rest.of_full_rank for rest in rests):
        return [], 1.0
    curves = [rest.distances(target, relative_error=LEAVE_OUT_ERROR) for rest in rests]
    without = [line_in_inverse(*curve)[0] for curve in curves]
    pairs = [(i, (i + 1) % len(edges)) for i in range(len(edges))]
    both = [rests[i].without(edges[j]).ends() for i, j in pairs]
    if len(edges) < 3 or not all(rest.of_full_rank for rest in both):
        return without, 1.0
    return without, second_degree_share_of_some(
        _end_limit(subsets.ends().distances(target, relative_error=LEAVE_OUT_ERROR)),
        [_end_limit(curve) for curve in curves],
        [
            (i, j, _end_limit(rest.distances(target, relative_error=LEAVE_OUT_ERROR)))
            for (i, j), rest in zip(pairs, both, strict=True)
        ],
    )


def _end_limit(curve: tuple[IndexArray, Float64Array]) -> float:
    """Limit of the line through the first and the last point."""
    sizes, distances = curve
    return line_in_inverse(sizes[[0, -1]], distances[[0, -1]])[0]
