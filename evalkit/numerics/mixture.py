"""Mixtures of isotropic Gaussians on given centres, whose bandwidths are fitted to other rows.

    p(x) = 1/n sum_j N(x; g_j, sigma_j^2 I)                       (Jiralerspong et al. 2023, section 3)

Only the bandwidths are fitted, by the schedule of the authors' package (``fld``): Adam with rate 0.5, 50
epochs in batches of 10 000, from the best bandwidth for the nearest row. It stops before convergence, so
that the schedule is part of the number; ours runs in float64.

During the fit only, one more component of weight 1 stands near the mean of the rows: every row keeps some
likelihood, and no component is stretched to reach rows that no centre covers.

Memory: a tile of ``TILE_ENTRIES`` distances (twice), and the squared distances themselves where they take
at most ``CACHE_ENTRIES`` (1 GiB); beyond that each epoch computes them anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.distances import squared_distances, tile_rows

RATE, EPOCHS, BATCH = 0.5, 50, 10_000
MOMENTUM, SECOND_MOMENTUM, STABILITY = 0.9, 0.999, 1e-8  # Adam's defaults
SMALLEST_LOG, LARGEST_LOG = -40.0, 20.0
FLOOR = 1e-3  # added to the squared distance that a bandwidth starts from
BACKGROUND_PULL = (1 - 0.1) ** 2  # the background component stands a tenth of the way to each row
CACHE_ENTRIES = 1 << 27
PIECE_ENTRIES = 1 << 16
# A density e^-50 below the greatest one of its row adds 2e-22 of it: nothing, even ten thousand times.
NEGLIGIBLE = -50.0


@dataclass(slots=True, eq=False)
class Squares:
    """Squared distances of ``rows`` ``[m, d]`` to ``centres`` ``[n, d]`` by tiles, kept where they fit."""

    rows: Float64Array
    centres: Float64Array
    _kept: dict[tuple[int, int], Float64Array] = field(default_factory=dict)

    def tiles(self, start: int, stop: int) -> Iterator[tuple[slice, Float64Array]]:
        """Yield ``(rows, squares [rows, n])`` of the rows from ``start`` to ``stop``; not to be changed."""
        step = tile_rows(len(self.centres))
        keep = len(self.rows) * len(self.centres) <= CACHE_ENTRIES
        for first in range(start, stop, step):
            part = slice(first, min(first + step, stop))
            squares = self._kept.get((part.start, part.stop))
            if squares is None:
                squares = squared_distances(self.rows[part], self.centres)
                if keep:
                    self._kept[part.start, part.stop] = squares
            # In pieces that stay in the processor's cache through the handful of passes made over them.
            piece = max(1, PIECE_ENTRIES // len(self.centres))
            for row in range(0, len(squares), piece):
                inside = squares[row : row + piece]
                yield slice(first + row, first + row + len(inside)), inside


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Isotropic Gaussians of equal weight.

    Attributes:
        centres: float64 ``[n, d]``.
        log_variances: float64 ``[n]``.
    """

    centres: Float64Array
    log_variances: Float64Array

    def negative_log_likelihood(self, rows: Float64Array) -> float:
        """Mean of ``-log p(x) / d`` over ``rows`` ``[m, d]``, in nats a dimension."""
        total = 0.0
        for _, squares in Squares(rows, self.centres).tiles(0, len(rows)):
            total -= float(_log_sum(log_densities(squares, self.log_variances, rows.shape[1])).sum())
        return float((total / len(rows) + math.log(len(self.centres))) / rows.shape[1])

    def negative_log_likelihood_without(self, rows: Float64Array, edges: Sequence[int]) -> Float64Array:
        """The same without the components of each block, ``[b]``, whose ``edges`` ``[b + 1]`` are given.

        At least one component remains without any block.
        """
        counts = np.diff(edges)
        totals = np.zeros(len(counts))
        for _, squares in Squares(rows, self.centres).tiles(0, len(rows)):
            logs = log_densities(squares, self.log_variances, rows.shape[1])
            parts = np.stack([_log_sum(logs[:, i:j]) for i, j in pairwise(edges)], axis=1)
            for block in range(len(counts)):
                # Summed over the others rather than subtracted: the block may hold nearly all of it.
                totals[block] -= float(_log_sum(np.delete(parts, block, axis=1)).sum())
        left = len(self.centres) - counts
        return np.asarray((totals / len(rows) + np.log(left)) / rows.shape[1])


def _log_sum(logs: Float64Array) -> Float64Array:
    """``log sum_j exp(logs_ij)`` ``[m]``."""
    top = logs.max(axis=1)
    return np.asarray(np.log(np.exp(logs - top[:, None]).sum(axis=1)) + top, dtype=np.float64)


def log_densities(squares: Float64Array, log_variances: Float64Array, dimension: int) -> Float64Array:
    """``log N(x_i; g_j, sigma_j^2 I)`` ``[m, n]`` from squared distances and ``log sigma_j^2`` ``[n]``."""
    logs: Float64Array = squares * (-0.5 * np.exp(-log_variances))
    logs -= 0.5 * dimension * (log_variances + math.log(2 * math.pi))
    return logs


def fitted_mixture(centres: Float64Array, rows: Float64Array) -> Mixture:
    """Fit the bandwidths of a mixture on ``centres`` ``[n, d]`` to ``rows`` ``[m, d]`` (see the module).

    Batches are taken in the order of ``rows``; up to 10 000 rows are one batch, and their order is nothing.
    """
    fit = Fit(Squares(rows, centres), np.square(rows - rows.mean(axis=0)).sum(axis=1))
    for _ in range(EPOCHS):
        for start, stop in batches(len(rows)):
            fit.step(start, stop)
    return Mixture(centres, fit.parameters[:-1])


def batches(count: int) -> list[tuple[int, int]]:
    """Edges of the batches of an epoch."""
    return [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


@dataclass(slots=True, eq=False)
class Fit:
    """The state of Adam over the log variances ``[n]`` and, last, that of the background component."""

    squares: Squares
    background: Float64Array  # [m] squared distances to the mean of the rows
    parameters: Float64Array = field(init=False)
    first: Float64Array = field(init=False)
    second: Float64Array = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        rows, centres = self.squares.rows, self.squares.centres
        nearest = np.full(len(centres), np.inf)
        for start, stop in batches(len(rows)):  # the tiles of the steps to come, so that they are kept once
            for _, squares in self.squares.tiles(start, stop):
                np.minimum(nearest, squares.min(axis=0), out=nearest)
        self.parameters = np.append(np.log((nearest + FLOOR) / rows.shape[1]), 0.0)
        self.first = np.zeros_like(self.parameters)
        self.second = np.zeros_like(self.parameters)

    def step(self, start: int, stop: int) -> None:
        """One step of Adam on the rows from ``start`` to ``stop``."""
        self.steps += 1
        gradient = self.gradient(start, stop)
        self.first += (1 - MOMENTUM) * (gradient - self.first)
        self.second += (1 - SECOND_MOMENTUM) * (gradient**2 - self.second)
        rate = RATE / (1 - MOMENTUM**self.steps)
        scale = np.sqrt(self.second / (1 - SECOND_MOMENTUM**self.steps)) + STABILITY
        self.parameters -= rate * self.first / scale
        # The background component is free, as it is in the authors' package.
        np.clip(self.parameters[:-1], SMALLEST_LOG, LARGEST_LOG, out=self.parameters[:-1])

    def gradient(self, start: int, stop: int) -> Float64Array:
        """Gradient ``[n + 1]`` of the mean negative log-likelihood a dimension, background included.

        With responsibilities r and squared distances D: ``sum_i r_ij (d - D_ij / sigma_j^2) / (2 d m)``.
        """
        dimension = self.squares.rows.shape[1]
        log_variances, last = self.parameters[:-1], float(self.parameters[-1])
        weight, spread = np.zeros_like(self.parameters), np.zeros_like(self.parameters)
        for part, squares in self.squares.tiles(start, stop):
            logs = log_densities(squares, log_variances, dimension)
            logs -= math.log(len(log_variances))
            far = BACKGROUND_PULL * self.background[part]
            alone = log_densities(far[:, None], np.array([last]), dimension)[:, 0]
            top = np.maximum(logs.max(axis=1), alone)
            row, column = np.nonzero(logs > (top + NEGLIGIBLE)[:, None])
            share = np.exp(logs[row, column] - top[row])
            alone = np.exp(alone - top)
            total = np.bincount(row, share, minlength=len(top)) + alone
            share /= total[row]
            weight[:-1] += np.bincount(column, share, minlength=len(log_variances))
            spread[:-1] += np.bincount(column, share * squares[row, column], minlength=len(log_variances))
            weight[-1] += (alone / total).sum()
            spread[-1] += (alone / total * far).sum()
        scale = 2 * dimension * (stop - start)
        return np.asarray((dimension * weight - spread * np.exp(-self.parameters)) / scale)
