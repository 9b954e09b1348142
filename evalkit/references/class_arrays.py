"""Moments by class as arrays of a reference file. No torch.

Arrays of each head that has them, classes ascending: ``<head>/class_labels`` and ``<head>/class_counts``
int64 ``[c]``, ``<head>/class_mean`` float64 ``[c, d]``, and ``<head>/class_covariance`` float64, the lower
triangles row by row, ``[c, d (d + 1) / 2]``.

Accepted trade-offs: the format stays ``evalkit.reference/1``. The arrays are additions that a reader may pass
over, so files from before them are read, and readers from before them read new files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.references.heads import HeadStatistics
from evalkit.references.statistics import TOLERANCE, checked_moments

if TYPE_CHECKING:
    from evalkit.core import Float64Array

LABELS, COUNTS, MEAN, COVARIANCE = "class_labels", "class_counts", "class_mean", "class_covariance"
Arrays = Mapping[str, NDArray[Any]]


def pack_symmetric(matrix: Float64Array) -> Float64Array:
    """Return the lower triangle of ``[d, d]``, row by row, as ``[d (d + 1) / 2]``."""
    return np.ascontiguousarray(matrix[np.tril_indices(len(matrix))], dtype=np.float64)


def unpack_symmetric(packed: Float64Array, dimension: int) -> Float64Array:
    """Return the symmetric ``[d, d]`` of :func:`pack_symmetric`, bit for bit."""
    matrix = np.empty((dimension, dimension), dtype=np.float64)
    start = 0
    for row in range(dimension):
        part = packed[start : start + row + 1]
        matrix[row, : row + 1] = part
        matrix[: row + 1, row] = part
        start += row + 1
    return matrix


def packed_size(dimension: int) -> int:
    """Bytes of the moments of one class of a head of ``dimension``."""
    return 8 * (dimension + dimension * (dimension + 1) // 2 + 2)


def encode_classes(name: str, head: HeadStatistics) -> dict[str, NDArray[Any]]:
    """Return the arrays of head ``name``'s classes; none where it has none."""
    if not head.classes:
        return {}
    parts = [head.classes[label] for label in sorted(head.classes)]
    return {
        f"{name}/{LABELS}": np.asarray(sorted(head.classes), dtype=np.int64),
        f"{name}/{COUNTS}": np.asarray([part.count for part in parts], dtype=np.int64),
        f"{name}/{MEAN}": np.asarray([part.mean for part in parts], dtype=np.float64),
        f"{name}/{COVARIANCE}": np.asarray([pack_symmetric(part.covariance) for part in parts]),
    }


def decode_classes(
    name: str, arrays: Arrays, *, whole: HeadStatistics, label: str
) -> dict[int, HeadStatistics]:
    """Return the classes of head ``name``, checked against the moments of the ``whole``; empty where none.

    Raises:
        InvalidInputError: an array is missing, of the wrong dtype or shape, or holds impossible statistics.
    """
    present = [part for part in (LABELS, COUNTS, MEAN, COVARIANCE) if f"{name}/{part}" in arrays]
    if not present:
        return {}
    labels = array_of(arrays, f"{name}/{LABELS}", dtypes=("int64",), label=label)
    counts = array_of(arrays, f"{name}/{COUNTS}", dtypes=("int64",), label=label)
    means = array_of(arrays, f"{name}/{MEAN}", dtypes=("float64",), label=label)
    packed = array_of(arrays, f"{name}/{COVARIANCE}", dtypes=("float64",), label=label)
    number, dimension = labels.size, whole.dimension
    expected = {
        LABELS: (labels, (number,)),
        COUNTS: (counts, (number,)),
        MEAN: (means, (number, dimension)),
        COVARIANCE: (packed, (number, dimension * (dimension + 1) // 2)),
    }
    for part, (array, shape) in expected.items():
        if array.shape != shape:
            raise InvalidInputError(f"{label}: {part!r} has shape {list(array.shape)}, not {list(shape)}")
    if labels[0] < 0 or (np.diff(labels) <= 0).any():
        raise InvalidInputError(f"{label}: the class labels do not ascend from 0 or more")
    if counts.min() < 2 or counts.sum() != whole.count:
        raise InvalidInputError(
            f"{label}: classes of {counts.min()} to {counts.max()} images do not make up {whole.count}"
        )
    classes: dict[int, HeadStatistics] = {}
    for row, number in enumerate(labels.tolist()):
        covariance = unpack_symmetric(packed[row], dimension)
        mean, covariance = checked_moments(means[row], covariance, label=f"{label}, class {number}")
        classes[number] = HeadStatistics(int(counts[row]), mean, covariance)
    _check_mean(counts, means, whole=whole, label=label)
    return classes


def array_of(arrays: Arrays, key: str, *, dtypes: tuple[str, ...], label: str) -> NDArray[Any]:
    """Return the array ``key``.

    Raises:
        InvalidInputError: it is missing, or its dtype is none of ``dtypes``.
    """
    if key not in arrays:
        raise InvalidInputError(f"{label}: {key!r} is missing")
    if arrays[key].dtype.name not in dtypes:
        raise InvalidInputError(f"{label}: {key!r} is {arrays[key].dtype}, not {' or '.join(dtypes)}")
    return arrays[key]


def _check_mean(counts: NDArray[Any], means: Float64Array, *, whole: HeadStatistics, label: str) -> None:
    # Classes of other images than the whole would give a plausible number that means nothing.
    mixed = counts @ means / counts.sum()
    scale = max(float(np.abs(whole.mean).max()), float(np.sqrt(np.diag(whole.covariance).max())))
    if float(np.abs(mixed - whole.mean).max()) > TOLERANCE * scale:
        raise InvalidInputError(f"{label}: the means of the classes do not make up the mean of all images")
