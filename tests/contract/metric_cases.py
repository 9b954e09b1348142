"""Small data for every registered metric: what each reads, so that one suite can prove the laws of all.

A metric without an entry reads features of images, like most.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from evalkit.core import FeatureSet
from evalkit.errors import NothingMeasuredError
from evalkit.metrics import METRICS
from evalkit.numerics import block_edges

WIDTH = 6
CLASSES = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Rows of one side, with the label and the text features of each."""

    rows: np.ndarray
    labels: np.ndarray
    texts: np.ndarray

    def take(self, index) -> Side:
        return Side(self.rows[index], self.labels[index], self.texts[index])

    def __len__(self) -> int:
        return len(self.rows)

    def in_blocks(self, blocks: int) -> FeatureSet:
        edges = list(itertools.pairwise(block_edges(len(self), blocks)))

        def cut(x):
            return tuple(x[i:j] for i, j in edges)

        return FeatureSet(cut(self.rows), labels=cut(self.labels), texts=cut(self.texts))


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The reference protocol over a side; the held-out part is another draw of the same kind."""

    side: Side
    other: Side | None = None

    @property
    def bank(self):
        return self.side.rows

    @property
    def count(self):
        return len(self.side)

    @property
    def mean(self):
        return self.bank.astype(np.float64).mean(axis=0)

    @property
    def covariance(self):
        return np.cov(self.bank.astype(np.float64), rowvar=False)

    @property
    def groups(self):
        labels = self.side.labels
        return {int(label): Reference(self.side.take(labels == label)) for label in np.unique(labels)}

    @property
    def held_out(self):
        if self.other is None:
            raise NothingMeasuredError("no held-out reference")
        return Reference(self.other)


Rows = Callable[[int, int, float], np.ndarray]


def features(seed: int, n: int, shift: float) -> np.ndarray:
    """Gaussian features; a shift of 0 is the reference's own law."""
    return (np.random.default_rng(seed).standard_normal((n, WIDTH)) + shift).astype(np.float32)


def confident_logits(seed: int, n: int, shift: float) -> np.ndarray:
    """Logits that get flatter with the shift: sharp and varied is good."""
    return features(seed, n, 0.0) * np.float32(20.0 / (1.0 + 100.0 * shift))


def right_logits(seed: int, n: int, shift: float) -> np.ndarray:
    """Logits whose largest is the image's label, less often as the shift grows."""
    logits = features(seed, n, 0.0)[:, :CLASSES]
    logits[np.arange(n), np.arange(n) % CLASSES] += np.float32(3.0 / (1.0 + 10.0 * shift))
    return logits


def matching(seed: int, n: int, shift: float) -> np.ndarray:
    """Image features that leave those of their texts as the shift grows."""
    return text_features(n) + np.float32(0.3 + shift) * features(seed, n, 0.0)


def text_features(n: int) -> np.ndarray:
    return np.random.default_rng(99).standard_normal((n, WIDTH)).astype(np.float32)


def column(*, start: float, slope: float) -> Rows:
    """Per-pair values that change with the shift."""

    def rows(seed: int, n: int, shift: float) -> np.ndarray:
        noise = 0.02 * np.random.default_rng(seed).random((n, 1))
        return (start + slope * shift + noise).astype(np.float32)

    return rows


def edits(seed: int, n: int, shift: float) -> np.ndarray:
    """Rows of the directional similarity: cosine, whether it is defined, image and text similarity."""
    cosine = np.clip(0.6 - 0.2 * shift + 0.1 * features(seed, n, 0.0)[:, :1], -1, 1)
    rest = np.tile(np.float32([1.0, 0.8, 0.7]), (n, 1))
    return np.concatenate([cosine, rest], axis=1).astype(np.float32)


def separable(seed: int, n: int, shift: float) -> np.ndarray:
    """Latents and one attribute logit, linear in the latent but for noise that grows with the shift."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 3))
    logit = latent[:, :1] + (0.5 + 2 * shift) * rng.standard_normal((n, 1))
    return np.concatenate([latent, logit], axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """How a metric is fed.

    Attributes:
        rows: ``(seed, n, shift) -> rows``; a larger shift is worse, 0 is the reference's law.
        params: parameters that small data need.
        n: images of the small sets.
        exact_blocks: whether leaving a block out gives exactly the metric of the rest; where not, ``why``.
    """

    rows: Rows = features
    params: dict = dataclasses.field(default_factory=dict)
    n: int = 60
    exact_blocks: bool = True
    why: str = ""


CASES = {
    "ct": Case(params={"more_than": 5}),
    "fd-infinity": Case(exact_blocks=False, why="the block leaves each subset, which are not drawn anew"),
    "is": Case(rows=confident_logits),
    "accuracy": Case(rows=right_logits),
    "clip-score": Case(rows=matching),
    "clip-directional": Case(rows=edits),
    "psnr": Case(rows=column(start=30.0, slope=-3.0)),
    "ssim": Case(rows=column(start=0.9, slope=-0.1)),
    "ms-ssim": Case(rows=column(start=0.9, slope=-0.1)),
    "lpips": Case(rows=column(start=0.1, slope=0.1)),
    "pd": Case(rows=column(start=0.1, slope=0.1)),
    "style": Case(rows=column(start=0.1, slope=0.1)),
    "ppl": Case(rows=column(start=1.0, slope=10.0), n=240),
    "separability": Case(rows=separable, params={"space": "w", "attributes": 1}, n=240),
}
PLAIN = Case()


def case(name: str) -> Case:
    return CASES.get(name, PLAIN)


def side(name: str, seed: int, *, n: int | None = None, shift: float = 0.3) -> Side:
    count = case(name).n if n is None else n
    rows = case(name).rows(seed, count, shift)
    return Side(rows, np.arange(count) % CLASSES, text_features(count))


def reference(name: str, seed: int, *, n: int = 70, shift: float = 0.0) -> Reference:
    return Reference(side(name, seed, n=n, shift=shift), side(name, seed + 1000, n=n, shift=shift))


def compute(name: str, generated: Side, real: Reference | None, *, blocks: int = 6, **params):
    metric = METRICS[name](**{**case(name).params, **params})
    return metric.compute(generated.in_blocks(blocks), real, rng=np.random.default_rng(0))
