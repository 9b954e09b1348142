"""How many of m cells some of n rows reach, and the variance of that share over draws of the rows.

tally = Occupancy.of(m)
tally.add(*np.nonzero(inside))                          # bool [n, m]; hits in any number of parts
tally.share, tally.variance(n)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import IndexArray


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """Who reaches each cell.

    Attributes:
        hits: int64 ``[m]``, rows that reach the cell, counted up to 3.
        first: int64 ``[m]``, the lowest row that does, where there are one or two.
        last: int64 ``[m]``, the highest one, likewise.
    """

    hits: IndexArray
    first: IndexArray
    last: IndexArray

    @classmethod
    def of(cls, cells: int) -> Self:
        """Nothing reached yet."""
        none = np.full(cells, np.iinfo(np.int64).max, dtype=np.int64)
        return cls(np.zeros(cells, dtype=np.int64), first=none, last=np.full(cells, -1, dtype=np.int64))

    def add(self, rows: IndexArray, cells: IndexArray) -> None:
        """Add hits, in any order and number of parts: row ``rows[h]`` reaches cell ``cells[h]``, once."""
        few = self.hits[cells] < 3  # of more rows nothing needs to be known
        rows, cells = rows[few], cells[few]
        self.hits[:] = np.minimum(self.hits + np.bincount(cells, minlength=len(self.hits)), 3)
        np.minimum.at(self.first, cells, rows)
        np.maximum.at(self.last, cells, rows)

    @property
    def share(self) -> float:
        """Share of the cells that some row reaches."""
        return float((self.hits > 0).mean())

    def variance(self, n: int) -> float:
        """Variance of :attr:`share` over independent draws of ``n`` rows.

        The jackknife over single rows times :func:`~evalkit.numerics.resampling.first_order_share` over all
        pairs of them. Blocks of rows give the same in the mean, but 20 blocks and their 190 pairs made an
        error bar that varied by 29 %, where this varied by 18 %. No row is left out to find it. Row i alone
        reaches ``c_i`` cells, rows i and j and no others reach ``d_ij``, and in cells::

            change of the share without i           c_i
            Q_ij of Efron & Stein 1981, section 5   c_i + c_j - (n - 2) d_ij

        Raises:
            InvalidInputError: fewer than three rows.
        """
        if n < 3:
            raise InvalidInputError(f"the variance of a share of cells needs three rows, not {n}")
        alone = np.bincount(self.first[self.hits == 1], minlength=n).astype(np.float64)
        variance = float(((alone - alone.mean()) ** 2).sum()) * (n - 1) / n
        if variance == 0:
            return 0.0
        two = self.hits == 2
        keys, shared = np.unique(self.first[two] * n + self.last[two], return_counts=True)
        weight = (n - 2) * shared.astype(np.float64)
        each = alone[keys // n] + alone[keys % n]
        pairs = n * (n - 1) / 2
        total = (n - 1) * float(alone.sum()) - float(weight.sum())
        squares = (n - 2) * float(alone @ alone) + float(alone.sum()) ** 2
        squares += float(weight @ weight) - 2 * float(each @ weight)
        rho = 2 * (squares - total**2 / pairs) / (n * (n - 1)) / variance
        return variance * (-math.expm1(-rho) / rho if rho > 0 else 1.0) / len(self.hits) ** 2
