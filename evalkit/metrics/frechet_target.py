"""The reference's side of a Fréchet distance, factored once for all metrics and looks of a run.

Accepted trade-offs: up to 8 factors of recent references stay in memory, 34 MB each in 2048 dimensions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evalkit.core import Float64Array, ReferenceFeatures
from evalkit.errors import InvalidInputError
from evalkit.numerics import GaussianFactor, gaussian_factor
from evalkit.numerics.remembered import remembered


def target_of(reference: ReferenceFeatures) -> GaussianFactor:
    """Factor a reference: from its file where that holds the factor, else by its covariance's content.

    Raises:
        InvalidInputError: it holds no mean and covariance of one width, or they are not finite.
    """
    mean = np.asarray(reference.mean, dtype=np.float64)
    if mean.shape != reference.covariance.shape[:1] or not np.isfinite(mean).all():
        raise InvalidInputError("the reference's mean does not fit its covariance, or is not finite")
    # Only references that were read from a file have the attribute.
    stored = getattr(reference, "factor", None)
    if stored is not None:
        return GaussianFactor(mean, *stored)
    return replace(_factored(reference.covariance), mean=mean)


@remembered
def _factored(covariance: Float64Array) -> GaussianFactor:
    return gaussian_factor(np.zeros(len(covariance)), covariance)
