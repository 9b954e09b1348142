"""What a reader needs to know of a metric, as plain frozen facts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.spec import Better, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """A registered metric, for lists and for the page that explains it.

    Attributes:
        reads: what its rows are made from: images, pairs, paths or latents.
        needs: what it needs beside them (``reference features``, ``labels``, ``prompts`` …).
        minimum: fewest generated images, in words, with the metric's default parameters.
        parameters: names and defaults; each is part of the fingerprint.
        protocols: protocols that compute it unasked.
        named: published names that stand for it (``cmmd``), with what each reads.
        meaning: and the four that follow: see :class:`evalkit.core.About`.
    """

    name: str
    title: str
    better: Better
    reads: str
    needs: tuple[str, ...]
    minimum: str
    parameters: Mapping[str, Scalar]
    protocols: tuple[str, ...]
    named: Mapping[str, str]
    meaning: str
    values: str
    pitfalls: str
    cost: str
    source: str
