"""Tiles of squared distances, and the few of their entries that are near enough to matter.

    |x_i - y_j|^2 = [x_i, |x_i|^2, 1] . [-2 y_j, 1, |y_j|^2]

so that one matrix product gives them, with no further pass over the tile. Of each tile one comparison picks
the candidates: entries that may lie within a bound of their row or of their column. These few are made exact
(by differences, where the product cancels), rounded to float32 and only then compared, as in
:mod:`evalkit.numerics.distances`. The bounds are a little too wide, never too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.numerics.arrays import Float32Array, Float64Array, FloatArray, IndexArray
from evalkit.numerics.distances import CANCELLATION, corrected

F = TypeVar("F", np.float32, np.float64)

ROWS, COLUMNS = 2048, 512  # of a tile: 8 MiB in float64
FORMED = 64  # rows that are centred at a time
# Passes are made over pieces that stay in a core's cache.
PIECE_ENTRIES = 1 << 17
# Panels of rows in a part of the work: what is made of the columns serves them all.
TOGETHER = 4
# A product of d-dimensional rows errs by less than d * 1e-16 of the squared norms: this holds to d = 10^7.
SLACK = 1e-8


class Candidates(NamedTuple):
    """Entries of a tile: int64 ``[h]`` rows and columns within it, float32 ``[h]`` distances."""

    rows: IndexArray
    columns: IndexArray
    distances: Float32Array


class Part(NamedTuple):
    """Tiles that one core works on: some columns with some panels of rows."""

    columns: slice
    rows: Sequence[slice]


def left_form(x: FloatArray, centre: Float64Array) -> Float64Array:
    """Return ``[x - centre, |x - centre|^2, 1]``, float64 ``[n, d + 2]``."""
    n, d = x.shape
    form = np.empty((n, d + 2))
    for rows in column_panels(n):
        part = form[rows]
        part[:, :d] = x[rows]
        part[:, :d] -= centre
        np.einsum("ij,ij->i", part[:, :d], part[:, :d], out=part[:, d])
        part[:, d + 1] = 1
    return form


def single_form(
    x: FloatArray, order: IndexArray | slice, centre: Float64Array
) -> tuple[Float32Array, Float64Array]:
    """Return ``x[order]`` in the left form rounded to float32, and the squared norms before that, float64."""
    rows = np.arange(len(x))[order]
    n, d = len(rows), x.shape[1]
    form, norms, wide = np.empty((n, d + 2), dtype=np.float32), np.empty(n), np.empty((FORMED, d))
    for part in panels(n, FORMED):
        centred = wide[: part.stop - part.start]
        centred[:] = x[rows[part]]
        centred -= centre
        np.einsum("ij,ij->i", centred, centred, out=norms[part])
        form[part, :d] = centred
    form[:, d] = norms
    form[:, d + 1] = 1
    return form, norms


def right_form(left: NDArray[F]) -> NDArray[F]:
    """Return ``[-2 y, 1, |y|^2]`` of rows in the left form."""
    form = np.multiply(left, left.dtype.type(-2))
    form[:, -2] = 1
    form[:, -1] = left[:, -2]
    return form


def panels(count: int, step: int) -> Iterator[slice]:
    """Cut ``count`` rows into slices of ``step``."""
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def row_panels(count: int) -> Iterator[slice]:
    """Cut the rows of a product into those of its tiles."""
    return panels(count, ROWS)


def column_panels(count: int) -> Iterator[slice]:
    """Cut the columns of a product into those of its tiles."""
    return panels(count, COLUMNS)


def together(rows: Iterable[slice]) -> Iterator[list[slice]]:
    """Put panels of rows together to those of the parts of the work."""
    every = list(rows)
    for several in panels(len(every), TOGETHER):
        yield every[several]


def parts_within(count: int) -> list[Part]:
    """Tiles on and above the diagonal of a product of ``count`` rows with themselves.

    The longest columns come first: no core is left alone with them at the end.
    """
    return [
        Part(columns, rows)
        for columns in reversed(list(column_panels(count)))
        for rows in together([columns, *row_panels(columns.start)])
    ]


def parts_across(count: int, others: int) -> list[Part]:
    """Tiles of a product of ``count`` rows with ``others``."""
    down = list(together(row_panels(count)))
    return [Part(columns, rows) for columns in column_panels(others) for rows in down]


def bound_of_at_most(distances: Float32Array, norms: Float64Array) -> Float64Array:
    """Bound on the product's entries that may round to ``distances`` or less.

    Args:
        distances: float32 ``[n]``, infinity included.
        norms: squared norms ``[n]`` of the points that they are measured from.
    """
    return _bound(rounding_interval(distances)[1], norms)


def bound_of_less_than(distances: Float32Array, norms: Float64Array) -> Float64Array:
    """Bound on the product's entries that may round to less than ``distances``; none is less than 0."""
    below = _bound(rounding_interval(distances)[0], norms)
    return np.asarray(np.where(distances > 0, below, -np.inf))


def bound_of_cancelled(norms: Float64Array) -> Float64Array:
    """Bound by row on all entries that lie below CANCELLATION times both squared norms.

    Rows so near to each other have squared norms within 1 % of each other.
    """
    return 2.1 * CANCELLATION * norms


def rounding_interval(distances: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return what rounds to these float32 numbers: from the middle below to the middle above, float64."""
    exact = distances.astype(np.float64)
    below, above = (np.nextafter(distances, np.float32(end)).astype(np.float64) for end in (0, np.inf))
    return (exact + below) / 2, (exact + above) / 2


def _bound(reach: Float64Array, norms: Float64Array) -> Float64Array:
    return np.asarray(reach**2 + SLACK * (norms + (np.sqrt(norms) + reach) ** 2))


def candidates(
    tile: Float64Array, x: Float64Array, y: Float64Array, *, rows: Float64Array, columns: Float64Array
) -> Candidates:
    """Return the entries of ``tile`` within the bound of their row or of their column, made exact.

    Args:
        tile: the product ``[n, m]``; what is returned is corrected in it.
        x: its rows in the left form ``[n, d + 2]``.
        y: its columns in the left form ``[m, d + 2]``.
        rows: bounds ``[n]``.
        columns: bounds ``[m]``.
    """
    width = tile.shape[1]
    found = []
    for piece in panels(len(tile), max(1, PIECE_ENTRIES // width)):
        near = tile[piece] <= rows[piece, None]
        near |= tile[piece] <= columns
        found.append(np.flatnonzero(near) + piece.start * width)
    flat = np.concatenate(found)
    i, j = np.divmod(flat, width)
    squared = corrected(tile[i, j], i, j, x, y)
    tile[i, j] = squared
    return Candidates(i, j, np.sqrt(squared).astype(np.float32))
