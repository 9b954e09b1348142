"""A linear support vector machine with squared hinge loss, solved to machine precision.

machine = linear_svm(x, positive)
predicted = x @ machine.weights + machine.intercept > 0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, checked_features

_ROWS = 4096  # rows converted to float64 at a time
_ITERATIONS = 200  # about ten are needed
_SETTLED = 1e-11  # a Newton step of this relative length changes no digit that matters
_ARMIJO = 1e-4  # sufficient decrease (Nocedal & Wright 2006, section 3.1)


@dataclass(frozen=True, slots=True, eq=False)
class LinearSVM:
    """The hyperplane ``x . weights + intercept = 0``; ``weights`` float64 ``[d]``."""

    weights: Float64Array
    intercept: float


def linear_svm(x: NDArray[np.floating], positive: NDArray[np.bool_], *, c: float = 1.0) -> LinearSVM:
    """Fit ``min_w,b (|w|^2 + b^2) / 2 + c sum_i max(0, 1 - y_i (w . x_i + b))^2``, y in {-1, 1}.

    The objective of scikit-learn's ``LinearSVC()`` (liblinear's L2-regularised L2-loss machine): the
    intercept is regularised too. It is strictly convex, so that the solution is one.

    Args:
        x: float ``[n, d]``.
        positive: bool ``[n]``, both values present.
        c: weight of the loss, above 0.

    Raises:
        InvalidInputError: wrong shapes, one class only, values that are not finite, or c <= 0.
    """
    rows = checked_features(x, "rows of a support vector machine", minimum=2)
    truth = np.asarray(positive, dtype=np.bool_)
    if truth.shape != (len(rows),):
        raise InvalidInputError(f"{len(rows)} rows need as many labels, not {truth.shape}")
    if truth.all() or not truth.any():
        raise InvalidInputError("a support vector machine needs rows of both classes")
    solution = SquaredHinge(rows, truth, c=c).solve(np.ones(len(rows), dtype=np.bool_))
    return LinearSVM(solution[:-1], float(solution[-1]))


class SquaredHinge:
    """The objective on any subset of fixed rows, minimised by Newton's method.

    Piecewise quadratic: with the rows inside the margin fixed, one step lands on the minimum, so that a few
    steps with a line search end at the exact solution (Mangasarian 2002; Keerthi & DeCoste 2005). The Hessian
    ``1 + 2 c sum_active x x^T`` is kept between steps and solves, and only corrected by the rows that
    entered or left: solving again for nearly the same rows costs a few passes over them.
    """

    def __init__(self, x: FloatArray, positive: NDArray[np.bool_], *, c: float) -> None:
        if not (np.isfinite(c) and c > 0):
            raise InvalidInputError(f"the weight of the hinge loss must be above 0, not {c}")
        self._x, self._c = x, c
        self._sign = np.where(positive, 1.0, -1.0)
        self._active = np.zeros(len(x), dtype=np.bool_)
        self._hessian = np.eye(x.shape[1] + 1)

    def decision(self, solution: Float64Array) -> Float64Array:
        """Return ``w . x_i + b``, float64 ``[n]``, of all rows; ``solution`` is w with b at its end."""
        out = np.full(len(self._x), solution[-1])
        for start in range(0, len(out), _ROWS):
            out[start : start + _ROWS] += self._x[start : start + _ROWS].astype(np.float64) @ solution[:-1]
        return out

    def solve(self, included: NDArray[np.bool_], *, start: Float64Array | None = None) -> Float64Array:
        """Return the minimiser over the ``included`` rows, w with b at its end, float64 ``[d + 1]``.

        Raises:
            InvalidInputError: the rows are so badly scaled that Newton's method does not settle.
        """
        solution = np.zeros(self._x.shape[1] + 1) if start is None else start.copy()
        slack = 1 - self._sign * self.decision(solution)
        for _ in range(_ITERATIONS):
            active = included & (slack > 0)
            self._follow(active)
            gradient = solution - 2 * self._c * self._sum(self._sign * slack, active)
            step = -cho_solve(cho_factor(self._hessian, lower=True, check_finite=False), gradient)
            change = -self._sign * self.decision(step)
            length = self._line_search(
                solution, step, slack=slack, change=change, included=included, slope=float(gradient @ step)
            )
            solution = solution + length * step
            slack = slack + length * change
            whole_step = length == 1.0
            if whole_step and np.array_equal(active, included & (slack > 0)):
                return solution
            if np.linalg.norm(step) <= _SETTLED * max(float(np.linalg.norm(solution)), _SETTLED):
                return solution
        raise InvalidInputError(
            "the support vector machine did not converge", hint="are the latents scaled to order one?"
        )

    def _line_search(
        self, solution: Float64Array, step: Float64Array, *, slack: Float64Array, change: Float64Array,
        included: NDArray[np.bool_], slope: float,
    ) -> float:  # fmt: skip
        """Halve the step until the objective falls enough; rounding of the objective is forgiven."""

        def objective(length: float) -> float:
            inside = np.maximum(slack[included] + length * change[included], 0)
            point = solution + length * step
            return float(point @ point) / 2 + self._c * float(inside @ inside)

        here, length = objective(0.0), 1.0
        while objective(length) > here + _ARMIJO * length * slope + 1e-14 * here and length > 1e-12:
            length /= 2
        return length

    def _follow(self, active: NDArray[np.bool_]) -> None:
        """Correct the Hessian for the rows that entered and left the margin."""
        for rows, factor in ((active & ~self._active, 2 * self._c), (self._active & ~active, -2 * self._c)):
            for part in _chunks(np.flatnonzero(rows)):
                x = np.column_stack([self._x[part].astype(np.float64), np.ones(len(part))])
                self._hessian += factor * (x.T @ x)
        self._active = active

    def _sum(self, values: Float64Array, rows: NDArray[np.bool_]) -> Float64Array:
        """Return ``sum_i values_i (x_i, 1)`` over ``rows``."""
        total = np.zeros(self._x.shape[1] + 1)
        for part in _chunks(np.flatnonzero(rows)):
            total[:-1] += values[part] @ self._x[part].astype(np.float64)
            total[-1] += values[part].sum()
        return total


def _chunks(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
