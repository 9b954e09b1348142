"""One pass over generated x reference distances for all that is asked of them.

    compared = compare(blocks, reference, balls=[Balls(3), Balls(5, inclusive=False)], realism=[3])

It takes one product of the reference with itself and one of the generated rows with themselves (half of
each, see :mod:`evalkit.numerics.neighbourhoods`) and one of the two, however much is asked. The first is
remembered for the next generated set.

Products are float32 with everything undecided taken again in float64 (:mod:`evalkit.numerics.screen`): half
the time on well spread features. Where too much is undecided, as in sets with many near copies, and where
all distances are read, for realism and authenticity, they are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import (
    Float32Array,
    Float64Array,
    FloatArray,
    IndexArray,
    checked_features,
    same_width,
)
from evalkit.numerics.blocks import joined
from evalkit.numerics.manifolds import Balls, ResampledScores, Tally
from evalkit.numerics.neighbourhoods import Rows, neighbourhoods
from evalkit.numerics.products import Products, product, side_by_side
from evalkit.numerics.remembered import remembered
from evalkit.numerics.screened_pass import ScreenedPass
from evalkit.numerics.tiles import (
    PIECE_ENTRIES,
    Candidates,
    Part,
    bound_of_at_most,
    bound_of_cancelled,
    candidates,
    left_form,
    panels,
    parts_across,
    right_form,
)

NEIGHBOURS = 5  # found at least, so that metrics with fewer share what is remembered


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """What was asked for.

    Attributes:
        manifolds: of each kind of balls, the four scores.
        realism: of each k, the realism score of each generated row, float64 ``[n]``.
        authentic: bool ``[n]``, whether each generated row is authentic; empty where it was not asked.
    """

    manifolds: Mapping[Balls, ResampledScores]
    realism: Mapping[int, Float64Array]
    authentic: NDArray[np.bool_]


def compare(
    blocks: Sequence[NDArray[np.generic]],
    reference: NDArray[np.generic],
    *,
    balls: Sequence[Balls] = (),
    realism: Sequence[int] = (),
    authentic: bool = False,
) -> Compared:
    """Compare generated rows with reference rows.

    Args:
        blocks: float ``[n_b, d]`` arrays of the generated side; more than each k of ``balls`` together.
        reference: float ``[m, d]``, more rows than each k, and than one for ``authentic``.
        balls: kinds of balls that precision, recall, density and coverage are wanted of.
        realism: neighbours k that realism scores are wanted of.
        authentic: whether it is wanted which rows are authentic.

    Raises:
        InvalidInputError: wrong shapes, k < 1, too few rows, or a value that is not finite.
    """
    inner = [kind.k for kind in balls]
    outer = [*inner, *realism, *([1] if authentic else [])]
    if min(outer) < 1:
        raise InvalidInputError(f"k must be 1 or more, not {min(outer)}")
    parts = [checked_features(block, "generated features", minimum=1) for block in blocks]
    ours = checked_features(joined(parts), "generated features", minimum=max([0, *inner]) + 1)
    theirs = checked_features(reference, "reference features", minimum=max(outer) + 1)
    same_width(ours, theirs)
    # One centre for both sides: it shortens the vectors (less cancellation) and keeps equal points equal.
    centre = theirs.mean(axis=0, dtype=np.float64)
    near = nearest_distances(theirs, min(max([NEIGHBOURS, *outer]), len(theirs) - 1))
    radii = {k: np.ascontiguousarray(near[:, k - 1]) for k in outer}
    sizes = [len(part) for part in parts]
    rows = Rows.of(ours, sizes, centre)
    tallies: list[Tally] = []
    if inner:
        own = neighbourhoods(rows, max(inner))
        tallies = [Tally.empty(kind, sizes, own, radii[kind.k]) for kind in dict.fromkeys(balls)]
    deepest = {k: _Deepest.of(len(ours), radii[k]) for k in realism}
    nearest = _Nearest.of(len(ours)) if authentic else None
    _Pass(rows, theirs, tallies, [*deepest.values(), *([nearest] if nearest else [])]).run()
    return Compared(
        {tally.balls: tally.resampled() for tally in tallies},
        {k: found.score for k, found in deepest.items()},
        nearest.distance > radii[1][nearest.index] if nearest else np.empty(0, dtype=np.bool_),
    )


@remembered
def nearest_distances(x: FloatArray, k: int) -> Float32Array:
    """Distances of each row of ``x`` ``[n, d]`` to its k nearest other rows, ascending, ``[n, k]``; n > k."""
    rows = Rows.of(x, [len(x)], x.mean(axis=0, dtype=np.float64))
    return neighbourhoods(rows, k).distance


@dataclass(frozen=True, slots=True, eq=False)
class _Nearest:
    """The nearest reference row of each generated row; of equally near ones the first."""

    index: IndexArray
    distance: Float32Array

    @classmethod
    def of(cls, n: int) -> _Nearest:
        return cls(np.zeros(n, dtype=np.int64), np.full(n, np.inf, dtype=np.float32))

    def look(self, rows: IndexArray, start: int, distances: Float32Array) -> Callable[[], None]:
        best = distances.argmin(axis=1)
        return partial(self._add, rows, best + start, distances[np.arange(len(rows)), best])

    def _add(self, rows: IndexArray, index: IndexArray, distance: Float32Array) -> None:
        # Columns come in their order: on a tie the earlier one, which is already there, stays.
        nearer = distance < self.distance[rows]
        self.distance[rows[nearer]] = distance[nearer]
        self.index[rows[nearer]] = index[nearer]


@dataclass(frozen=True, slots=True, eq=False)
class _Deepest:
    """How deep each generated row lies in a reference ball that is no larger than the median one."""

    radii: Float64Array  # [m], -1 where the ball is left out, so that its ratio is never the largest
    pointlike: bool
    score: Float64Array = field()

    @classmethod
    def of(cls, n: int, radii: Float32Array) -> _Deepest:
        kept = np.where(radii <= np.median(radii), radii, -1).astype(np.float64)
        return cls(kept, bool((radii == 0).any()), np.full(n, -np.inf))

    def look(self, rows: IndexArray, start: int, distances: Float32Array) -> Callable[[], None]:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.radii[start : start + distances.shape[1]] / distances
        if self.pointlike:
            ratio[np.isnan(ratio)] = 1.0
        return partial(self._add, rows, ratio.max(axis=1))

    def _add(self, rows: IndexArray, score: Float64Array) -> None:
        self.score[rows] = np.maximum(self.score[rows], score)


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One pass over the distances of generated ``rows`` to reference rows."""

    rows: Rows
    reference: FloatArray
    tallies: Sequence[Tally]
    dense: Sequence[_Nearest | _Deepest]

    def run(self) -> None:
        if not self.dense and (screened := self.rows.screened):
            ScreenedPass(self.rows, self.reference, screened, self.tallies, self._tile).run()
            return
        number, parts = self.rows.number, parts_across(len(self.rows.number), len(self.reference))
        look = partial(self._found, self.rows.products, self._reach(self.rows.double[:, -2], slice(None)))
        for part, (tiles, merges) in zip(parts, side_by_side(look, parts), strict=True):
            for rows, found in zip(part.rows, tiles, strict=True):
                for tally in self.tallies:
                    tally.add(number[rows][found.rows], found.columns + part.columns.start, found.distances)
            for merge in merges:
                merge()

    def _found(
        self, products: Products[np.float64], reach: Float64Array, part: Part
    ) -> tuple[list[Candidates], list[Callable[[], None]]]:
        """Candidates in each tile of a part, and what merges what all of its pairs tell."""
        columns = part.columns
        theirs = left_form(self.reference[columns], self.rows.centre)
        right, around = right_form(theirs), self._around(theirs[:, -2], columns)
        tiles: list[Candidates] = []
        merges: list[Callable[[], None]] = []
        for rows in part.rows:
            tile = products.tile(rows, right)
            tiles.append(candidates(tile, self.rows.double[rows], theirs, rows=reach[rows], columns=around))
            merges += self._read(tile, self.rows.number[rows], columns.start)
        return tiles, merges

    def _tile(self, part: slice, columns: slice) -> Candidates:
        """Candidates of a single tile by float64 products."""
        ours = left_form(self.rows.x[self.rows.number[part]], self.rows.centre)
        theirs = left_form(self.reference[columns], self.rows.centre)
        tile = product(ours, right_form(theirs).T)
        reach, around = self._reach(ours[:, -2], part), self._around(theirs[:, -2], columns)
        return candidates(tile, ours, theirs, rows=reach, columns=around)

    def _reach(self, norms: Float64Array, part: slice) -> Float64Array:
        # Where all distances are read, all that cancel must be corrected.
        reach = bound_of_cancelled(norms) if self.dense else np.full(len(norms), -np.inf)
        if self.tallies:
            widest = np.maximum.reduce([tally.largest for tally in self.tallies])[self.rows.number[part]]
            reach = np.maximum(reach, bound_of_at_most(widest, norms))
        return reach

    def _around(self, norms: Float64Array, columns: slice) -> Float64Array:
        if not self.tallies:
            return np.full(len(norms), -np.inf)
        widest = np.maximum.reduce([tally.reference_radii[columns] for tally in self.tallies])
        return bound_of_at_most(widest, norms)

    def _read(self, tile: Float64Array, rows: IndexArray, start: int) -> Iterator[Callable[[], None]]:
        if not self.dense:
            return
        for piece in panels(len(tile), max(1, PIECE_ENTRIES // tile.shape[1])):
            distances = np.sqrt(tile[piece]).astype(np.float32)
            for reader in self.dense:
                yield reader.look(rows[piece], start, distances)
