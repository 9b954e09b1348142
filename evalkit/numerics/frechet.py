"""The Fréchet distance between two Gaussians: the only implementation in the project.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2
                                                (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

With factors ``S = F F^T`` the last trace is the nuclear norm of ``F1^T F2``. Three forms, cheapest first,
each used only where its error is below 1e-9 of the result: eigenvalues of the Gram matrix of ``F1^T F2``,
its singular values, and where the distance is tiny beside the traces the orthogonal Procrustes form
``min_U |F1 - F2 U|_F^2`` (Bhatia, Jain & Lim 2019, theorem 1), which cannot cancel and cannot be negative.

>>> import numpy as np
>>> frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))
4.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, checked_features
from evalkit.numerics.linalg import gram_nuclear_norm, polar_rows, psd_factor, root_sum, symmetric_eigenvalues

RELATIVE_ERROR = 1e-9
# Leave-one-out values only make error bars, whose own relative error is about 1 / sqrt(2 blocks).
LEAVE_OUT_ERROR = 1e-7
# The proven error bound of the Gram form supposes that the rounding of the largest eigenvalue hits them all.
# With factors from pivoted Cholesky the Gram matrix is graded, largest first, and the symmetric eigensolver
# keeps small eigenvalues: against singular values the error stayed below 2e-12 of the norm for condition
# numbers up to 1e17 (tests/numerics/test_frechet.py). Small problems do not need the shortcut.
GRADED_ERROR = 1e-11
SMALL = 256
# Rounding of sums of squares and of singular values, as a fraction of the traces.
ROUNDING = 32 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class GaussianFactor:
    """A Gaussian as its mean and a factor of its covariance; build it once for many distances.

    Attributes:
        mean: float64 ``[d]``.
        factor: float64 ``[d, r]`` with ``covariance = factor @ factor.T``.
        graded: the columns come from pivoted Cholesky, largest first.
    """

    mean: Float64Array
    factor: Float64Array
    graded: bool = False

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.vdot(self.factor, self.factor))


def gaussian_factor(mean: NDArray[np.generic], cov: NDArray[np.generic]) -> GaussianFactor:
    """Factor a Gaussian given by its moments, by pivoted Cholesky.

    Args:
        mean: real ``[d]``.
        cov: real ``[d, d]``, symmetric positive semidefinite.

    Raises:
        InvalidInputError: shapes disagree, a value is not finite, or ``cov`` is not a covariance.
    """
    centre = np.asarray(mean, dtype=np.float64)
    if centre.ndim != 1 or np.shape(cov) != (len(centre), len(centre)):
        raise InvalidInputError(
            f"mean [d] and covariance [d, d] are needed, not {list(centre.shape)} and {list(np.shape(cov))}"
        )
    if not np.isfinite(centre).all():
        raise InvalidInputError("mean holds NaN or infinity")
    return GaussianFactor(centre, psd_factor(cov, "covariance"), graded=True)


def gaussian_factor_from_features(features: NDArray[np.generic]) -> GaussianFactor:
    """Factor the sample Gaussian of features (divisor n - 1) without forming the covariance.

    For ``n <= d`` the factor is the centred features themselves, rotated by the Householder reflector that
    maps the ones vector to the first axis, so that it has n - 1 columns and no null direction; for
    ``n > d`` it is the R of a QR decomposition.

    Args:
        features: float ``[n, d]``, ``n >= 2``.

    Raises:
        InvalidInputError: wrong shape, fewer than 2 rows, or a value that is not finite.
    """
    checked = checked_features(features, "features", minimum=2)
    mean = checked.mean(axis=0, dtype=np.float64)
    count, width = checked.shape
    if count <= width:
        centred = checked - mean
        rows = centred[1:] - centred[0] / (np.sqrt(count) + 1)
    else:
        rows = np.empty((0, width))
        step = 4 * width  # memory: one chunk at a time, not a float64 copy of everything
        for start in range(0, count, step):
            rows = np.linalg.qr(np.concatenate([rows, checked[start : start + step] - mean]), mode="r")
    return GaussianFactor(mean, np.ascontiguousarray(rows.T) / np.sqrt(count - 1))


def frechet_distance_between(
    a: GaussianFactor, b: GaussianFactor, *, relative_error: float = RELATIVE_ERROR
) -> float:
    """Squared Fréchet distance of two factored Gaussians (formula in the module).

    Args:
        a: one Gaussian.
        b: the other, of the same dimension.
        relative_error: what the cheap forms must reach to be used.

    Returns:
        The distance in squared feature units; never negative.

    Raises:
        InvalidInputError: the dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise InvalidInputError(f"the Gaussians have {len(a.mean)} and {len(b.mean)} dimensions")
    difference = a.mean - b.mean
    offset = float(difference @ difference)
    wide, narrow = (a, b) if a.factor.shape[1] >= b.factor.shape[1] else (b, a)
    cross = narrow.factor.T @ wide.factor
    traces = a.trace + b.trace
    nuclear, error = gram_nuclear_norm(cross)
    if a.graded and b.graded and min(cross.shape) > SMALL:
        error = min(error, GRADED_ERROR * nuclear)
    rough = offset + traces - 2 * nuclear
    if 2 * error + ROUNDING * traces <= relative_error * rough:
        return rough
    if cross.size and ROUNDING * traces <= relative_error * rough:
        exact = offset + traces - 2 * float(np.linalg.svd(cross, compute_uv=False).sum())
        if ROUNDING * traces <= relative_error * exact:
            return exact
    gap = wide.factor - narrow.factor @ polar_rows(cross) if cross.size else wide.factor
    return offset + float(np.vdot(gap, gap))


def frechet_distance(
    mean_a: NDArray[np.generic],
    cov_a: NDArray[np.generic],
    mean_b: NDArray[np.generic],
    cov_b: NDArray[np.generic],
) -> float:
    """Squared Fréchet distance of two Gaussians given by their moments (formula in the module).

    Args:
        mean_a: real ``[d]``.
        cov_a: real ``[d, d]``, symmetric positive semidefinite.
        mean_b: real ``[d]``.
        cov_b: real ``[d, d]``, symmetric positive semidefinite.

    Returns:
        The distance in squared feature units; never negative.

    Raises:
        InvalidInputError: shapes disagree, a value is not finite, or a matrix is not a covariance.
    """
    return frechet_distance_between(gaussian_factor(mean_a, cov_a), gaussian_factor(mean_b, cov_b))


def frechet_distance_to(
    factor: GaussianFactor,
    *,
    mean: NDArray[np.generic],
    cov: NDArray[np.generic],
    relative_error: float = RELATIVE_ERROR,
) -> float:
    """Squared Fréchet distance from moments to a Gaussian that was factored before.

    Args:
        factor: the cached side, from :func:`gaussian_factor`.
        mean: real ``[d]``.
        cov: real ``[d, d]``, symmetric positive semidefinite.
        relative_error: what the cheap forms must reach to be used.

    Raises:
        InvalidInputError: as :func:`frechet_distance`.
    """
    return frechet_distance_between(gaussian_factor(mean, cov), factor, relative_error=relative_error)


def frechet_distance_from_features(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Squared Fréchet distance of the sample Gaussians (divisor n - 1) of two sets of features.

    More accurate than by way of covariances, whose condition number is the square of the features'.

    Args:
        a: float ``[n_a, d]``, ``n_a >= 2``.
        b: float ``[n_b, d]``, ``n_b >= 2``.

    Raises:
        InvalidInputError: wrong shapes, fewer than 2 rows, or a value that is not finite.
    """
    return frechet_distance_between(gaussian_factor_from_features(a), gaussian_factor_from_features(b))


def frechet_without_blocks(
    features: NDArray[np.generic], edges: Sequence[int], reference: GaussianFactor
) -> Float64Array:
    """Leave-one-block-out Fréchet distances of features with ``n <= d`` (right for any n, fast for those).

    The Gram matrix ``G = X S_reference X^T`` is formed once; without a block, the nuclear norm needs only the
    re-centred submatrix of ``G`` (the reflector of :func:`gaussian_factor_from_features` on both sides).

    Args:
        features: float ``[n, d]``.
        edges: ``[blocks + 1]`` increasing row numbers from 0 to n.
        reference: the other side.

    Returns:
        float64 ``[blocks]``.

    Raises:
        InvalidInputError: wrong shapes, non-finite values, or fewer than 2 rows left without a block.
    """
    checked = checked_features(features, "features", minimum=2)
    if checked.shape[1] != len(reference.mean):
        raise InvalidInputError(f"{checked.shape[1]} features against {len(reference.mean)} of the reference")
    centred = checked - checked.mean(axis=0, dtype=np.float64)
    projected = centred @ reference.factor
    gram = projected @ projected.T
    distances = np.empty(len(edges) - 1)
    for block, (start, stop) in enumerate(pairwise(edges)):
        keep = np.r_[0:start, stop : len(checked)]
        kept = checked_features(checked[keep], "features without a block", minimum=2)
        nuclear, error = root_sum(symmetric_eigenvalues(_reflected(gram[np.ix_(keep, keep)])))
        mean = kept.mean(axis=0, dtype=np.float64)
        spread = float(np.square(kept - mean).sum()) / (len(keep) - 1)
        traces = spread + reference.trace
        scale = 2 / np.sqrt(len(keep) - 1)
        distance = float(np.square(mean - reference.mean).sum()) + traces - scale * nuclear
        if scale * error + ROUNDING * traces > LEAVE_OUT_ERROR * distance:
            distance = frechet_distance_between(gaussian_factor_from_features(kept), reference)
        distances[block] = distance
    return distances


def _reflected(gram: Float64Array) -> Float64Array:
    """Gram matrix of the n - 1 centred, rotated rows, from that of the n rows themselves."""
    count = len(gram)
    weights = np.full(count, 1 / np.sqrt(count))
    weights[0] += 1
    weights /= np.sqrt(count) + 1
    shift = gram @ weights
    moved = gram - shift[:, None] - shift[None, :] + float(weights @ shift)
    return np.asarray(moved[1:, 1:], dtype=np.float64)
