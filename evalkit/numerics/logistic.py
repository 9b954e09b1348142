"""Multinomial logistic regression, and the rank that a classifier gives to the true class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from evalkit.errors import InvalidInputError
from evalkit.numerics.arrays import Float64Array, FloatArray, IndexArray, checked_features

_ROWS = 8192  # turned into float64 at a time


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Logits ``features @ weight.T + bias``: weight float64 ``[C, d]``, bias float64 ``[C]``."""

    weight: Float64Array
    bias: Float64Array

    def logits(self, features: NDArray[np.generic]) -> Float64Array:
        """Return float64 ``[n, C]`` logits of ``features`` ``[n, d]``."""
        return features.astype(np.float64) @ self.weight.T + self.bias


def fit_multinomial(
    features: NDArray[np.generic],
    labels: IndexArray,
    *,
    classes: int,
    penalty: float,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> LinearModel:
    """Fit a multinomial logistic regression by L-BFGS.

    Minimises ``mean_i -log softmax(W z_i + b)[y_i] + penalty / 2 |W|^2`` over ``W`` and ``b``, where z are
    the features standardised by their own mean and deviation (constant columns are left at zero); the model
    returned takes the features as they are. scikit-learn's ``C`` is ``1 / (n penalty)``.

    Args:
        features: float ``[n, d]``.
        labels: int64 ``[n]`` in 0..classes-1.
        classes: number of classes, at least 2.
        penalty: weight of the squared norm, at least 0; the biases are not penalised.
        iterations: at most so many steps.
        tolerance: ends where no entry of the gradient exceeds it.

    Raises:
        InvalidInputError: shapes, labels or penalty cannot be, or a feature is not finite.
    """
    x = checked_features(features, "features", minimum=2)
    check_labels(labels, count=len(x), classes=classes)
    if classes < 2 or penalty < 0:
        raise InvalidInputError(f"no regression on {classes} classes with penalty {penalty}")
    from scipy.optimize import minimize  # noqa: PLC0415 - 0.2 s that other metrics do not need

    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    width = x.shape[1]

    def objective(parameters: Float64Array) -> tuple[float, Float64Array]:
        table = parameters.reshape(classes, width + 1)
        weight = table[:, :-1]
        loss, gradient = _loss_and_gradient(
            x, labels, weight * inverse, table[:, -1] - weight @ (mean * inverse)
        )
        slope = np.empty_like(table)
        slope[:, -1] = gradient[:, -1]
        slope[:, :-1] = (gradient[:, :-1] - gradient[:, -1:] * mean) * inverse + penalty * weight
        return loss + penalty / 2 * float((weight**2).sum()), slope.ravel()

    found = minimize(
        objective,
        np.zeros(classes * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "maxfun": 2 * iterations, "gtol": tolerance, "ftol": 0.0},
    )
    table = np.asarray(found.x).reshape(classes, width + 1)
    weight = table[:, :-1] * inverse
    return LinearModel(weight, table[:, -1] - weight @ mean)


def _loss_and_gradient(
    x: FloatArray, labels: IndexArray, weight: Float64Array, bias: Float64Array
) -> tuple[float, Float64Array]:
    """Mean cross-entropy and its gradient ``[C, d + 1]`` by weights and, in the last column, biases."""
    total, gradient = 0.0, np.zeros((len(weight), x.shape[1] + 1))
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS].astype(np.float64)
        targets = labels[start : start + _ROWS]
        log_p = log_softmax(rows @ weight.T + bias, axis=1)
        each = np.arange(len(rows))
        total -= float(log_p[each, targets].sum())
        residual = np.exp(log_p)
        residual[each, targets] -= 1
        gradient[:, :-1] += residual.T @ rows
        gradient[:, -1] += residual.sum(axis=0)
    return total / len(x), gradient / len(x)


def true_class_rank(logits: NDArray[np.generic], labels: IndexArray) -> IndexArray:
    """Return how many classes a classifier puts before the true one; 0 where it is right.

    Of equal logits the class of the smaller number comes first, as in argmax.

    Args:
        logits: float ``[n, C]``.
        labels: int64 ``[n]`` in 0..C-1.

    Returns:
        int64 ``[n]`` in 0..C-1.

    Raises:
        InvalidInputError: shapes or labels cannot be, or a logit is not finite.
    """
    checked = checked_features(logits, "logits", minimum=1)
    check_labels(labels, count=len(checked), classes=checked.shape[1])
    own = checked[np.arange(len(checked)), labels][:, None]
    before = np.arange(checked.shape[1]) < labels[:, None]
    return np.asarray(((checked > own) | ((checked == own) & before)).sum(axis=1), dtype=np.int64)


def check_labels(labels: IndexArray, *, count: int, classes: int) -> None:
    """Check that there is one label in 0..classes-1 for each of ``count`` rows.

    Raises:
        InvalidInputError: there is not.
    """
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInputError(
            f"{count} rows need as many whole labels, not {labels.dtype} {list(labels.shape)}"
        )
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise InvalidInputError(
            f"labels reach from {labels.min()} to {labels.max()}, but there are {classes} classes",
            hint="are the labels of the images those that the classifier was trained on?",
        )
