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

    The Gram matrix ``G = X S_reference X^T`` is formed once; without a block, the nuclear norm needs only the
    re-centred submatrix of ``G`` (the reflector of :func:`gaussian_factor_from_features` on both sides), or
    the determinants of small blocks of its resolvents.

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
    mean = checked.mean(axis=0, dtype=np.float64)
    centred, offset, count = checked - mean, mean - reference.mean, len(checked)
    lower = np.tril(lower_gram(reference.project(centred)))
    gram = lower + np.tril(lower, -1).T
    squares = np.einsum("ij,ij->i", centred, centred)
    apart = float(offset @ offset) + float(squares.sum()) / (count - 1) + reference.trace
    few = _Few.of(gram, edges, apart, rank=reference.rank)
    distances = np.empty(len(edges) - 1)
    for block, (start, stop) in enumerate(pairwise(edges)):
        keep = np.r_[0:start, stop:count]
        if len(keep) < 2:
            raise InvalidInputError(f"features without a block has {len(keep)} rows; at least 2 are needed")
        moved = centred[start:stop].sum(axis=0) / len(keep)
        spread = float(squares[keep].sum()) - len(keep) * float(moved @ moved)
        traces = spread / (len(keep) - 1) + reference.trace
        scale = 2 / np.sqrt(len(keep) - 1)
        at = offset - moved
        for nuclear, error in few.without(slice(start, stop), keep):
            distances[block] = float(at @ at) + traces - scale * nuclear
            if scale * error + ROUNDING * traces <= LEAVE_OUT_ERROR * distances[block]:
                break
        else:
            rest = gaussian_factor_from_features(checked[keep])
            distances[block] = frechet_distance_between(rest, reference)
    return distances


@dataclass(frozen=True, slots=True, eq=False)
class _Few:
    """The Gram matrix ``[n, n]`` of centred rows, and its spectrum where that pays.

    Attributes:
        gram: float64 ``[n, n]``.
        spectrum: without the direction of ones; None where eigenvalues are found anew for each block.
        vectors: float64 ``[n, n - 1]``, its vectors as combinations of the n rows.
        rule: for the roots of what is left.
    """

    gram: Float64Array
    spectrum: Spectrum | None
    vectors: Float64Array
    rule: RootRule | None

    @classmethod
    def of(cls, gram: Float64Array, edges: Sequence[int], apart: float, *, rank: int) -> _Few:
        """Of rows cut at ``edges``, whose distance is ``apart`` less twice the scaled nuclear norm."""
        count, largest = len(gram), int(np.diff(edges).max(initial=0))
        nothing = cls(gram, None, gram[:, 1:], None)
        if not worth_it(largest, rank=min(count - 1, rank), groups=len(edges) - 1):
            return nothing
        spectrum = Spectrum.of(_reflected(gram))
        if spectrum is None:
            return nothing
        sums = spectrum.vectors.sum(axis=0) / np.sqrt(count)
        vectors = np.concatenate([-sums[None], spectrum.vectors - sums / (np.sqrt(count) + 1)])
        scale = np.sqrt(count - 1)
        wanted = RULE_SHARE * LEAVE_OUT_ERROR * (apart * scale - 2 * spectrum.nuclear)
        return cls(gram, spectrum, vectors, spectrum.rule(wanted))

    def without(self, block: slice, keep: IndexArray) -> Iterator[tuple[float, float]]:
        """Yield the sum of roots without the rows ``block`` and its error, the cheaper way first."""
        if self.spectrum is not None and self.rule is not None:
            yield without_members(self.spectrum, self.vectors[block], self.rule, count=len(self.gram))
        rest = _reflected(self.gram[np.ix_(keep, keep)])
        yield root_sum(symmetric_eigenvalues(rest, overwrite=True))


def _reflected(gram: Float64Array) -> Float64Array:
    """Gram matrix of the n - 1 centred, rotated rows, from that of the n rows themselves."""
    count = len(gram)
    weights = np.full(count, 1 / np.sqrt(count))
    weights[0] += 1
    weights /= np.sqrt(count) + 1
    shift = gram @ weights
    moved = gram - shift[:, None] - shift[None, :] + float(weights @ shift)
    return np.asarray(moved[1:, 1:], dtype=np.float64)
