"""Metrics that are views of one expensive computation, such as precision and recall."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from evalkit.core import FeatureSet, Metric, ReferenceFeatures
from evalkit.spec import Score

Measured = TypeVar("Measured")


class SharedMetric(Metric, Generic[Measured]):
    """A metric in two steps: ``measure``, which metrics of equal ``computation`` share, and ``score``."""

    @property
    @abstractmethod
    def computation(self) -> tuple[object, ...]:
        """What ``measure`` does, with every parameter it reads; hashable."""

    @abstractmethod
    def measure(self, generated: FeatureSet, reference: ReferenceFeatures | None) -> Measured:
        """Do the expensive part."""

    def measure_together(
        self,
        others: Sequence[SharedMetric[Any]],  # noqa: ARG002 - for those that take others along
        generated: FeatureSet,
        reference: ReferenceFeatures | None,
    ) -> Mapping[tuple[object, ...], Measured]:
        """Do the expensive part, along with that of any ``others`` that the same pass over the data serves.

        Returns:
            What was measured, by ``computation``; at least this metric's.
        """
        return {self.computation: self.measure(generated, reference)}

    @abstractmethod
    def score(self, measured: Measured) -> Score:
        """Return this metric's view of what was measured."""

    def compute(
        self,
        generated: FeatureSet,
        reference: ReferenceFeatures | None,
        *,
        rng: np.random.Generator,  # noqa: ARG002 - nothing random is shared
    ) -> Score:
        """Return the score of ``generated`` against ``reference`` with its jackknife error bar."""
        return self.score(self.measure(generated, reference))
