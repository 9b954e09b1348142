"""Metrics: pure functions from features to a score with an error bar. One file adds one.

    (score,) = compute_all([(METRICS["fd"](), features, reference)], rng=lambda: np.random.default_rng(0))

Every module of this package is imported, so that a class with ``@METRICS.register`` needs no second entry.
Names are generic (``fd``, ``kd``, ``is``): FID and KID are the labels of a protocol with the real Inception.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evalkit.core import FeatureSet, Metric, ReferenceFeatures
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError
from evalkit.metrics.shared import SharedMetric
from evalkit.registry import Registry
from evalkit.spec import Score

METRICS: Registry[type[Metric]] = Registry("metric")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METRICS", "SharedMetric", "compute_all"]

MetricInputs = tuple[Metric, FeatureSet, ReferenceFeatures | None]


def compute_all(
    inputs: Sequence[MetricInputs],
    *,
    rng: Callable[[], np.random.Generator],
    left_out: Callable[[Metric, EvalkitError], None] | None = None,
) -> tuple[Score | None, ...]:
    """Compute metrics, doing once what several of them share.

    Two entries share where they hold the same generated and reference objects and their
    :attr:`~evalkit.metrics.shared.SharedMetric.computation` is equal, or one pass over the data serves both
    (:meth:`~evalkit.metrics.shared.SharedMetric.measure_together`).

    Args:
        inputs: each metric with its generated features and its reference (None where it needs none).
        rng: makes a fresh generator for each metric, so that none depends on which others were asked for.
        left_out: told of a metric that these inputs cannot give; where None, its error is raised.

    Returns:
        Scores in the order of ``inputs``; None for one that was left out.

    Raises:
        InvalidInputError: too few images or features that are not finite.
        NothingMeasuredError: a metric needs a reference, or features that the reference does not hold.
    """
    measured: dict[tuple[object, ...], Any] = {}

    def score(metric: Metric, generated: FeatureSet, reference: ReferenceFeatures | None) -> Score:
        if not isinstance(metric, SharedMetric):
            return metric.compute(generated, reference, rng=rng())
        # Identity is safe as a key: ``inputs`` keeps both objects alive for the whole call.
        key = (*metric.computation, id(generated), id(reference))
        if key not in measured:
            others = [
                other
                for other, ours, theirs in inputs
                if isinstance(other, SharedMetric) and ours is generated and theirs is reference
            ]
            found = metric.measure_together(others, generated, reference)
            for computation, value in found.items():
                measured[*computation, id(generated), id(reference)] = value
        return metric.score(measured[key])

    scores: list[Score | None] = []
    for metric, generated, reference in inputs:
        try:
            scores.append(score(metric, generated, reference))
        except (InvalidInputError, NothingMeasuredError) as error:
            if left_out is None:
                raise
            left_out(metric, error)
            scores.append(None)
    return tuple(scores)
