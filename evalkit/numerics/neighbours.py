"""Precision, recall, density and coverage by k-nearest-neighbour balls.

A ball has its centre at a point and the distance to its k-th neighbour *other than itself* as radius.

    precision = share of generated points in a reference ball      (Kynkäänniemi et al. 2019, eqs. 1-3)
    recall    = share of reference points in a generated ball
    density   = reference balls around a generated point, mean, divided by k    (Naeem et al. 2020, eq. 3)
    coverage  = share of reference balls that hold a generated point            (Naeem et al. 2020, eq. 4)

"In a ball" is ``<=`` (inclusive, Kynkäänniemi with k = 3) or ``<`` (strict, the prdc package with k = 5).

Distances are rounded to float32 before they are compared; see :mod:`evalkit.numerics.distances`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float32Array, Float64Array, checked_features, same_width
from evalkit.numerics.distances import euclidean_distances, tile_rows
from evalkit.numerics.occupancy import Occupancy
from evalkit.numerics.remembered import remembered


@dataclass(frozen=True, slots=True)
class ManifoldScores:
    """Precision, recall and coverage in 0..1; density from 0 up (it can exceed 1)."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, slots=True)
class ResampledScores:
    """The four scores of all generated rows, and of what is left of them without blocks.

    ``fixed`` values keep the balls as they are with all rows, so that leaving rows out only takes balls away:
    what a jackknife needs to tell how far two blocks reach the same reference points.

    Attributes:
        scores: of all rows.
        without: without each block, exactly; empty where too few rows would be left.
        fixed: without each block, balls fixed; empty likewise.
        fixed_pairs: ``[b][c]`` without blocks b and b + 1 + c, balls fixed; empty where there are two blocks.
        coverage_variance: of the coverage over draws of generated rows; 0 where there are fewer than three.
    """

    scores: ManifoldScores
    without: tuple[ManifoldScores, ...] = ()
    fixed: tuple[ManifoldScores, ...] = ()
    fixed_pairs: tuple[tuple[ManifoldScores, ...], ...] = ()
    coverage_variance: float = 0.0


def precision_recall_density_coverage(
    generated: NDArray[np.generic], reference: NDArray[np.generic], *, k: int, inclusive: bool = True
) -> ManifoldScores:
    """Precision, recall, density and coverage of ``generated`` (formulas in the module).

    Args:
        generated: float ``[n, d]``, ``n > k``.
        reference: float ``[m, d]``, ``m > k``.
        k: which neighbour gives the radius of a ball.
        inclusive: ``<=`` where True, ``<`` where False.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    return manifold_scores([generated], reference, k=k, inclusive=inclusive).scores


def manifold_scores(
    blocks: Sequence[NDArray[np.generic]], reference: NDArray[np.generic], *, k: int, inclusive: bool = True
) -> ResampledScores:
    """All four scores, and their exact values without each block of the generated side.

    Leaving a block out enlarges some generated balls; those radii are computed exactly from the k nearest
    neighbours in every block.

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side.
        reference: float ``[m, d]``, ``m > k``.
        k: which neighbour gives the radius of a ball.
        inclusive: ``<=`` where True, ``<`` where False.

    Returns:
        The scores; those without blocks are empty where there is one block only, or where fewer than k + 1
        generated rows would be left.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    if k < 1:
        raise InvalidInputError(f"k must be 1 or more, not {k}")
    parts = [checked_features(block, "generated features", minimum=1) for block in blocks]
    ours = checked_features(np.concatenate(parts), "generated features", minimum=k + 1)
    theirs = checked_features(reference, "reference features", minimum=k + 1)
    same_width(ours, theirs)
    # One centre for both sides: it shortens the vectors (less cancellation) and keeps equal points equal.
    centre = theirs.mean(axis=0, dtype=np.float64)
    sizes = [len(part) for part in parts]
    resampled = len(parts) > 1 and len(ours) - max(sizes) > k
    comparison = _Comparison(sizes=sizes, k=k, inclusive=inclusive, resampled=resampled)
    tally = comparison.tally(ours - centre, theirs - centre)
    every = range(len(parts) if resampled else 0)
    paired = every if len(parts) > 2 else every[:0]
    return ResampledScores(
        tally.scores(k),
        tuple(tally.scores(k, b, enlarged=True) for b in every),
        tuple(tally.scores(k, b) for b in every),
        tuple(tuple(tally.scores(k, b, c) for c in every[b + 1 :]) for b in paired),
        tally.occupancy.variance(len(ours)) if len(ours) > 2 else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """How the two sides are compared."""

    sizes: Sequence[int]
    k: int
    inclusive: bool
    resampled: bool

    def tally(self, x: Float64Array, y: Float64Array) -> _Tally:
        """Go once over the distances of generated ``x`` ``[n, d]`` to reference ``y`` ``[m, d]``."""
        edges = [0, *accumulate(self.sizes)]
        neighbours = _block_neighbours(x, edges, self.k)
        radii = _kth(neighbours, self.k)
        blocks = range(len(self.sizes) if self.resampled else 0)
        without = [_kth(np.delete(neighbours, b, axis=1), self.k) for b in blocks]
        reference_radii = ball_radii(y, self.k)
        tally = _Tally.empty(self.sizes, len(y))
        for block, rows, tile in _tiles(x, y, edges):
            tally.add(
                block,
                rows,
                tile,
                reference_radii=reference_radii,
                radii=radii[rows],
                without=[larger[rows] for larger in without],
                inclusive=self.inclusive,
            )
        return tally


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """What one pass over generated x reference distances collects, for each block of the generated side."""

    block_of: NDArray[np.int64]  # [n]
    balls: NDArray[np.int64]  # [n] reference balls around a generated point
    occupancy: Occupancy  # generated points in each reference ball
    reached: NDArray[np.bool_]  # [b, m] a point of the block lies in the reference ball
    recalled: NDArray[np.bool_]  # [b, m] the reference point lies in a ball of the block
    enlarged: NDArray[np.bool_]  # [b, m] the same, in a ball that grew because the block is left out

    @classmethod
    def empty(cls, sizes: Sequence[int], m: int) -> _Tally:
        b = len(sizes)
        flags = [np.zeros((b, m), dtype=np.bool_) for _ in range(3)]
        return cls(
            np.repeat(np.arange(b, dtype=np.int64), sizes),
            np.zeros(sum(sizes), dtype=np.int64),
            Occupancy.of(m),
            reached=flags[0],
            recalled=flags[1],
            enlarged=flags[2],
        )

    def add(
        self,
        block: int,
        rows: slice,
        distances: Float32Array,
        *,
        reference_radii: Float32Array,
        radii: Float32Array,
        without: Sequence[Float32Array],
        inclusive: bool,
    ) -> None:
        """Add the distances ``[rows, m]`` of generated points of one block."""
        inside = np.less_equal if inclusive else np.less
        in_reference = inside(distances, reference_radii)
        self.balls[rows] = in_reference.sum(axis=1)
        self.occupancy.add(rows.start, in_reference)
        self.reached[block] |= in_reference.any(axis=0)
        self.recalled[block] |= inside(distances, radii[:, None]).any(axis=0)
        for other, larger in enumerate(without):
            grown = larger > radii
            if other != block and grown.any():
                self.enlarged[other] |= inside(distances[grown], larger[grown, None]).any(axis=0)

    def scores(self, k: int, *left_out: int, enlarged: bool = False) -> ManifoldScores:
        """Scores without the blocks ``left_out``, with the balls that the first of them ``enlarged``."""
        kept = np.ones(len(self.recalled), dtype=np.bool_)
        kept[list(left_out)] = False
        balls = self.balls[kept[self.block_of]]
        recalled = self.recalled[kept].any(axis=0)
        if enlarged:
            recalled |= self.enlarged[left_out[0]]
        return ManifoldScores(
            precision=float((balls > 0).mean()),
            recall=float(recalled.mean()),
            density=float(balls.mean()) / k,
            coverage=float(self.reached[kept].any(axis=0).mean()),
        )


@remembered
def ball_radii(x: Float64Array, k: int) -> Float32Array:
    """Distance of each row of ``x`` ``[n, d]`` to its k-th nearest other row, ``[n]``; ``n > k``."""
    return _kth(_block_neighbours(x, [0, len(x)], k), k)


def _tiles(
    x: Float64Array, y: Float64Array, edges: Sequence[int]
) -> Iterator[tuple[int, slice, Float32Array]]:
    """Yield ``(block, rows, distances [rows, m])`` of ``x`` to ``y``; no tile spans two blocks."""
    step = tile_rows(len(y))
    for block, (start, stop) in enumerate(pairwise(edges)):
        for first in range(start, stop, step):
            rows = slice(first, min(first + step, stop))
            yield block, rows, euclidean_distances(x[rows], y)


def _block_neighbours(x: Float64Array, edges: Sequence[int], k: int) -> Float32Array:
    """Distances to the k nearest other rows in each block, ``[n, b, k]``, infinite where there are fewer."""
    nearest = np.full((len(x), len(edges) - 1, k), np.inf, dtype=np.float32)
    step = tile_rows(len(x))
    for first in range(0, len(x), step):
        rows = slice(first, min(first + step, len(x)))
        tile = euclidean_distances(x[rows], x)
        tile[np.arange(len(tile)), np.arange(rows.start, rows.stop)] = np.inf
        for block, (start, stop) in enumerate(pairwise(edges)):
            part = tile[:, start:stop]
            count = min(k, part.shape[1])
            nearest[rows, block, :count] = np.partition(part, count - 1, axis=1)[:, :count]
    return nearest


def _kth(neighbours: Float32Array, k: int) -> Float32Array:
    """k-th smallest of the neighbour distances ``[n, b, k]`` of all blocks together, ``[n]``."""
    flat = neighbours.reshape(len(neighbours), -1)
    return np.asarray(np.partition(flat, k - 1, axis=1)[:, k - 1], dtype=np.float32)
