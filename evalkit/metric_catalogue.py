"""The facts of every registered metric, gathered from its class."""

from __future__ import annotations

from dataclasses import asdict

from evalkit.core import Metric
from evalkit.metric_facts import MetricFacts
from evalkit.metrics import METRICS
from evalkit.protocol import PROTOCOLS
from evalkit.selection import NAMED

_NEEDS = (
    ("needs_reference", "reference"),
    ("needs_bank", "reference features"),
    ("needs_groups", "reference by class"),
    ("needs_held_out", "held-out reference"),
    ("needs_labels", "labels"),
    ("needs_prompts", "prompts"),
)


def metric_facts() -> list[MetricFacts]:
    """Return the facts of every metric, by name."""
    return [_facts(name, METRICS[name]) for name in METRICS]


def _needs(kind: type[Metric]) -> tuple[str, ...]:
    words = [word for flag, word in _NEEDS if getattr(kind, flag)]
    more_than_moments = kind.needs_bank or kind.needs_groups
    return tuple(word for word in words if word != "reference" or not more_than_moments)


def _minimum(metric: Metric) -> str:
    dimension = 1000
    most = metric.minimum_for(dimension)
    return str(metric.minimum_images) if most < dimension else f"{most // dimension} a dimension"


def _facts(name: str, kind: type[Metric]) -> MetricFacts:
    metric = kind()
    return MetricFacts(
        name=name,
        title=kind.title,
        better=kind.better,
        reads=kind.reads,
        needs=_needs(kind),
        minimum=_minimum(metric),
        parameters=dict(metric.spec.params),
        protocols=tuple(
            p for p in PROTOCOLS if any(wanted.metric == name for wanted in PROTOCOLS[p].metrics)
        ),
        named={
            alias: f"{wanted.extractor} {wanted.head}"
            for alias, wanted in NAMED.items()
            if wanted.metric == name
        },
        **asdict(kind.about),
    )
