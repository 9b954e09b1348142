"""F score: the harmonic mean of precision and recall, from the same pass over nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from evalkit.core import About
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.precision_recall import COST, SHARES, SIZES, NeighbourMetric
from evalkit.numerics import ManifoldScores
from evalkit.spec import Spec


@METRICS.register("f-score")
@dataclass(frozen=True)
class FScore(NeighbourMetric):
    """Weighted harmonic mean of precision and recall, 0 where both are.

    Attributes:
        k: which neighbour gives the radius of a ball.
        inclusive: ``<=`` rather than ``<``.
        beta: recall counts ``beta`` times as much as precision.
    """

    name: ClassVar[str] = "f-score"
    title: ClassVar[str] = "F score"
    any_count: ClassVar[bool] = False
    about: ClassVar[About] = About(
        meaning="Precision and recall in one number, high only where both are: (1 + beta^2) P R / (beta^2 "
        "P + R). Low: implausible images, missing variety, or both.",
        values="0 to 1; 1 at identity. A perfect model has that of its precision and recall.",
        pitfalls="It hides which of the two is low. It is not the F8 and F1/8 of Sajjadi et al. 2018, "
        "which are read from another precision-recall curve, of clusters. " + SIZES,
        cost=COST,
        source="van Rijsbergen 1979, chapter 7, of the precision and recall of Kynkäänniemi et al. 2019",
    )
    laws: ClassVar[frozenset[str]] = SHARES | {"ranks_fidelity", "ranks_diversity"}

    k: int = 3
    inclusive: bool = True
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_weight(self.beta):
            raise UsageError(f"beta of {self.name} must be a positive number, not {self.beta}")

    @property
    def spec(self) -> Spec:
        """Name, neighbour, comparison and weight."""
        return Spec.of("metric", self.name, k=self.k, inclusive=self.inclusive, beta=self.beta)

    def view(self, scores: ManifoldScores) -> float:
        """Return the F score."""
        return f_score(scores.precision, scores.recall, beta=self.beta)


def _is_weight(beta: float) -> bool:
    return 0 < beta < math.inf


def f_score(precision: float, recall: float, *, beta: float = 1.0) -> float:
    """Return ``(1 + beta^2) P R / (beta^2 P + R)`` (van Rijsbergen 1979), 0 where P = R = 0.

    Raises:
        InvalidInputError: beta is not a positive number.
    """
    if not _is_weight(beta):
        raise InvalidInputError(f"beta must be a positive number, not {beta}")
    weight = beta**2
    below = weight * precision + recall
    return (1 + weight) * precision * recall / below if below else 0.0
