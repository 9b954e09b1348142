"""Inception score from logits.

    IS = exp( E_x KL( p(y|x) || p(y) ) ) = exp( mean_x sum_y p log p  -  sum_y q log q ),   q = mean_x p
                                                                        (Salimans et al. 2016, section 4)

The second form needs only sums over images, so that states merge, and stays finite where a class has
probability zero. Probabilities are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, IndexArray, checked_features

ROWS = 4096  # logits turned into float64 probabilities at a time


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """Mean and standard deviation (ddof 0) over splits; the deviation is not a standard error."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Sums over images of their class probabilities.

    Attributes:
        count: number of images.
        probabilities: float64 ``[classes]``, sum of p.
        negative_entropy: sum over images and classes of p log p, in nats.
    """

    count: int
    probabilities: Float64Array
    negative_entropy: float

    def score(self) -> float:
        """Return the inception score over these images, in 1..classes.

        Raises:
            InvalidInputError: there are no images.
        """
        if self.count < 1:
            raise InvalidInputError("an inception score needs at least one image")
        marginal = self.probabilities / self.count
        from scipy.special import xlogy  # noqa: PLC0415 - 0.2 s that other metrics do not need

        return math.exp(self.negative_entropy / self.count - float(xlogy(marginal, marginal).sum()))


def class_sums(logits: NDArray[np.generic]) -> ClassSums:
    """Sum softmax probabilities over images.

    Args:
        logits: float ``[n, classes]``.

    Raises:
        InvalidInputError: wrong shape, no rows, or a value that is not finite.
    """
    checked = checked_features(logits, "logits", minimum=1)
    return _grouped_sums(checked, [np.arange(len(checked), dtype=np.int64)])[0]


def inception_score(
    logits: NDArray[np.generic],
    splits: int = 10,
    *,
    chunk: int | None = None,
    shuffle_seed: int | None = None,
) -> InceptionScore:
    """Inception score over contiguous splits ``i * n // splits``, or over chunks of fixed length.

    Args:
        logits: float ``[n, classes]``, without bias where the protocol says so.
        splits: number of splits; ignored where ``chunk`` is given.
        chunk: images in each chunk, the last one being shorter (5000 in the ADM evaluator).
        shuffle_seed: permute the images first, as torch-fidelity does (with 2020); None keeps their order.

    Returns:
        Mean and standard deviation over splits, in 1..classes.

    Raises:
        InvalidInputError: wrong shape, fewer images than splits, or a value that is not finite.
    """
    checked = checked_features(logits, "logits", minimum=1)
    order = shuffled(len(checked), shuffle_seed)
    groups = _groups(order, splits, chunk)
    return _summary(sums.score() for sums in _grouped_sums(checked, groups))


def inception_score_blocks(
    logits: NDArray[np.generic],
    sizes: tuple[int, ...],
    *,
    splits: int = 10,
    chunk: int | None = None,
    shuffle_seed: int | None = None,
) -> tuple[InceptionScore, tuple[InceptionScore, ...]]:
    """Inception score, and the same protocol applied without each block of images.

    All groups of all variants are summed in one pass over the logits.

    Args:
        logits: float ``[n, classes]``, block after block.
        sizes: images in each block, with sum n; empty for no leave-one-out values.
        splits: as :func:`inception_score`.
        chunk: as :func:`inception_score`.
        shuffle_seed: as :func:`inception_score`; without a block, the others keep their shuffled order.

    Raises:
        InvalidInputError: as :func:`inception_score`; also where too few images are left without a block.
    """
    checked = checked_features(logits, "logits", minimum=1)
    if sizes and sum(sizes) != len(checked):
        raise InvalidInputError(f"blocks of {sum(sizes)} images do not fit {len(checked)} logits")
    order = shuffled(len(checked), shuffle_seed)
    orders = [order]
    if sizes:
        block_of = np.repeat(np.arange(len(sizes)), sizes)[order]
        orders += [order[block_of != block] for block in range(len(sizes))]
    variants = [_groups(kept, splits, chunk) for kept in orders]
    scores = iter([sums.score() for sums in _grouped_sums(checked, [g for v in variants for g in v])])
    results = [_summary(next(scores) for _ in variant) for variant in variants]
    return results[0], tuple(results[1:])


def shuffled(n: int, seed: int | None) -> IndexArray:
    """Order of n images: 0..n-1, or the permutation of numpy's legacy generator that torch-fidelity uses."""
    if seed is None:
        return np.arange(n, dtype=np.int64)
    return np.asarray(np.random.RandomState(seed).permutation(n), dtype=np.int64)


def _groups(order: IndexArray, splits: int, chunk: int | None) -> list[IndexArray]:
    count = len(order)
    if chunk is not None:
        if chunk < 1 or count < 1:
            raise InvalidInputError(f"{count} images cannot be cut into chunks of {chunk}")
        return [order[start : start + chunk] for start in range(0, count, chunk)]
    if splits < 1 or count < splits:
        raise InvalidInputError(
            f"{count} images cannot be cut into {splits} splits; give at least one to each"
        )
    return [order[i * count // splits : (i + 1) * count // splits] for i in range(splits)]


def _grouped_sums(logits: FloatArray, groups: list[IndexArray]) -> list[ClassSums]:
    """Sum over each (possibly overlapping) group of rows as one matrix product, a chunk of rows at a time."""
    from scipy.special import log_softmax  # noqa: PLC0415 - as above

    count, classes = logits.shape
    member = np.zeros((len(groups), count), dtype=np.bool_)
    for i, group in enumerate(groups):
        member[i, group] = True
    sums = np.zeros((len(groups), classes))
    entropies = np.zeros(len(groups))
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        log_p = log_softmax(logits[rows].astype(np.float64), axis=1)
        p = np.exp(log_p)
        weights = member[:, rows].astype(np.float64)
        sums += weights @ p
        entropies += weights @ (p * log_p).sum(axis=1)
    return [
        ClassSums(len(group), row, float(entropy))
        for group, row, entropy in zip(groups, sums, entropies, strict=True)
    ]


def _summary(scores: Iterable[float]) -> InceptionScore:
    values = np.asarray(list(scores))
    return InceptionScore(mean=float(values.mean()), std=float(values.std()))
