"""Unit costs of the metrics: each group is computed on a smaller problem, by the code that a run uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.core import FeatureSet, Float64Array, Metric, ReferenceFeatures
from evalkit.costing.laws import LAWS, Size
from evalkit.errors import EvalkitError
from evalkit.metrics import compute_all

_CLASSES = 10
# Directions of very unequal variance, as features of networks have and benchmarks/neighbours.py measures on.
_DECAY = -0.35
_AGAIN_BELOW = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """Predicted cost of the metrics of one group on one head.

    Attributes:
        metrics: their names.
        size: of the whole problem; ``measured`` the one that was computed.
        seconds: predicted; None where the metrics could not be tried on made-up features.
        rate: multiply-adds a second that were measured.
        memory_bytes: beside the features.
    """

    group: str
    metrics: tuple[str, ...]
    size: Size
    measured: Size
    seconds: float | None
    rate: float | None
    memory_bytes: int


def group_costs(metrics: Iterable[Metric], size: Size) -> list[GroupCost]:
    """Return what the metrics of one head cost, group by group."""
    together: dict[str, list[Metric]] = {}
    for metric in metrics:
        together.setdefault(LAWS[metric.name].group, []).append(metric)
    return [_cost(group, members, size) for group, members in together.items()]


def _cost(group: str, members: Sequence[Metric], size: Size) -> GroupCost:
    # The one of a group that takes most stands for all: they share the pass.
    law = max((LAWS[metric.name] for metric in members), key=lambda law: law.work(size))
    small = law.smaller(size)
    seconds = _measured(members, small)
    rate = None if seconds is None else law.work(small) / seconds
    return GroupCost(
        group=group,
        metrics=tuple(metric.name for metric in members),
        size=size,
        measured=small,
        seconds=None if rate is None else law.work(size) / rate,
        rate=rate,
        memory_bytes=round(law.memory(size)),
    )


def _measured(members: Sequence[Metric], size: Size) -> float | None:
    """Seconds of one computation; of two where that is soon done, the shorter."""
    best: float | None = None
    for attempt in range(2):
        generated, reference = features(size, seed=2 * attempt), MadeUp(size, seed=2 * attempt + 1)
        start = time.perf_counter()
        try:
            compute_all(
                [(metric, generated, reference) for metric in members],
                rng=lambda: np.random.default_rng(0),
            )
        except EvalkitError:
            return None
        seconds = time.perf_counter() - start
        best = seconds if best is None else min(best, seconds)
        if best > _AGAIN_BELOW:
            break
    return best


def rows(n: int, d: int, *, seed: int) -> NDArray[np.float32]:
    """Return made-up features, float32 ``[n, d]``."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(1, d + 1) ** _DECAY).astype(np.float32)
    made: NDArray[np.float32] = rng.standard_normal((n, d), dtype=np.float32) * spread
    return made


def features(size: Size, *, seed: int) -> FeatureSet:
    """Return the generated side of a problem, in blocks and with labels."""
    made = rows(size.n, size.d, seed=seed)
    labels = np.arange(size.n, dtype=np.int64) % min(_CLASSES, max(size.d, 1))
    blocks = min(size.blocks, size.n)
    return FeatureSet(
        tuple(np.array_split(made, blocks)),
        labels=tuple(np.array_split(labels, blocks)),
        texts=tuple(np.array_split(rows(size.n, size.d, seed=seed + 100), blocks)),
    )


class MadeUp:
    """The reference side of a problem: made-up features and their moments."""

    def __init__(self, size: Size, *, seed: int) -> None:
        self.bank = rows(max(size.m, 2), size.d, seed=seed) + np.float32(0.02)
        self.count = len(self.bank)
        self.mean: Float64Array = self.bank.mean(axis=0, dtype=np.float64)
        # Of full rank however few rows there are, as the moments of a whole data set are.
        spread = np.arange(1, size.d + 1) ** (2 * _DECAY)
        self.covariance: Float64Array = np.diag(spread) + np.float64(1e-3)

    @property
    def groups(self) -> Mapping[int, ReferenceFeatures]:
        """The same moments for each class."""
        return dict.fromkeys(range(min(_CLASSES, self.bank.shape[1])), self)

    @property
    def held_out(self) -> ReferenceFeatures:
        """The same features."""
        return self
