"""Which samples are training images: nearest training row, authenticity, exact and near duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float32Array, Float64Array, IndexArray, checked_features, same_width
from evalkit.numerics.comparison import compare
from evalkit.numerics.distances import nearest_other_rows, nearest_rows
from evalkit.numerics.shares import Proportion, wilson_proportion

NEAR_QUANTILE = 0.01


def authentic_rows(generated: NDArray[np.generic], training: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether each generated row is authentic (Alaa et al. 2022, section 3.3): bool ``[n]``.

    With r the training row nearest to g: authentic exactly where ``|g - r| > min_{s != r} |r - s|``, that is
    where g lies farther from r than r's own nearest neighbour does.

    Args:
        generated: float ``[n, d]``.
        training: float ``[m, d]``, ``m >= 2``.

    Raises:
        InvalidInputError: wrong shapes, too few rows, or a value that is not finite.
    """
    return compare([generated], training, authentic=True).authentic


@dataclass(frozen=True, slots=True, eq=False)
class MemorisationTable:
    """One row for each generated row, in their order.

    Attributes:
        nearest: int64 ``[n]`` number of the nearest training row, from ``bank_index`` where that was given.
        distance: float32 ``[n]`` Euclidean distance to it; ``second_distance``: to the second nearest.
        own_distance: float32 ``[n]`` distance from that training row to its nearest other training row.
        exact: bool ``[n]`` the features equal that training row's bit for bit.
        near: bool ``[n]`` not equal, and ``distance <= threshold``.
        threshold: largest distance of a near duplicate; None where all training rows are duplicates.
        training_rows: number of training rows that were searched.
    """

    nearest: IndexArray
    distance: Float32Array
    second_distance: Float32Array
    own_distance: Float32Array
    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]
    threshold: float | None
    training_rows: int

    @property
    def ratio_to_second(self) -> Float64Array:
        """Nearest over second nearest distance, ``[n]`` in 0..1; near 0 where one row stands out."""
        return _ratio(self.distance, self.second_distance)

    @property
    def ratio_to_own(self) -> Float64Array:
        """Nearest distance over ``own_distance``, ``[n]``; a sample is authentic above 1."""
        return _ratio(self.distance, self.own_distance)

    @property
    def authentic(self) -> NDArray[np.bool_]:
        """Whether each sample is farther from its training row than that row's neighbour is, ``[n]``."""
        return np.asarray(self.distance > self.own_distance)

    def most_alike(self, count: int) -> IndexArray:
        """The ``count`` generated rows nearest to a training row: duplicates first, then by distance."""
        return np.lexsort((self.distance, ~self.exact))[:count].astype(np.int64)

    def summary(self) -> dict[str, Proportion]:
        """Counts with intervals: ``exact``, ``near`` and ``authentic`` samples."""
        flags = {"exact": self.exact, "near": self.near, "authentic": self.authentic}
        return {name: wilson_proportion(int(flag.sum()), len(flag)) for name, flag in flags.items()}


def memorisation_table(
    generated: NDArray[np.generic],
    training: NDArray[np.generic],
    bank_index: IndexArray | None = None,
    *,
    near_quantile: float = NEAR_QUANTILE,
) -> MemorisationTable:
    """Compare every generated row with all training rows.

    A *near duplicate* is no farther from a training row than the ``near_quantile`` closest pairs of training
    images are from each other: the threshold is that quantile of the distances between nearest training rows,
    over the rows that have no exact duplicate. Rows as close as that are expected of ``near_quantile`` of
    genuinely new images; more of them is memorisation.

    Args:
        generated: float ``[n, d]``.
        training: float ``[m, d]``, ``m >= 2``.
        bank_index: int64 ``[m]`` numbers to report for the training rows; their positions by default.
        near_quantile: between 0 and 1.

    Raises:
        InvalidInputError: wrong shapes, fewer than 2 training rows, a value that is not finite, or a
            quantile outside 0..1.
    """
    if not 0 < near_quantile < 1:
        raise InvalidInputError(
            f"the quantile of near duplicates lies between 0 and 1, not at {near_quantile}"
        )
    ours = checked_features(generated, "generated features", minimum=1)
    train = checked_features(training, "training features", minimum=2)
    same_width(ours, train)
    if bank_index is not None and len(bank_index) != len(train):
        raise InvalidInputError(f"{len(bank_index)} numbers for {len(train)} training rows")
    found = nearest_rows(ours, train, count=2)
    own = nearest_other_rows(train).distance[:, 0]
    rows, distance = found.index[:, 0], found.distance[:, 0]
    exact = np.array([np.array_equal(ours[i], train[row]) for i, row in enumerate(rows)], dtype=np.bool_)
    apart = own[own > 0]
    threshold = float(np.quantile(apart, near_quantile)) if len(apart) else None
    near = ~exact & (distance <= threshold) if threshold is not None else np.zeros_like(exact)
    return MemorisationTable(
        nearest=rows if bank_index is None else np.asarray(bank_index, dtype=np.int64)[rows],
        distance=distance,
        second_distance=found.distance[:, 1],
        own_distance=own[rows],
        exact=exact,
        near=near,
        threshold=threshold,
        training_rows=len(train),
    )


def _ratio(a: Float32Array, b: Float32Array) -> Float64Array:
    """``a / b`` in float64; 0 where both are 0, infinite where only ``b`` is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = a.astype(np.float64) / b
    ratio[np.isnan(ratio)] = 0.0
    return ratio
