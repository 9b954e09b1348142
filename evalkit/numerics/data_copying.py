"""The data-copying test C_T (Meehan, Chaudhuri & Dasgupta 2020): do samples lie too near the training set?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float32Array, IndexArray, checked_features, same_width
from evalkit.numerics.clustering import kmeans, nearest_centre, principal_axes, projected
from evalkit.numerics.distances import nearest_rows


@dataclass(frozen=True, slots=True, eq=False)
class CellDistances:
    """Distances of generated and held-out rows to the nearest training row *of their cell*.

    Attributes:
        generated_cell: int64 ``[n]`` cell of each generated row; ``generated_distance`` float32 ``[n]``.
        held_out_cell: the same of the held-out rows ``[m]``; ``held_out_distance`` float32 ``[m]``.
        cells: number of cells.
    """

    generated_cell: IndexArray
    generated_distance: Float32Array
    held_out_cell: IndexArray
    held_out_distance: Float32Array
    cells: int

    def z_scores(self, kept: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Z score of each cell, ``[cells]``; NaN where no generated row lies in the cell.

        Args:
            kept: which generated rows take part, bool ``[n]``; all by default.
        """
        chosen = np.ones(len(self.generated_cell), dtype=np.bool_) if kept is None else kept
        return np.array(
            [
                mann_whitney_z(
                    self.generated_distance[chosen & (self.generated_cell == cell)],
                    self.held_out_distance[self.held_out_cell == cell],
                )
                for cell in range(self.cells)
            ]
        )

    def statistic(self, *, more_than: int, kept: NDArray[np.bool_] | None = None) -> float | None:
        """C_T: the mean z score of the cells, weighted by their held-out rows (section 4.2 of the paper).

        Args:
            more_than: a cell takes part if it holds more generated rows than this (tau = more_than / n).
            kept: which generated rows take part, bool ``[n]``; all by default.

        Returns:
            The statistic, or None where no cell takes part.
        """
        cells = self.generated_cell if kept is None else self.generated_cell[kept]
        usable = np.bincount(cells, minlength=self.cells) > more_than
        if not usable.any():
            return None
        weights = np.bincount(self.held_out_cell, minlength=self.cells)[usable]
        return float(weights @ self.z_scores(kept)[usable] / weights.sum())


def cell_distances(
    generated: NDArray[np.generic],
    training: NDArray[np.generic],
    held_out: NDArray[np.generic],
    *,
    cells: int,
    components: int,
    rng: np.random.Generator,
) -> CellDistances:
    """Partition space by k-means of the training rows and measure distances within the cells.

    Where there are more than ``components`` dimensions all three sets are first projected on the principal
    axes of the training rows (as in the authors' experiments and in the FLD and dgm-eval packages).

    Args:
        generated: float ``[n, d]``.
        training: float ``[l, d]``.
        held_out: float ``[m, d]``, real rows that were not trained on.
        cells: number of cells.
        components: most dimensions that distances are taken in.
        rng: seeds k-means.

    Raises:
        InvalidInputError: wrong shapes, a value that is not finite, or a cell without held-out rows.
    """
    ours = checked_features(generated, "generated features", minimum=1)
    train = checked_features(training, "training features", minimum=cells)
    test = checked_features(held_out, "held-out features", minimum=cells)
    same_width(ours, train)
    same_width(test, train)
    if train.shape[1] > components:
        mean, axes = principal_axes(train, components)
    else:
        mean, axes = train.mean(axis=0, dtype=np.float64), np.eye(train.shape[1])
    sets = [projected(x, mean, axes) for x in (ours, train, test)]
    centres = kmeans(sets[1], clusters=cells, rng=rng)
    in_cell = [nearest_centre(x, centres) for x in sets]
    empty = [cell for cell in range(cells) if not ((in_cell[1] == cell).any() and (in_cell[2] == cell).any())]
    if empty:
        raise InvalidInputError(
            f"{len(empty)} of {cells} cells hold no held-out image, so there is nothing to compare with",
            hint="give more held-out images, of the same kind as the training images, or fewer cells",
        )
    distances = [np.empty(len(ours), dtype=np.float32), np.empty(len(test), dtype=np.float32)]
    for cell in range(cells):
        points = sets[1][in_cell[1] == cell]
        for out, rows, where in zip(distances, (sets[0], sets[2]), (in_cell[0], in_cell[2]), strict=True):
            inside = where == cell
            if inside.any():
                out[inside] = nearest_rows(rows[inside], points).distance[:, 0]
    return CellDistances(in_cell[0], distances[0], in_cell[2], distances[1], cells)


def mann_whitney_z(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Z score of the Mann-Whitney U statistic: positive where ``x`` tends to be larger than ``y``.

    Formula, as in the authors' code: ``z = (U - n m / 2 + 1/2) / sqrt(n m (n + m + 1) / 12)`` where U counts
    the pairs with ``x > y`` (ties half); the deviation is not corrected for ties. NaN where a set is empty.

    Args:
        x: float ``[n]``.
        y: float ``[m]``.
    """
    n, m = len(x), len(y)
    if n == 0 or m == 0:
        return math.nan
    ordered = np.sort(y)
    larger = sum(float(np.searchsorted(ordered, x, side).sum()) / 2 for side in ("left", "right"))
    return (larger - n * m / 2 + 0.5) / math.sqrt(n * m * (n + m + 1) / 12)
