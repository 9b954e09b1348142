"""From values of single images to the score that is their mean."""

from __future__ import annotations

from collections.abc import Mapping

from evalkit.core import FeatureSet
from evalkit.numerics.sample_mean import SampleMean
from evalkit.spec import Better, Interval, Score


def score_of_mean(
    mean: SampleMean,
    *,
    generated: FeatureSet,
    better: Better,
    details: Mapping[str, float],
    warnings: tuple[str, ...] = (),
) -> Score:
    """Return the mean with its standard error, from 2 values on; one block leaves ``blocks`` empty.

    Args:
        mean: of values that are independent given the model.
        generated: gives the counts.
        better: which direction is an improvement.
        details: further numbers; the standard deviation over images is added.
        warnings: what a reader must see beside the number.
    """
    return Score(
        value=mean.value,
        better=better,
        n=generated.count,
        stderr=mean.stderr,
        ci=None if mean.stderr is None else Interval(mean.low, mean.high, mean.level, method="mean-t"),
        blocks=mean.without,
        block_sizes=generated.sizes if mean.without else (),
        warnings=warnings,
        details={**details, "std": mean.std or 0.0},
    )
