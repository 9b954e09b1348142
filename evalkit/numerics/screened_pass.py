"""The pass over generated x reference distances by float32 products (:mod:`evalkit.numerics.screen`).

An entry is open where its rounding could move it over the surface of a ball. These few are taken again in
float64, by differences; of a tile with many of them the whole product is made again in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.manifolds import Tally
from evalkit.numerics.neighbourhoods import Rows
from evalkit.numerics.products import Products, side_by_side
from evalkit.numerics.screen import (
    LARGEST_NORM,
    Entries,
    distances_of_pairs,
    entries_within,
    highest,
    lowest,
    rounded_down,
    rounded_up,
    rounding,
)
from evalkit.numerics.tiles import (
    Candidates,
    Part,
    parts_across,
    right_form,
    rounding_interval,
    single_form,
)

# A difference costs as much as this many entries of a float64 product.
WORTH_OF_A_DIFFERENCE = 128
FEW = 256  # open entries of a tile, of which it does not matter


class _Surfaces(NamedTuple):
    """Where entries are open, of balls of one kind around some points: float32 ``[n]`` bounds on products."""

    lowest: Float32Array
    highest: Float32Array

    @classmethod
    def of(
        cls, smallest: Float32Array, largest: Float32Array, norms: Float64Array, gamma: float
    ) -> _Surfaces:
        """Surfaces between two radii of each point, whose squared norms these are."""
        low, _ = rounding_interval(smallest)
        _, high = rounding_interval(largest)
        return cls(
            rounded_down(lowest(low, norms, gamma)),
            rounded_up(highest(high, norms, gamma)),
        )

    def open(
        self, points: IndexArray, squared: Float32Array
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Whether entries of these ``points`` are open."""
        return np.asarray((squared >= self.lowest[points]) & (squared <= self.highest[points]))


@dataclass(frozen=True, slots=True, eq=False)
class ScreenedPass:
    """One pass over the distances of generated ``rows`` to reference rows.

    Attributes:
        rows: the generated side.
        reference: float ``[m, d]``.
        products: of the generated side.
        tallies: what is counted.
        exactly: the candidates of one tile of generated rows and reference rows by float64 products.
    """

    rows: Rows
    reference: FloatArray
    products: Products[np.float32]
    tallies: Sequence[Tally]
    exactly: Callable[[slice, slice], Candidates]

    def run(self) -> None:
        """Give the tallies every pair in any ball."""
        norms, number = self.rows.single[1], self.rows.number
        gamma = rounding(self.reference.shape[1])
        ours = [
            _Surfaces.of(tally.radii[number], tally.largest[number], norms, gamma) for tally in self.tallies
        ]
        reach = np.maximum.reduce([surface.highest for surface in ours])
        parts = parts_across(len(norms), len(self.reference))
        for part, tiles in zip(parts, side_by_side(partial(self._found, ours, reach), parts), strict=True):
            for rows, found in zip(part.rows, tiles, strict=True):
                self._count(found, rows, part.columns)

    def _found(self, ours: Sequence[_Surfaces], reach: Float32Array, part: Part) -> list[Candidates]:
        """Pairs in each tile of a part; ``ours`` are the balls of the rows, ``reach`` the widest of each."""
        gamma, columns = rounding(self.reference.shape[1]), part.columns
        form, norms = single_form(self.reference, columns, self.rows.centre)
        right = right_form(form)
        radii = [tally.reference_radii[columns] for tally in self.tallies]
        theirs = [_Surfaces.of(radius, radius, norms, gamma) for radius in radii]
        around = np.maximum.reduce([surface.highest for surface in theirs])
        found = []
        for rows in part.rows:
            pairs = None
            if norms.max() <= LARGEST_NORM:
                tile = self.products.tile(rows, right)
                near = entries_within(tile, rows=reach[rows], columns=around)
                within = [_Surfaces(s.lowest[rows], s.highest[rows]) for s in ours]
                pairs = self._decided(near, rows, columns, within, theirs)
            found.append(pairs or self.exactly(rows, columns))
        return found

    def _decided(
        self,
        near: Entries,
        part: slice,
        columns: slice,
        ours: Sequence[_Surfaces],
        theirs: Sequence[_Surfaces],
    ) -> Candidates | None:
        """Distances that lie on the right side of every surface; None where too many entries are open."""
        undecided = np.zeros(len(near.rows), dtype=np.bool_)
        for own, other in zip(ours, theirs, strict=True):
            undecided |= own.open(near.rows, near.squared)
            undecided |= other.open(near.columns, near.squared)
        which = np.flatnonzero(undecided)
        size = (part.stop - part.start) * (columns.stop - columns.start)
        if len(which) > max(FEW, size // WORTH_OF_A_DIFFERENCE):
            return None
        distances = np.sqrt(np.maximum(near.squared, 0))
        distances[which] = distances_of_pairs(
            self.rows.x,
            self.reference,
            self.rows.number[part][near.rows[which]],
            near.columns[which] + columns.start,
            threads=1,
        )
        return Candidates(near.rows, near.columns, distances)

    def _count(self, found: Candidates, part: slice, columns: slice) -> None:
        rows = self.rows.number[part][found.rows]
        for tally in self.tallies:
            tally.add(rows, found.columns + columns.start, found.distances)
