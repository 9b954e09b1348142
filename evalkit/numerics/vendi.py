"""The Vendi score: the effective number of different images, with no reference.

    VS_q = exp(H_q(w)),  w the eigenvalues of K / n,  K_ij = cos(x_i, x_j)
    H_1  = -sum w log w                        von Neumann entropy (Friedman & Dieng 2023, definition 3.1)
    H_q  = log(sum w^q) / (1 - q)              Renyi entropy of order q (Pasarkar & Dieng 2024)
    H_inf = -log max w

``K / n = U U^T / n`` with unit rows U has the non-zero eigenvalues of ``U^T U / n``: the smaller of the two
is decomposed. The eigenvalues sum to one.

Accepted trade-offs: eigenvalues below ``eps min(n, d)`` of the largest are rounding and count as zero. For
orders well below 1, where ``w^q`` blows rounding up, this is what makes the score mean anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array
from evalkit.numerics.directions import unit_rows
from evalkit.numerics.linalg import symmetric_eigenvalues

EPSILON = float(np.finfo(np.float64).eps)
# Up to this many rows or dimensions all eigenvalues come sooner than a few by iteration: 10 000 rows of 1280
# dimensions took 14 s with 20 blocks on one core, and 64 eigenvalues by iteration 261 s.
EXACT_UP_TO = 2048
CONVERGED = 1e-10  # of an eigenvalue; the bounds hold to about this


@dataclass(frozen=True, slots=True)
class VendiScore:
    """The score between its proven bounds, which are equal where all eigenvalues are known."""

    value: float
    lower: float
    upper: float


def vendi_score(
    features: NDArray[np.generic],
    *,
    order: float = 1.0,
    rank: int = 0,
    rng: np.random.Generator | None = None,
) -> VendiScore:
    """Vendi score of all rows (formula in the module).

    Args:
        features: float ``[n, d]`` without rows of zeros.
        order: q > 0; ``math.inf`` is allowed.
        rank: number of eigenvalues to find; 0 for all of them (see :func:`vendi_scores`).
        rng: starts the iteration where ``rank`` is not 0.

    Returns:
        The score in 1..n.

    Raises:
        InvalidInputError: as :func:`vendi_scores`.
    """
    return vendi_scores([features], order=order, rank=rank, rng=rng)[0]


def vendi_scores(
    blocks: Sequence[NDArray[np.generic]],
    *,
    order: float = 1.0,
    rank: int = 0,
    rng: np.random.Generator | None = None,
) -> tuple[VendiScore, tuple[VendiScore, ...]]:
    """Vendi score of all rows, and exactly the same without each block.

    With ``rank`` r, and more than ``EXACT_UP_TO`` rows and dimensions, only the r largest eigenvalues are
    found (Lanczos). What is left of the mass one is spread as evenly and as unevenly over the others as their
    number and the r-th eigenvalue allow; entropies are Schur-concave, so the two give an upper and a lower
    bound (Marshall, Olkin & Arnold 2011, section 3.D). The score is then their geometric mean.

    Args:
        blocks: float ``[n_b, d]`` arrays without rows of zeros.
        order: q > 0; ``math.inf`` is allowed.
        rank: 0 for all eigenvalues, at the cost of a decomposition of size min(n, d) for each block.
            Where min(n, d) is at most ``EXACT_UP_TO``, all are found in any case: that is faster.
        rng: starts the iteration where ``rank`` is not 0.

    Returns:
        The score, and those without each block; the latter is empty where there is one block only.

    Raises:
        InvalidInputError: wrong shapes, no rows, rows of zeros, values that are not finite, an order that is
            not positive, a negative rank, or a rank without ``rng``.
    """
    _check(order, rank, rng)
    parts = [unit_rows(block, "generated features") for block in blocks]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    edges = list(pairwise((0, *accumulate(map(len, parts)))))
    kept = [np.r_[0:start, stop : len(rows)] for start, stop in edges] if len(parts) > 1 else []
    if rank and rng is not None and min(rows.shape) > max(rank, EXACT_UP_TO):
        start = rng.standard_normal(min(rows.shape))
        whole = _bounded(rows, order=order, rank=rank, start=start)
        return whole, tuple(_bounded(rows[k], order=order, rank=rank, start=start) for k in kept)
    wide = rows.shape[0] <= rows.shape[1]
    gram = rows @ rows.T if wide else rows.T @ rows
    without = []
    for (start, stop), keep in zip(edges, kept, strict=False):
        # Rows taken out of K; or, for more rows than dimensions, their part of the sum of outer products.
        rest = gram[np.ix_(keep, keep)] if wide else gram - rows[start:stop].T @ rows[start:stop]
        without.append(_exact(rest, len(keep), order))
    return _exact(gram, len(rows), order), tuple(without)


def effective_number(eigenvalues: NDArray[np.generic], *, order: float = 1.0) -> float:
    """Hill number of order q of eigenvalues that sum to one: ``exp(H_q)`` (formulas in the module).

    Args:
        eigenvalues: real ``[k]``; those at rounding level, also negative ones, count as zero.
        order: q > 0; ``math.inf`` is allowed.

    Raises:
        InvalidInputError: no positive eigenvalue, one that is not finite, or an order that is not positive.
    """
    _check(order, 0, None)
    w = np.asarray(eigenvalues, dtype=np.float64)
    if not np.isfinite(w).all() or not (w > 0).any():
        raise InvalidInputError("an effective number needs finite eigenvalues, and a positive one")
    w = w[w > EPSILON * len(w) * w.max()]
    if order == 1:
        entropy = -float((w * np.log(w)).sum())
    elif math.isinf(order):
        entropy = -math.log(float(w.max()))
    else:
        # The largest is taken out of the sum, which would underflow for high orders.
        top = float(w.max())
        entropy = (order * math.log(top) + math.log(float(((w / top) ** order).sum()))) / (1 - order)
    return max(1.0, math.exp(entropy))


def _check(order: float, rank: int, rng: np.random.Generator | None) -> None:
    if not order > 0:
        raise InvalidInputError(f"the order of a Vendi score must be positive, not {order}")
    if rank < 0 or (rank and rng is None):
        raise InvalidInputError(f"rank {rank}: 0, or a positive rank with a random generator")


def _exact(gram: Float64Array, count: int, order: float) -> VendiScore:
    value = effective_number(symmetric_eigenvalues(gram / count), order=order)
    return VendiScore(value, value, value)


def _bounded(rows: Float64Array, *, order: float, rank: int, start: Float64Array) -> VendiScore:
    """Score between the bounds that the ``rank`` largest eigenvalues leave."""
    count, size = len(rows), min(rows.shape)
    if rank >= size:  # a block less may leave fewer rows than that
        wide = rows.shape[0] <= rows.shape[1]
        return _exact(rows @ rows.T if wide else rows.T @ rows, count, order)
    small = rows if len(rows) == size else rows.T
    operator = LinearOperator((size, size), matvec=lambda v: small @ (small.T @ v) / count, dtype=np.float64)
    found = eigsh(operator, k=rank, v0=start[:size], tol=CONVERGED, return_eigenvectors=False)
    top = np.asarray(found, dtype=np.float64)
    left = max(0.0, 1.0 - float(top.sum()))
    even = np.full(size - rank, left / (size - rank))
    smallest = float(top.min())
    full = min(int(left / smallest), size - rank - 1) if smallest > 0 else 0
    uneven = np.append(np.full(full, smallest), left - full * smallest)
    lower = effective_number(np.concatenate([top, uneven]), order=order)
    upper = effective_number(np.concatenate([top, even]), order=order)
    return VendiScore(math.sqrt(lower * upper), lower, upper)
