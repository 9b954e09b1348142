"""Fréchet distance between Gaussians fitted to features: FID where the features are Inception's.

``bias_corrected`` is the spectral correction of :mod:`evalkit.numerics.extrapolation`, from 1.6 images per
dimension. The published first-order jackknife (its condition: 5 images per dimension) needs nothing but the
blocks of a score: ``jackknife(score.value, score.blocks, sizes=score.block_sizes).bias_corrected``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from evalkit.accumulators.moments import MomentsAccumulator, moments_of
from evalkit.core import About, FeatureSet, Float64Array, FloatArray, Metric, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
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
from evalkit.numerics import (
    LEAVE_OUT_ERROR,
    GaussianFactor,
    frechet_distance_between,
    frechet_distance_to,
    frechet_without_blocks,
    frechet_without_slices,
    gaussian_factor_from_features,
    jackknife,
)
from evalkit.numerics.blocks import sizes_of
from evalkit.numerics.extrapolation import (
    Prediction,
    ShiftedDistances,
    check_proven,
    distance_shifts,
    extrapolated,
    spectrum_shifts,
)
from evalkit.numerics.leave_out import Whole, distances_without, rests_without
from evalkit.numerics.resampling import second_degree_share_of_some
from evalkit.spec import Better, Score, Spec

# The first-order jackknife supposes a bias of order 1/n, which on real 1280-d features holds within 2 % from
# 3.2 images a dimension and is 13 % low at 1.6. ``fd`` itself corrects by the spectrum and does not need it.
CORRECTABLE = 3
SMALL_SAMPLE = 5
# Share of the distance that is bias, from which the second order of its error is looked at.
BIAS_MATTERS = 0.2


@METRICS.register("fd")
@dataclass(frozen=True, slots=True)
class FrechetDistance(Metric):
    """Squared Fréchet distance of the two Gaussians (Heusel et al. 2017, eq. 6), divisor n - 1.

    Attributes:
        report_at: number of images at which to predict the distance as well; 0 for none.
    """

    name: ClassVar[str] = "fd"
    title: ClassVar[str] = "Fréchet distance"
    better: ClassVar[Better] = "lower"
    needs_reference: ClassVar[bool] = True
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="How far the mean and covariance of the generated images' features lie from the real ones': "
        "low when images are both realistic and as varied as the reference.",
        values="0 to infinity; 0 at identity, but above 0 for a perfect model at any finite N.",
        pitfalls="Biased upwards by about c/N, with c depending on the model: compare at equal N, or by the "
        "bias-corrected value (from 1.6 images per dimension). Blind to anything beyond two moments, and to "
        "what the features do not see. With fewer images than dimensions the value says little.",
        cost="n d^2 for the moments, and a few d^3 for the value and for each block of its error bar, twice "
        "for each block where a fifth of the distance or more is bias.",
        source="Heusel et al. 2017, eq. 6; Dowson & Landau 1982.",
    )
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

    report_at: int = 0

    def __post_init__(self) -> None:
        if self.report_at < 0:
            raise UsageError(f"report_at of fd is a number of images, not {self.report_at}")

    @property
    def spec(self) -> Spec:
        """Name alone: ``report_at`` adds details and moves no value."""
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
        """Return the distance of ``generated`` to the moments of ``reference``.

        Where there are images enough it carries the bias-corrected value and, with ``report_at``, the details
        ``predicted_<N>`` and ``predicted_inf``, each with ``_low``, ``_high`` and ``_stderr``. Where there
        are not, they are left out, and ``report_at`` gets a warning with the number that is needed.

        Raises:
            NothingMeasuredError: there is no reference.
            InvalidInputError: fewer than 2 images, other dimensions, or features that are not finite.
        """
        real = required(reference, self.name)
        check_count(generated.count, minimum=2, metric=self.name)
        target = target_of(real)
        dimension = len(target.mean)
        check_width(generated, dimension)
        at: tuple[float, ...] = (math.inf, float(self.report_at)) if self.report_at else (math.inf,)
        refusal = _refusal(generated, target, at)
        if refusal and len(at) > 1 and not _refusal(generated, target, at[:1]):
            at, refused = at[:1], refusal  # the limit is proven, the number of images asked for is not
            refusal = ""
        else:
            refused = refusal
        measured = distances(generated, target, at=() if refusal else at)
        predictions = () if refusal else extrapolated(measured, sizes=generated.sizes, at=at)
        score = score_with_jackknife(
            Estimate(
                measured.value,
                measured.without.tolist(),
                share=_share(generated, target, measured, predictions),
                details=_details(predictions) if self.report_at else {},
            ),
            generated=generated,
            better=self.better,
            n_reference=real.count,
            warnings=(
                *_warnings(generated.count, dimension),
                *([refused] if refused and self.report_at else []),
                *duplicate_warnings(generated),
            ),
        )
        return replace(score, bias_corrected=predictions[0].value) if predictions else score


def _share(
    generated: FeatureSet,
    target: GaussianFactor,
    measured: ShiftedDistances,
    predictions: Sequence[Prediction],
) -> float:
    """Part of the jackknife variance that is the distance's own; 1 where the second order cannot matter.

    Of a model next to perfect the distance is mostly the squared error of the moments, which the jackknife
    counts twice (see :func:`~evalkit.numerics.resampling.second_degree_share`). Neighbouring blocks stand for
    all pairs. Where little of the distance is bias, the model is far from perfect and this work is saved.
    """
    value, without = measured.value, measured.without
    limit = predictions[0].value if predictions else None
    if not len(without) or not mostly_bias(value, without, sizes=generated.sizes, limit=limit):
        return 1.0
    rest = without_neighbours(generated.blocks, target)
    if len(rest) < 2:
        return 1.0
    return second_degree_share_of_some(value, without, [(i, i + 1, one) for i, one in enumerate(rest)])


def mostly_bias(
    value: float,
    without: Sequence[float] | Float64Array,
    *,
    sizes: Sequence[int],
    limit: float | None = None,
) -> bool:
    """Whether so much of a distance is bias that the second order of its error bar matters.

    ``limit`` is the distance of infinitely many images, by the jackknife where it is not known.
    """
    if limit is None:
        limit = jackknife(value, without, sizes=sizes).bias_corrected
    return value - limit >= BIAS_MATTERS * value


def without_neighbours(blocks: Sequence[FloatArray], target: GaussianFactor) -> list[float]:
    """Distances without blocks i and i + 1, for every i but the last; nothing where too few are left.

    Args:
        blocks: float ``[n_b, d]`` arrays, of which some may be empty.
        target: the other side.
    """
    sizes = sizes_of(blocks)
    count, groups = sum(sizes), len(blocks)
    if groups < 3 or count - max(a + b for a, b in pairwise(sizes)) < 2:
        return []
    if count <= len(target.mean):
        features, edges = np.concatenate(blocks), (0, *accumulate(sizes))
        parts = [slice(*ends) for ends in zip(edges, edges[2:], strict=False)]
        found = frechet_without_slices(features, parts, target)
    else:
        pairs = [(first, first + 1) for first in range(groups - 1)]
        whole = _whole(moments_of(blocks))
        found = distances_without(blocks, pairs, target, whole=whole, measure=_plainly(blocks, target))
    return [float(distance) for distance in found]


def _whole(moments: MomentsAccumulator) -> Whole:
    return Whole(moments.count, moments.mean, moments.covariance)


def _plainly(blocks: Sequence[FloatArray], target: GaussianFactor) -> Callable[[Sequence[int]], float]:
    """What measures the distance without some of the blocks by itself."""

    def measure(group: Sequence[int]) -> float:
        rest = moments_of(blocks, without=group)
        cov = rest.covariance
        return frechet_distance_to(target, mean=rest.mean, cov=cov, relative_error=LEAVE_OUT_ERROR)

    return measure


def _refusal(generated: FeatureSet, target: GaussianFactor, at: Sequence[float]) -> str:
    """Why nothing can be predicted; empty where it can."""
    try:
        check_proven(generated.sizes, rank=target.rank, at=at)
    except InvalidInputError as error:
        return str(error)
    return ""


def distances(generated: FeatureSet, target: GaussianFactor, *, at: Sequence[float] = ()) -> ShiftedDistances:
    """Distance of all images, and without each block (none where fewer than 2 images would be left)."""
    sizes = generated.sizes
    resampled = len(sizes) > 1 and generated.count - max(sizes) >= 2
    if generated.count <= len(target.mean):
        features = generated.stacked()
        value = frechet_distance_between(gaussian_factor_from_features(features), target)
        edges = (0, *accumulate(sizes))
        without = frechet_without_blocks(features, edges, target) if resampled else np.zeros(0)
        return ShiftedDistances(value, np.zeros(len(at)), without, np.zeros((0, len(at))))
    moments = moments_of(generated.blocks)
    value = frechet_distance_to(target, mean=moments.mean, cov=moments.covariance)
    shift = _shifts(target, moments, at)
    if not resampled:
        return ShiftedDistances(value, shift, np.zeros(0), np.zeros((0, len(at))))
    singles = [(block,) for block in range(len(sizes))]
    whole, measure = _whole(moments), _plainly(generated.blocks, target)
    if not at:
        without = distances_without(generated.blocks, singles, target, whole=whole, measure=measure)
        return ShiftedDistances(value, shift, without, np.zeros((len(sizes), 0)))
    rests = list(rests_without(generated.blocks, singles, target, whole=whole, measure=measure))
    shifts = [spectrum_shifts(rest.eigenvalues, trace=rest.trace, count=rest.count, at=at) for rest in rests]
    return ShiftedDistances(value, shift, np.array([rest.distance for rest in rests]), np.stack(shifts))


def _shifts(target: GaussianFactor, moments: MomentsAccumulator, at: Sequence[float]) -> Float64Array:
    """How far the distance moves to each number of images; nothing is computed where none is asked for."""
    if not at:
        return np.zeros(0)
    return distance_shifts(target, cov=moments.covariance, count=moments.count, at=at)


def _details(predictions: Sequence[Prediction]) -> dict[str, float]:
    found = {}
    for prediction in predictions:
        label = "inf" if math.isinf(prediction.at) else f"{prediction.at:.0f}"
        found[f"predicted_{label}"] = prediction.value
        found[f"predicted_{label}_stderr"] = prediction.stderr
        found[f"predicted_{label}_low"] = prediction.low
        found[f"predicted_{label}_high"] = prediction.high
    return found


def _warnings(count: int, dimension: int) -> tuple[str, ...]:
    if count <= dimension:
        singular = "the covariance is singular and the distance far too high"
        return (f"small sample, rank-deficient: {count} images in {dimension} dimensions; {singular}",)
    if count < SMALL_SAMPLE * dimension:
        biased = "the distance is biased upwards and compares only at this number of images"
        return (
            f"small sample: {count} images are fewer than {SMALL_SAMPLE} x {dimension} dimensions; {biased}",
        )
    return ()
