"""What is counted of generated x reference distances for precision, recall, density and coverage.

The formulas stand in :mod:`evalkit.numerics.neighbours`. Only near pairs are told: those in a ball.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.arrays import Float32Array, IndexArray
from evalkit.numerics.neighbourhoods import Neighbourhoods
from evalkit.numerics.occupancy import Occupancy


@dataclass(frozen=True, slots=True)
class Balls:
    """Which neighbour gives the radius of a ball, and whether its surface belongs to it."""

    k: int
    inclusive: bool = True

    def hold(self, distances: Float32Array, radii: Float32Array) -> NDArray[np.bool_]:
        """Whether points at ``distances`` lie in balls of ``radii``."""
        return np.asarray((np.less_equal if self.inclusive else np.less)(distances, radii))


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


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What one pass over generated x reference distances collects, for each block of the generated side."""

    balls: Balls
    block_of: IndexArray  # [n]
    reference_radii: Float32Array  # [m]
    radii: Float32Array  # [n]
    without: Float32Array  # [n, b] radii without each block; no columns where no block can be left out
    largest: Float32Array  # [n] radius without that block that leaves the largest
    counts: IndexArray  # [n] reference balls around a generated point
    occupancy: Occupancy  # generated points in each reference ball
    reached: NDArray[np.bool_]  # [b, m] a point of the block lies in the reference ball
    recalled: NDArray[np.bool_]  # [b, m] the reference point lies in a ball of the block
    enlarged: NDArray[np.bool_]  # [b, m] the same, in a ball that grew because the block is left out

    @classmethod
    def empty(
        cls, balls: Balls, sizes: Sequence[int], ours: Neighbourhoods, reference_radii: Float32Array
    ) -> Tally:
        """Nothing counted yet, of blocks of these ``sizes``."""
        n, b, m, k = sum(sizes), len(sizes), len(reference_radii), balls.k
        radii = ours.radii(k)
        without = np.empty((n, b if b > 1 and n - max(sizes) > k else 0), dtype=np.float32)
        for block in range(without.shape[1]):
            without[:, block] = ours.radii_without(block, k)
        reached, recalled, enlarged = (np.zeros((b, m), dtype=np.bool_) for _ in range(3))
        return cls(
            balls,
            np.repeat(np.arange(b, dtype=np.int64), sizes),
            reference_radii,
            radii,
            without,
            without.max(axis=1, initial=0.0) if without.shape[1] else radii,
            counts=np.zeros(n, dtype=np.int64),
            occupancy=Occupancy.of(m),
            reached=reached,
            recalled=recalled,
            enlarged=enlarged,
        )

    def add(self, rows: IndexArray, columns: IndexArray, distances: Float32Array) -> None:
        """Add pairs of generated ``rows`` and reference ``columns``; all pairs in any ball must come once."""
        block = self.block_of[rows]
        around = self.balls.hold(distances, self.reference_radii[columns])
        self.counts[:] += np.bincount(rows[around], minlength=len(self.counts))
        self.occupancy.add(rows[around], columns[around])
        self.reached[block[around], columns[around]] = True
        within = self.balls.hold(distances, self.radii[rows])
        self.recalled[block[within], columns[within]] = True
        rest = np.flatnonzero(~within & self.balls.hold(distances, self.largest[rows]))
        rows, columns, distances, block = rows[rest], columns[rest], distances[rest], block[rest]
        for other in range(self.without.shape[1]):
            grown = self.balls.hold(distances, self.without[rows, other]) & (block != other)
            self.enlarged[other, columns[grown]] = True

    def scores(self, *left_out: int, enlarged: bool = False) -> ManifoldScores:
        """Scores without the blocks ``left_out``, with the balls that the first of them ``enlarged``."""
        kept = np.ones(len(self.recalled), dtype=np.bool_)
        kept[list(left_out)] = False
        counts = self.counts[kept[self.block_of]]
        recalled = self.recalled[kept].any(axis=0)
        if enlarged:
            recalled |= self.enlarged[left_out[0]]
        return ManifoldScores(
            precision=float((counts > 0).mean()),
            recall=float(recalled.mean()),
            density=float(counts.mean()) / self.balls.k,
            coverage=float(self.reached[kept].any(axis=0).mean()),
        )

    def resampled(self) -> ResampledScores:
        """The scores of all rows, and without blocks."""
        n, every = len(self.counts), range(self.without.shape[1])
        paired = every if len(self.recalled) > 2 else every[:0]
        return ResampledScores(
            self.scores(),
            tuple(self.scores(b, enlarged=True) for b in every),
            tuple(self.scores(b) for b in every),
            tuple(tuple(self.scores(b, c) for c in every[b + 1 :]) for b in paired),
            self.occupancy.variance(n) if n > 2 else 0.0,
        )
