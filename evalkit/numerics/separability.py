"""Linear separability of attributes in a latent space: a support vector machine and what it leaves unsaid.

    result = separability(latents, logits, keep=0.5)
    score = math.exp(result.entropies.sum())

Source: Karras, Laine & Aila 2019, section 4.2 and appendix C. The published code fits scikit-learn's
``LinearSVC()``, which stops after 1000 sweeps, in high dimension short of its optimum; here the same
objective is solved to machine precision, so that the table does not depend on a solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, IndexArray, checked_features
from evalkit.numerics.linear_svm import SquaredHinge
from evalkit.numerics.resampling import HALVED, balanced_halves, block_edges


@dataclass(frozen=True, slots=True, eq=False)
class Separability:
    """What a linear boundary leaves open of each attribute.

    Attributes:
        entropies: ``[k]`` conditional entropies H(Y|X) in nats, one for each attribute.
        kept: rows that each fit saw.
        constant: attributes that take one value on the rows kept; they count as known, H = 0.
        wrong: rows kept on the wrong side of their hyperplane, over all attributes.
    """

    entropies: Float64Array
    kept: int
    constant: tuple[int, ...] = ()
    wrong: int = 0

    @property
    def score(self) -> float:
        """``exp(sum of entropies)``: 1 where every attribute is separated, at most 2^k."""
        return float(np.exp(self.entropies.sum()))


def conditional_entropy(table: NDArray[np.generic]) -> float:
    """Entropy of the column given the row, ``-sum p_xy ln(p_xy / p_x)``, in nats.

    Args:
        table: counts or weights ``[r, c]``, not negative, not all zero.

    Raises:
        InvalidInputError: not such a table.
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
        raise InvalidInputError("a conditional entropy needs a table of counts, not all of them zero")
    rows = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    filled = counts > 0
    joint, given = counts[filled], rows[filled]
    return float((joint * np.log(given / joint)).sum() / counts.sum())


def most_confident(logits: NDArray[np.floating], keep: float) -> IndexArray:
    """Return the rows with the largest ``|logit|``, a share ``keep`` (rounded down), surest first.

    The published code sorts by a float32 probability, where beyond |logit| = 8.3 all are equal and the
    first rows win; here the logit itself decides.
    """
    count = _share(len(logits), keep)
    return np.argsort(-np.abs(logits), kind="stable")[:count].astype(np.int64)


def separability(
    latents: NDArray[np.floating], logits: NDArray[np.floating], *, keep: float = 0.5, c: float = 1.0
) -> Separability:
    """Return how well a hyperplane in the latent space predicts each attribute.

    For each attribute, on the rows of which the classifier is surest: a linear SVM predicts from the latent
    whether the logit is at least 0; H(Y|X) is the entropy of the classifier's answer given the SVM's.

    Args:
        latents: float ``[n, d]``.
        logits: float ``[n, k]`` of k binary attributes.
        keep: share of the rows that each attribute keeps; half of them as published.
        c: weight of the hinge loss.

    Raises:
        InvalidInputError: wrong shapes, values that are not finite, or too few rows: with 2 (d + 1) or fewer
            kept, any labels are separable as likely as not (Cover 1965) and the score says nothing.
    """
    return separability_by_blocks(latents, logits, edges=(0, len(latents)), keep=keep, c=c)[0]


def separability_by_blocks(
    latents: NDArray[np.floating],
    logits: NDArray[np.floating],
    *,
    edges: Sequence[int],
    keep: float = 0.5,
    c: float = 1.0,
) -> tuple[Separability, tuple[Separability, ...]]:
    """Return :func:`separability` of all rows, and of the rows without each block, warm-started from all.

    Args:
        latents: float ``[n, d]``.
        logits: float ``[n, k]``.
        edges: ``[blocks + 1]`` first rows of the blocks, and n. Nothing is left out where there is one block
            only, or where too few rows would remain.
        keep: share of the rows that each attribute keeps.
        c: weight of the hinge loss.

    Raises:
        InvalidInputError: see :func:`separability`.
    """
    x, answers = _checked(latents, logits, keep)
    blocks = list(pairwise(edges)) if len(edges) > 2 else []
    largest = max((stop - start for start, stop in blocks), default=0)
    if _share(len(x) - largest, keep) < fewest_kept(x.shape[1]):
        blocks = []
    row = np.arange(len(x))
    results = _of_parts(x, answers, [(row < start) | (row >= stop) for start, stop in blocks], keep=keep, c=c)
    return results[0], results[1:]


def half_sample_variance(
    latents: NDArray[np.floating], logits: NDArray[np.floating], *, keep: float = 0.5, c: float = 1.0
) -> float | None:
    """Return the variance of ``ln score``, from the scores of balanced halves of the rows.

    Formula, over the 19 cuts of :func:`~evalkit.numerics.resampling.balanced_halves`, whose halves have the
    scores a and b: ``mean (ln a - ln b)^2 / 4``.

    Why not leave blocks out: the table counts rows, and rows next to the hyperplane change sides one by one
    as it moves. With that the score has a part of variance n^(-3/2) that is not smooth. A block of n / g rows
    moves the hyperplane sqrt(g) times less than sampling does, so that sqrt(g) times fewer rows change
    sides; times g - 1 the jackknife counts that part about sqrt(g) times. A half moves it as far as sampling
    does, and counts it once. (Shao & Wu 1989: what is not smooth needs a jackknife that leaves many out.)

    Args:
        latents: float ``[n, d]``, independent draws in any order.
        logits: float ``[n, k]``.
        keep: share of the rows that each attribute keeps.
        c: weight of the hinge loss.

    Returns:
        The variance, or None where a half has too few rows for the latent's dimensions.

    Raises:
        InvalidInputError: see :func:`separability`.
    """
    x, answers = _checked(latents, logits, keep)
    if len(x) < HALVED:
        return None
    cuts = [np.repeat(cut, np.diff(block_edges(len(x), HALVED))) for cut in balanced_halves()]
    halves = [half for cut in cuts for half in (cut, ~cut)]
    if _share(min(int(half.sum()) for half in halves), keep) < fewest_kept(x.shape[1]):
        return None
    logs = [float(part.entropies.sum()) for part in _of_parts(x, answers, halves, keep=keep, c=c)[1:]]
    return float(np.mean((np.array(logs[::2]) - np.array(logs[1::2])) ** 2)) / 4


def fewest_kept(dimension: int) -> int:
    """Fewest rows for which linear separability in ``dimension`` dimensions is not the rule (Cover 1965)."""
    return 2 * (dimension + 1) + 1


def _of_parts(
    x: FloatArray, answers: FloatArray, parts: Sequence[NDArray[np.bool_]], *, keep: float, c: float
) -> tuple[Separability, ...]:
    """Return the results of all rows, and of each part, bool ``[n]``."""
    chosen = [np.ones(len(x), dtype=np.bool_), *parts]
    entropies = np.empty((len(chosen), answers.shape[1]))
    wrong = [0] * len(chosen)
    constant: list[list[int]] = [[] for _ in chosen]
    for attribute, column in enumerate(answers.T):
        for position, table in enumerate(_tables(x, column, chosen, keep=keep, c=c)):
            if table is None:
                entropies[position, attribute] = 0.0
                constant[position].append(attribute)
                continue
            entropies[position, attribute] = conditional_entropy(table)
            wrong[position] += int(table[0, 1] + table[1, 0])
    return tuple(
        Separability(row, _share(int(part.sum()), keep), tuple(names), errors)
        for row, part, names, errors in zip(entropies, chosen, constant, wrong, strict=True)
    )


def _tables(
    x: FloatArray, logits: FloatArray, parts: Sequence[NDArray[np.bool_]], *, keep: float, c: float
) -> list[IndexArray | None]:
    """Counts [said, is] of each part, None where the attribute does not vary; the first starts the others."""
    positive = logits >= 0
    surest = most_confident(logits, 1.0)
    problem = SquaredHinge(x, positive, c=c)
    first: Float64Array | None = None
    found: list[IndexArray | None] = []
    for part in parts:
        rows = surest[part[surest]]
        rows = rows[: _share(len(rows), keep)]
        truth = positive[rows]
        if truth.all() or not truth.any():
            found.append(None)
            continue
        solution = problem.solve(np.isin(np.arange(len(x)), rows), start=first)
        if first is None:
            first = solution
        predicted = problem.decision(solution)[rows] > 0
        found.append(np.bincount(2 * predicted + truth, minlength=4).reshape(2, 2))
    return found


def _share(n: int, keep: float) -> int:
    # 0.29 * 100 is 28.999999999999996: round to a ten-thousandth of a row first, then down.
    return int(round(n * keep, 4))


def _checked(
    latents: NDArray[np.floating], logits: NDArray[np.floating], keep: float
) -> tuple[FloatArray, FloatArray]:
    if not 0 < keep <= 1:
        raise InvalidInputError(f"the share of rows to keep lies in (0, 1], not at {keep}")
    x = checked_features(latents, "latents", minimum=1)
    answers = checked_features(logits, "attribute logits", minimum=1)
    if len(x) != len(answers):
        raise InvalidInputError(f"there are {len(x)} latents and {len(answers)} rows of logits")
    fewest = fewest_kept(x.shape[1])
    if _share(len(x), keep) < fewest:
        needed = int(np.ceil(fewest / keep))
        raise InvalidInputError(
            f"linear separability in {x.shape[1]} dimensions needs at least {needed} latents, not {len(x)}",
            hint="with fewer, a hyperplane separates almost any labels and the score is 1 for every model",
        )
    return x, answers
