"""The Fréchet distance between two Gaussians: the only implementation in the project.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2
                                                (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

With factors ``S = F F^T`` the last trace is the nuclear norm of ``F1^T F2``. Four forms, cheapest first,
each used only where its error is below 1e-9 of the result: between moments of full rank, determinants of the
band form of ``F1^T S2 F1`` (:mod:`evalkit.numerics.banded`); eigenvalues of the Gram matrix of ``F1^T F2``;
its singular values; and where the distance is tiny beside the traces the orthogonal Procrustes form
``min_U |F1 - F2 U|_F^2`` (Bhatia, Jain & Lim 2019, theorem 1), which cannot cancel and cannot be negative.

>>> import numpy as np
>>> frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))
4.0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, IndexArray, checked_features
from evalkit.numerics.banded import root_trace
from evalkit.numerics.linalg import (
    checked_symmetric,
    gram_nuclear_norm,
    lower_gram,
    polar_rows,
    psd_triangle,
    root_sum,
    root_sum_error,
    symmetric_eigenvalues,
    times_triangle,
)
from evalkit.numerics.triangles import cholesky, congruence

RELATIVE_ERROR = 1e-9
# Leave-one-out values only make error bars, whose own relative error is about 1 / sqrt(2 blocks).
LEAVE_OUT_ERROR = 1e-7
# The proven error bound of the Gram form supposes that the rounding of the largest eigenvalue hits them all.
# With factors from pivoted Cholesky the Gram matrix is graded, largest first, and the symmetric eigensolver
# keeps small eigenvalues unless the spectrum has a gap of many decades, which the determinant shows
# (root_sum_error). Error bars go without that check: their claim is this, met by smooth spectra with
# condition numbers up to 1e17 (tests/numerics/test_frechet.py). Small problems need no shortcut.
GRADED_ERROR = 1e-11
SMALL = 256
# The shortcut would fail below this ratio of the smallest to the largest pivots of both sides.
LEAST_PIVOTS = 1e-14
# Rounding of sums of squares and of singular values, as a fraction of the traces.
ROUNDING = 32 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class GaussianFactor:
    """A Gaussian as its mean and a factor of its covariance; build it once for many distances.

    Attributes:
        mean: float64 ``[d]``.
        columns: float64 ``[d, r]``, best in Fortran order: a factor of the covariance whose rows and columns
            were put into ``order``.
        order: int64 ``[d]`` where ``columns`` come from pivoted Cholesky, so that they are zero above the
            diagonal and largest first; None where they are any factor in the order of the features.
    """

    mean: Float64Array
    columns: Float64Array
    order: IndexArray | None = None

    @property
    def rank(self) -> int:
        """Number of columns."""
        return int(self.columns.shape[1])

    @property
    def graded(self) -> bool:
        """Whether the columns come from pivoted Cholesky, largest first."""
        return self.order is not None

    @property
    def factor(self) -> Float64Array:
        """Float64 ``[d, r]`` with ``covariance = factor @ factor.T``; a copy where there is an order."""
        if self.order is None:
            return self.columns
        found = np.empty(self.columns.shape)
        found[self.order] = self.columns
        return found

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        # No product of numpy's own: its threads would wait for more, busily, while scipy's multiply.
        return float(np.einsum("ij,ij->", self.columns, self.columns))

    def project(self, rows: Float64Array) -> Float64Array:
        """``rows @ factor`` for float64 ``rows`` ``[m, d]``, by half a product where there is an order."""
        if self.order is None:
            return rows @ self.columns
        return times_triangle(np.take(rows, self.order, axis=1), self.columns, overwrite=True)


def gaussian_factor(mean: NDArray[np.generic], cov: NDArray[np.generic]) -> GaussianFactor:
    """Factor a Gaussian given by its moments, by pivoted Cholesky.

    Args:
        mean: real ``[d]``.
        cov: real ``[d, d]``, symmetric positive semidefinite.

    Raises:
        InvalidInputError: shapes disagree, a value is not finite, or ``cov`` is not a covariance.
    """
    return GaussianFactor(_checked_mean(mean, cov), *psd_triangle(cov, "covariance"))


def _checked_mean(mean: NDArray[np.generic], cov: NDArray[np.generic]) -> Float64Array:
    centre = np.asarray(mean, dtype=np.float64)
    if centre.ndim != 1 or np.shape(cov) != (len(centre), len(centre)):
        raise InvalidInputError(
            f"mean [d] and covariance [d, d] are needed, not {list(centre.shape)} and {list(np.shape(cov))}"
        )
    if not np.isfinite(centre).all():
        raise InvalidInputError("mean holds NaN or infinity")
    return centre


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
        rows = centred[1:]
        rows -= centred[0] / (np.sqrt(count) + 1)
    else:
        rows = np.empty((0, width))
        step = 4 * width  # memory: one chunk at a time, not a float64 copy of everything
        for start in range(0, count, step):
            rows = np.linalg.qr(np.concatenate([rows, checked[start : start + step] - mean]), mode="r")
    rows /= np.sqrt(count - 1)
    return GaussianFactor(mean, rows.T)


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
    wide, narrow = (a, b) if a.rank >= b.rank else (b, a)
    cross = narrow.project(wide.factor.T).T if narrow.graded else wide.project(narrow.factor.T)
    traces = a.trace + b.trace
    nuclear, error = _nuclear_norm(cross, a, b)
    rough = offset + traces - 2 * nuclear
    if 2 * error + ROUNDING * traces <= relative_error * rough:
        return rough
    if cross.size and ROUNDING * traces <= relative_error * rough:
        exact = offset + traces - 2 * float(np.linalg.svd(cross, compute_uv=False).sum())
        if ROUNDING * traces <= relative_error * exact:
            return exact
    gap = wide.factor - narrow.factor @ polar_rows(cross) if cross.size else wide.factor
    return offset + float(np.vdot(gap, gap))


def _nuclear_norm(cross: Float64Array, a: GaussianFactor, b: GaussianFactor) -> tuple[float, float]:
    """Nuclear norm of the product of the factors by its Gram matrix, and its error."""
    if not (a.graded and b.graded and SMALL < len(a.mean) == a.rank == b.rank):
        return gram_nuclear_norm(cross)
    spectrum = symmetric_eigenvalues(lower_gram(cross), overwrite=True)
    nuclear, error = root_sum(spectrum)
    # Of triangular factors the determinant is known: the product of their diagonals.
    known = sum(float(np.log(side.columns.diagonal()).sum()) for side in (a, b))
    return nuclear, min(error, root_sum_error(spectrum, 2 * known))


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
    centres = _checked_mean(mean_a, cov_a), _checked_mean(mean_b, cov_b)
    if centres[0].shape == centres[1].shape and len(centres[0]) > SMALL:
        covs = checked_symmetric(cov_a, "covariance"), checked_symmetric(cov_b, "covariance")
        triangle = cholesky(covs[0])
        if triangle is not None:
            found = _shortcut(
                centres[0] - centres[1],
                triangle,
                covs[1],
                trace=float(np.trace(covs[0])),
                relative_error=RELATIVE_ERROR,
            )
            if found is not None:
                return found
    return frechet_distance_between(gaussian_factor(mean_a, cov_a), gaussian_factor(mean_b, cov_b))


def _shortcut(
    difference: Float64Array,
    triangle: Float64Array,
    cov: Float64Array,
    *,
    trace: float,
    relative_error: float,
) -> float | None:
    """The distance between covariances ``T T^T`` and ``cov``; None where the error is too large or unknown.

    Args:
        difference: of the means, float64 ``[d]``.
        triangle: T, float64 ``[d, d]`` in Fortran order; what lies above the diagonal is not read.
        cov: float64 ``[d, d]``, symmetric, its rows and columns in the order of T's.
        trace: of ``T T^T``.
        relative_error: what must be reached.
    """
    other = cholesky(cov)
    if other is None:
        return None
    pivots = np.log([triangle.diagonal(), other.diagonal()])
    if 2 * float((pivots.min(axis=1) - pivots.max(axis=1)).sum()) < np.log(LEAST_PIVOTS):
        return None
    found = root_trace(congruence(triangle, cov), log_determinant=2 * float(pivots.sum()))
    if found is None:
        return None
    nuclear, error = found
    traces = trace + float(np.trace(cov))
    distance = float(difference @ difference) + traces - 2 * nuclear
    return distance if 2 * error + ROUNDING * traces <= relative_error * distance else None


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
    centre = _checked_mean(mean, cov)
    if factor.order is not None and SMALL < len(centre) == len(factor.mean) == factor.rank:
        symmetric = checked_symmetric(cov, "covariance")
        ordered = symmetric[np.ix_(factor.order, factor.order)]
        found = _shortcut(
            centre - factor.mean, factor.columns, ordered, trace=factor.trace, relative_error=relative_error
        )
        if found is not None:
            return found
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
