"""Nuclear norms without some rows, from one eigendecomposition of all and determinants of small matrices.

With ``A = V diag(w) V^T`` and rows R that are taken away (``B = R V``), for every ``t > 0`` ::

    log det (A - R^T R + t) = log det (A + t) + log det (1 - B (w + t)^-1 B^T)

(Sylvester's identity), a matrix of as many rows as R. For the Gram matrix ``G = V diag(w) V^T`` of n centred
rows, without m of them (``Q`` their rows of V), Jacobi's identity for minors, and Sylvester's again for the
re-centring, which is of rank one, give what needs no subtraction::

    log det (1 + A_rest / t) = log det (1 + A / t) + log det (Q t (w + t)^-1 Q^T) + log (n / (n - m))

A rule of some 25 shifts t turns them into the change of the nuclear norm
(:mod:`evalkit.numerics.root_traces`).

Accepted trade-offs: small eigenvalues carry the rounding of the largest, as in any symmetric eigensolver. The
errors that are returned count it twice over, and the caller finds eigenvalues anew where they are too large.
Those of a Gram matrix may also come from singular values of the rows (:meth:`Spectrum.of_rows`), which takes
twice as long: their squares are right over twice as many digits, and the rule takes some 50 shifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.linalg import GRAM_ERROR, root_sum, symmetric_eigenvectors
from evalkit.numerics.root_traces import ROUNDING, RootRule, root_rule

# The smallest eigenvalue may fall to this part of what it was; proven for each group by one more determinant.
SHRINK = 8.0
# Of the error that is allowed, what the rule for roots may take; the rest is for rounding.
RULE_SHARE = 0.5
FEWEST_DIMENSIONS = 256
FEWEST_GROUPS = 4
# With more rows taken away at once than a quarter of 2048 dimensions, and than a sixth of few, eigenvalues
# themselves are cheaper: measured at 600 and 2048 dimensions, two cores.
LARGEST_GROUP = 0.15
MORE_OF_MANY = 0.1


def worth_it(largest: int, *, rank: int, groups: int) -> bool:
    """Whether ``groups`` groups of up to ``largest`` rows are faster by determinants than by eigenvalues."""
    part = LARGEST_GROUP + MORE_OF_MANY * min(1.0, rank / 2048)
    return largest <= part * rank and rank >= FEWEST_DIMENSIONS and groups >= FEWEST_GROUPS


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues and eigenvectors of all rows.

    Attributes:
        values: float64 ``[r]`` ascending, none below 0.
        vectors: float64 ``[r, r]``, a column each.
        nuclear: sum of the roots of the values.
        error: of that sum.
        noise: below this an eigenvalue is rounding.
    """

    values: Float64Array
    vectors: Float64Array
    nuclear: float
    error: float
    noise: float

    @classmethod
    def of(cls, matrix: Float64Array, *, relative_error: float = 1.0) -> Spectrum | None:
        """Spectrum of a positive semidefinite matrix ``[r, r]``; None of the zero matrix.

        Args:
            matrix: float64, of which the lower triangle is read.
            relative_error: of the sum of roots, where the caller knows better than the proven bound.
        """
        values, vectors = symmetric_eigenvectors(matrix)
        nuclear, error = root_sum(values)
        if not nuclear > 0:
            return None
        error = min(error, relative_error * nuclear)
        return cls(values.clip(0.0), vectors, nuclear, error, GRAM_ERROR * float(values[-1]))

    @classmethod
    def of_rows(cls, rows: Float64Array) -> Spectrum | None:
        """Spectrum of ``rows rows^T``; None where that is zero or its numbers leave the range of float64.

        A singular value carries the rounding of the largest singular value, its square that of the square.

        Args:
            rows: float64 ``[r, d]``.
        """
        count, width = rows.shape
        # The triangle has the same left vectors, and all of them where there are fewer columns than rows.
        square = np.zeros((count, count))
        triangle = np.asarray(np.linalg.qr(rows.T, mode="r"), dtype=np.float64)
        square[:, : min(count, width)] = triangle.T
        left, found, _ = np.linalg.svd(square)
        largest = float(found[0])  # whose square is infinite in silence, unlike numpy's
        noise = GRAM_ERROR * largest
        if not (noise * noise > 0 and largest * largest < math.inf):
            return None
        values = np.square(found[::-1])
        return cls(values, left[:, ::-1], float(found.sum()), count * noise, noise * noise)

    @property
    def floor(self) -> float:
        """Error of a difference of two sums by the best rule."""
        return 2 * len(self.values) * ROUNDING * math.sqrt(self.values[-1])

    def serves(self, wanted: float) -> bool:
        """Whether the rounding of the eigenvalues is below half of ``wanted`` without some rows."""
        return 2 * (1 + math.sqrt(SHRINK)) * self.error <= wanted and bool(
            self.values[0] > SHRINK * self.noise
        )

    def rule(self, wanted: float) -> RootRule:
        """Return a rule for the roots of what is left, with the error ``wanted`` of their sum."""
        low = max(float(self.values[0]) / SHRINK, self.noise)
        return root_rule(low, float(self.values[-1]), error=wanted / (2 * self.nuclear))

    def rounding(self, rule: RootRule) -> float:
        """Error of a difference of two sums by ``rule``."""
        return 2 * rule.error * self.nuclear + self.floor


def without_rows(spectrum: Spectrum, rows: Float64Array, rule: RootRule) -> tuple[float, float]:
    """Nuclear norm's sum of roots of ``A - R^T R``, and its error.

    Args:
        spectrum: of A.
        rows: ``R V``, float64 ``[m, r]``.
        rule: of the spectrum.

    Returns:
        ``(sum, error)``; the error is infinite where the smallest eigenvalue may leave the rule's range.
    """
    room = _Room.of(rows)
    # Where this is not positive definite, A - R^T R is not proven to be at least A / SHRINK.
    if _log_determinant(1 - 1 / SHRINK, room.gram(1 / np.sqrt(spectrum.values))) is None:
        return 0.0, math.inf
    found = [_log_determinant(1.0, room.gram(1 / np.sqrt(spectrum.values + shift))) for shift in rule.shifts]
    change = rule.root_trace(np.array(found, dtype=np.float64), count=0)
    error = spectrum.rounding(rule) + (1 + math.sqrt(SHRINK)) * spectrum.error
    return spectrum.nuclear + change, error


def _log_determinant(diagonal: float, gram: Float64Array) -> float | None:
    """Of ``diagonal - gram``, which is overwritten; None where that is not positive definite."""
    np.negative(gram, out=gram)
    gram.ravel()[:: len(gram) + 1] += diagonal
    try:
        lower = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return None
    return 2 * float(np.log(lower.diagonal()).sum())


def without_members(
    spectrum: Spectrum, rows: Float64Array, rule: RootRule, *, count: int
) -> tuple[float, float]:
    """Sum of roots of the re-centred Gram matrix without some of its ``count`` rows, and its error.

    Args:
        spectrum: of the Gram matrix of all centred rows, without the direction of ones.
        rows: of the eigenvectors ``[count, r]`` those that are taken away, float64 ``[m, r]``.
        rule: of the spectrum.
        count: number of rows.

    Returns:
        ``(sum, error)``; the error is infinite where rounding hides a determinant.
    """
    gone, room = len(rows), _Room.of(rows)
    found, errors = np.zeros(len(rule.shifts)), np.zeros(len(rule.shifts))
    for number, shift in enumerate(rule.shifts if gone else ()):
        weights = np.sqrt(shift / (spectrum.values + shift))
        found[number], errors[number] = _minor(room.gram(weights), largest=float(weights.max()))
        if not errors[number] < math.inf:
            return 0.0, math.inf
    logarithms = found + math.log(count / (count - gone)) - gone * np.log(rule.shifts)
    change = rule.root_trace(logarithms, count=-gone)
    error = spectrum.rounding(rule) + 2 * spectrum.error + float(np.abs(rule.weights) @ errors)
    return spectrum.nuclear + change, error


def _minor(gram: Float64Array, *, largest: float) -> tuple[float, float]:
    """Return the logarithm of the determinant of ``W W^T``, and its error, infinite where it is not proven.

    Rows of W are parts of orthonormal vectors, with their rounding, times weights up to ``largest``. So an
    entry errs by eps of the lengths of its two rows, and of one length times ``largest``. With all lengths
    put to 1 and e the trace of the inverse times that, the logarithm errs by no more than -log(1 - e).

    Args:
        gram: float64 ``[m, m]``, overwritten.
        largest: of the weights.
    """
    squares = gram.diagonal().copy()
    if not squares.min() > 0:
        return 0.0, math.inf
    lengths = np.sqrt(squares)
    gram /= lengths
    gram /= lengths[:, None]
    try:
        lower = np.linalg.cholesky(gram)
        inverse = np.linalg.inv(lower)
    except np.linalg.LinAlgError:
        return 0.0, math.inf
    part = GRAM_ERROR * len(gram) * float(np.square(inverse).sum()) * (1 + largest / float(lengths.min()))
    error = -math.log1p(-part) if part < 1 else math.inf
    return float(np.log(squares).sum()) + 2 * float(np.log(lower.diagonal()).sum()), error


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Rows, and memory to work on them for every shift anew: fresh memory costs as much as the product.

    numpy's BLAS and LAPACK let other groups run beside; scipy's hold the interpreter's lock.

    Attributes:
        rows: float64 ``[m, r]`` in C order.
        weighted: float64 ``[m, r]`` in C order.
        inner: float64 ``[m, m]``.
    """

    rows: Float64Array
    weighted: Float64Array
    inner: Float64Array

    @classmethod
    def of(cls, rows: Float64Array) -> _Room:
        rows = np.ascontiguousarray(rows)
        return cls(rows, np.empty_like(rows), np.empty((len(rows), len(rows))))

    def gram(self, weights: Float64Array) -> Float64Array:
        """``B diag(weights)^2 B^T``, valid until the next call."""
        np.multiply(self.rows, weights, out=self.weighted)
        # A matrix and its own transpose: numpy computes one triangle and copies it to the other.
        return np.matmul(self.weighted, self.weighted.T, out=self.inner)
