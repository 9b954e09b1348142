"""Leave-one-block-out Fréchet distances of no more rows than dimensions, from one Gram matrix of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, IndexArray, checked_features
from evalkit.numerics.downdates import RULE_SHARE, Spectrum, without_members, worth_it
from evalkit.numerics.frechet import (
    LEAVE_OUT_ERROR,
    ROUNDING,
    GaussianFactor,
    frechet_distance_between,
    gaussian_factor_from_features,
)
from evalkit.numerics.linalg import lower_gram, root_sum, symmetric_eigenvalues
from evalkit.numerics.root_traces import RootRule


def frechet_without_blocks(
    features: NDArray[np.generic], edges: Sequence[int], reference: GaussianFactor
) -> Float64Array:
    """Leave-one-block-out Fréchet distances of features with ``n <= d`` (right for any n, fast for those).

    Args:
        features: float ``[n, d]``.
        edges: ``[blocks + 1]`` row numbers from 0 to n, none below the one before it.
        reference: the other side.

    Returns:
        float64 ``[blocks]``.

    Raises:
        InvalidInputError: as :func:`frechet_without_slices`.
    """
    return frechet_without_slices(features, [slice(*ends) for ends in pairwise(edges)], reference)


def frechet_without_slices(
    features: NDArray[np.generic], left_out: Sequence[slice], reference: GaussianFactor
) -> Float64Array:
    """Fréchet distances of features with ``n <= d`` without some of their rows each.

    The Gram matrix ``G = X S_reference X^T`` is formed once; without a slice, the nuclear norm needs only the
    re-centred submatrix of ``G`` (the reflector of :func:`gaussian_factor_from_features` on both sides), or
    the determinants of small blocks of its resolvents.

    Args:
        features: float ``[n, d]``.
        left_out: rows ``start:stop``, both given, without which each distance is.
        reference: the other side.

    Returns:
        float64 ``[len(left_out)]``.

    Raises:
        InvalidInputError: wrong shapes, non-finite values, or fewer than 2 rows left without a slice.
    """
    checked = checked_features(features, "features", minimum=2)
    if checked.shape[1] != len(reference.mean):
        raise InvalidInputError(f"{checked.shape[1]} features against {len(reference.mean)} of the reference")
    mean = checked.mean(axis=0, dtype=np.float64)
    centred, offset, count = checked - mean, mean - reference.mean, len(checked)
    squares = np.einsum("ij,ij->i", centred, centred)
    apart = float(offset @ offset) + float(squares.sum()) / (count - 1) + reference.trace
    few = _Few.of(reference.project(centred), left_out, apart, rank=reference.rank)
    distances = np.empty(len(left_out))
    for number, part in enumerate(left_out):
        keep = np.r_[0 : part.start, part.stop : count]
        if len(keep) < 2:
            raise InvalidInputError(f"features without a block has {len(keep)} rows; at least 2 are needed")
        moved = centred[part].sum(axis=0) / len(keep)
        spread = float(squares[keep].sum()) - len(keep) * float(moved @ moved)
        traces = spread / (len(keep) - 1) + reference.trace
        scale = 2 / np.sqrt(len(keep) - 1)
        at = offset - moved
        for nuclear, error in few.without(part, keep):
            distances[number] = float(at @ at) + traces - scale * nuclear
            if scale * error + ROUNDING * traces <= LEAVE_OUT_ERROR * distances[number]:
                break
        else:
            rest = gaussian_factor_from_features(checked[keep])
            distances[number] = frechet_distance_between(rest, reference)
    return distances


@dataclass(frozen=True, slots=True, eq=False)
class _Few:
    """The Gram matrix ``[n, n]`` of centred rows, and its spectrum where that pays.

    Attributes:
        gram: float64 ``[n, n]``.
        spectrum: without the direction of ones; None where eigenvalues are found anew for each slice.
        vectors: float64 ``[n, n - 1]``, its vectors as combinations of the n rows.
        rule: for the roots of what is left.
    """

    gram: Float64Array
    spectrum: Spectrum | None
    vectors: Float64Array
    rule: RootRule | None

    @classmethod
    def of(cls, rows: Float64Array, left_out: Sequence[slice], apart: float, *, rank: int) -> _Few:
        """Of centred rows ``[n, r]``, whose distance is ``apart`` less twice the scaled nuclear norm."""
        lower = np.tril(lower_gram(rows))
        gram = lower + np.tril(lower, -1).T
        count, largest = len(gram), max((part.stop - part.start for part in left_out), default=0)
        nothing = cls(gram, None, gram[:, 1:], None)
        if not worth_it(largest, rank=min(count - 1, rank), groups=len(left_out)):
            return nothing
        spectrum = Spectrum.of(_reflected(gram))
        if spectrum is None:
            return nothing
        allowed = LEAVE_OUT_ERROR * (apart * np.sqrt(count - 1) - 2 * spectrum.nuclear) / 2
        rest = (1 - RULE_SHARE) * allowed
        if spectrum.floor <= rest < 2 * spectrum.error + spectrum.floor:
            spectrum = Spectrum.of_rows(_reflected_rows(rows))
        if spectrum is None or not 2 * spectrum.error + spectrum.floor <= rest:
            return nothing
        sums = spectrum.vectors.sum(axis=0) / np.sqrt(count)
        vectors = np.concatenate([-sums[None], spectrum.vectors - sums / (np.sqrt(count) + 1)])
        return cls(gram, spectrum, vectors, spectrum.rule(RULE_SHARE * allowed))

    def without(self, part: slice, keep: IndexArray) -> Iterator[tuple[float, float]]:
        """Yield the sum of roots without the rows ``part`` and its error, the cheaper way first."""
        if self.spectrum is not None and self.rule is not None:
            yield without_members(self.spectrum, self.vectors[part], self.rule, count=len(self.gram))
        rest = _reflected(self.gram[np.ix_(keep, keep)])
        yield root_sum(symmetric_eigenvalues(rest, overwrite=True))


def _reflected_rows(rows: Float64Array) -> Float64Array:
    """Return the n - 1 centred, rotated rows of ``rows`` ``[n, r]``, whose sum need not be zero."""
    root = np.sqrt(len(rows))
    return np.asarray(rows[1:] - (rows[0] + rows.sum(axis=0) / root) / (root + 1), dtype=np.float64)


def _reflected(gram: Float64Array) -> Float64Array:
    """Gram matrix of the n - 1 centred, rotated rows, from that of the n rows themselves."""
    count = len(gram)
    weights = np.full(count, 1 / np.sqrt(count))
    weights[0] += 1
    weights /= np.sqrt(count) + 1
    shift = gram @ weights
    moved = gram - shift[:, None] - shift[None, :] + float(weights @ shift)
    return np.asarray(moved[1:, 1:], dtype=np.float64)
