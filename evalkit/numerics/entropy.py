"""Inception score from logits.

    IS = exp( E_x KL( p(y|x) || p(y) ) ) = exp( mean_x sum_y p log p  -  sum_y q log q ),   q = mean_x p
                                                                        (Salimans et al. 2016, section 4)

The second form needs only sums over images, so that states merge, and stays finite where a class has
probability zero. Probabilities are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, IndexArray, checked_features
from evalkit.numerics.blocks import LazyBlocks, chunks_of, sizes_of

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
    blocks = [checked_features(logits, "logits", minimum=1)]
    everything = _Groups.of(np.arange(len(blocks[0])), splits=1, chunk=None)
    return _grouped_sums(chunks_of(blocks, [0], rows=ROWS), [everything])[0]


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
    return inception_score_blocks(logits, (), splits=splits, chunk=chunk, shuffle_seed=shuffle_seed)[0]


def inception_score_blocks(
    logits: NDArray[np.generic] | LazyBlocks,
    sizes: tuple[int, ...],
    *,
    splits: int = 10,
    chunk: int | None = None,
    shuffle_seed: int | None = None,
) -> tuple[InceptionScore, tuple[InceptionScore, ...]]:
    """Inception score, and the same protocol applied without each block of images.

    All groups of all variants are summed in one pass over the logits, of which a few rows are in memory; an
    image costs a byte or two for each variant, and 8 for the order.

    Args:
        logits: float ``[n, classes]``, block after block; or blocks that are read piece by piece.
        sizes: images in each block, with sum n; empty for no leave-one-out values.
        splits: as :func:`inception_score`.
        chunk: as :func:`inception_score`.
        shuffle_seed: as :func:`inception_score`; without a block, the others keep their shuffled order.

    Raises:
        InvalidInputError: as :func:`inception_score`; also where too few images are left without a block.
    """
    blocks: Sequence[FloatArray]
    blocks = logits if isinstance(logits, LazyBlocks) else [checked_features(logits, "logits", minimum=1)]
    count = sum(sizes_of(blocks))
    if sizes and sum(sizes) != count:
        raise InvalidInputError(f"blocks of {sum(sizes)} images do not fit {count} logits")
    order = shuffled(count, shuffle_seed)
    variants = [_Groups.of(order, splits=splits, chunk=chunk)]
    block_of = np.repeat(np.arange(len(sizes)), sizes)[order] if sizes else order
    kept = (order[block_of != block] for block in range(len(sizes)))
    variants += [_Groups.of(rest, splits=splits, chunk=chunk, count=count) for rest in kept]
    chunks = chunks_of(blocks, range(len(blocks)), rows=ROWS)
    scores = iter([sums.score() for sums in _grouped_sums(chunks, variants)])
    results = [_summary(next(scores) for _ in variant.sizes) for variant in variants]
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


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Disjoint groups of rows: integers ``[n]`` tell the group of each row, -1 for none."""

    number: NDArray[np.signedinteger]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, order: IndexArray, *, splits: int, chunk: int | None, count: int | None = None) -> _Groups:
        """Cut the rows ``order`` of ``count`` ones (of those alone where it is None) into groups."""
        groups = _groups(order, splits, chunk)
        number = np.full(len(order) if count is None else count, -1, np.min_scalar_type(-len(groups) - 1))
        for i, group in enumerate(groups):
            number[group] = i
        return cls(number, tuple(map(len, groups)))

    def members(self, rows: slice) -> NDArray[np.bool_]:
        """Whether each of some rows is in each group, bool ``[groups, rows]``."""
        return np.asarray(self.number[rows] == np.arange(len(self.sizes))[:, None], dtype=np.bool_)


def _grouped_sums(chunks: Iterable[FloatArray], variants: Sequence[_Groups]) -> list[ClassSums]:
    """Sum over each group of each variant as one matrix product, a chunk of rows at a time."""
    from scipy.special import log_softmax  # noqa: PLC0415 - as above

    sizes = [size for variant in variants for size in variant.sizes]
    sums: Float64Array | float = 0.0
    entropies = np.zeros(len(sizes))
    start = 0
    for logits in chunks:
        rows = slice(start, start + len(logits))
        start += len(logits)
        log_p = log_softmax(checked_features(logits, "logits", minimum=1).astype(np.float64), axis=1)
        p = np.exp(log_p)
        weights = np.concatenate([variant.members(rows) for variant in variants]).astype(np.float64)
        sums = sums + weights @ p
        entropies += weights @ (p * log_p).sum(axis=1)
    return [
        ClassSums(size, row, float(entropy))
        for size, row, entropy in zip(sizes, np.asarray(sums), entropies, strict=True)
    ]


def _summary(scores: Iterable[float]) -> InceptionScore:
    values = np.asarray(list(scores))
    return InceptionScore(mean=float(values.mean()), std=float(values.std()))
