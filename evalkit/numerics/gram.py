"""Sums of a kernel of products over blocks and subsets of rows, from one pass over the tiles of the products.

A tile of kernel values is multiplied with a matrix of zeros and ones, one column for each block or subset of
its columns, and the result summed over the blocks and subsets of its rows. However many sums are wanted,
each product is computed once; that of a set with itself only on and above the diagonal.

Nothing is ever subtracted, and what does not belong to a sum enters it as zero. Sums of some tiles go side by
side (:func:`evalkit.numerics.products.side_by_side`) and are added in one order: how many go at once changes
no digit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from evalkit.numerics.arrays import Float64Array, IndexArray
from evalkit.numerics.products import product, products_of, side_by_side
from evalkit.numerics.tiles import Part, panels, parts_across, parts_within

PIECE = 256  # rows of a tile that stay in a core's cache

Kernel = Callable[[Float64Array], None]
"""Makes kernel values of a tile of products, in place."""


class Indicators(NamedTuple):
    """Which blocks and which subsets some rows belong to, in ones and zeros.

    Attributes:
        touched: the blocks that hold any of the rows.
        blocks: float64 ``[rows, touched]``.
        subsets: float64 ``[rows, s]``.
    """

    touched: slice
    blocks: Float64Array
    subsets: Float64Array

    def part(self, rows: slice) -> Indicators:
        """Of some of the rows."""
        return Indicators(self.touched, self.blocks[rows], self.subsets[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Rows that belong to blocks and to subsets.

    Attributes:
        edges: ``[b + 1]`` where the blocks begin and end.
        subsets: float64 ``[n, s]`` of ones and zeros.
    """

    edges: Sequence[int]
    subsets: Float64Array

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.edges[-1]

    @classmethod
    def of(cls, sizes: Sequence[int], chosen: Sequence[IndexArray] = ()) -> Members:
        """Blocks of these ``sizes``, and subsets of the ``chosen`` rows."""
        edges = [0, *np.cumsum(sizes).tolist()]
        subsets = np.zeros((edges[-1], len(chosen)))
        for subset, rows in enumerate(chosen):
            subsets[rows, subset] = 1
        return cls(edges, subsets)

    def indicators(self, part: slice) -> Indicators:
        """Return the blocks and the subsets of the rows ``part``, of which there is at least one."""
        touched = slice(bisect_right(self.edges, part.start) - 1, bisect_left(self.edges, part.stop))
        rows = np.arange(part.start, part.stop)[:, None]
        edges = self.edges[touched.start : touched.stop + 1]
        blocks = [(rows >= start) & (rows < stop) for start, stop in pairwise(edges)]
        return Indicators(touched, np.concatenate(blocks, axis=1, dtype=np.float64), self.subsets[part])


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over pairs of rows: float64 ``[b, c]`` of each two blocks, float64 ``[s]`` of each subset."""

    blocks: Float64Array
    subsets: Float64Array

    @classmethod
    def empty(cls, rows: Members, columns: Members) -> Sums:
        """Nothing summed yet."""
        return cls(
            np.zeros((len(rows.edges) - 1, len(columns.edges) - 1)), np.zeros(columns.subsets.shape[1])
        )

    def add(self, tile: Float64Array, rows: Indicators, columns: Indicators, *, twice: bool) -> None:
        """Add kernel values ``[r, c]`` of rows and columns with these indicators.

        Args:
            tile: kernel values.
            rows: blocks and subsets of its rows.
            columns: of its columns.
            twice: whether the tile stands for its mirror image as well.
        """
        blocks = product(np.ascontiguousarray(rows.blocks.T), product(tile, columns.blocks))
        self.blocks[rows.touched, columns.touched] += blocks
        if twice:
            self.blocks[columns.touched, rows.touched] += blocks.T
        # Apart from the blocks, so that their number cannot change a digit.
        chosen = np.einsum("is,is->s", rows.subsets, product(tile, columns.subsets))
        self.subsets += (2 if twice else 1) * chosen

    def include(self, other: Sums) -> None:
        """Add what was summed elsewhere."""
        self.blocks += other.blocks
        self.subsets += other.subsets


def sums_within(
    left: Float64Array, right: Callable[[Float64Array], Float64Array], kernel: Kernel, members: Members
) -> Sums:
    """Sum ``kernel(left @ right(left).T)``, a symmetric matrix, over ordered pairs of distinct rows.

    Args:
        left: float64 ``[n, d]``.
        right: makes the other factor of some rows of ``left``.
        kernel: of the product.
        members: blocks and subsets of the rows.
    """
    return _sums(left, lambda part: right(left[part]), kernel, (members, members), within=True)


def sums_across(
    left: Float64Array,
    right: Callable[[slice], Float64Array],
    kernel: Kernel,
    members: Members,
    others: Members,
) -> Sums:
    """Sum ``kernel(left @ right.T)`` over pairs of a row of ``left`` and one of ``right``.

    Args:
        left: float64 ``[n, d]``.
        right: returns rows of the other factor ``[m, d]``.
        kernel: of the product.
        members: blocks and subsets of the rows of ``left``.
        others: blocks of the other rows, and as many subsets.
    """
    return _sums(left, right, kernel, (members, others), within=False)


def _sums(
    left: Float64Array,
    right: Callable[[slice], Float64Array],
    kernel: Kernel,
    sides: tuple[Members, Members],
    *,
    within: bool,
) -> Sums:
    """Sum over pairs of the rows of ``sides``, which are the same where ``within``."""
    members, others = sides
    products, total = products_of(left), Sums.empty(members, others)

    def summed(part: Part) -> Sums:
        sums = Sums.empty(members, others)
        other, theirs = right(part.columns), others.indicators(part.columns)
        for rows in part.rows:
            tile, ours = products.tile(rows, other), members.indicators(rows)
            square = within and rows == part.columns
            for piece in panels(len(tile), PIECE):
                kernel(tile[piece])
                if square:
                    # Cleared, not subtracted: a single huge row would cancel everything else.
                    np.fill_diagonal(tile[piece, piece.start :], 0.0)
                # What lies above the diagonal stands for its mirror image as well.
                sums.add(tile[piece], ours.part(piece), theirs, twice=within and not square)
        return sums

    count = len(left)
    for sums in side_by_side(summed, parts_within(count) if within else parts_across(count, others.count)):
        total.include(sums)
    return total
