"""What each metric means, beside the boards: read from a file, because the registry itself needs torch.

``metric_help.json`` is made from the registry, and a test says when it is stale. To make it again:

    python -m evalkit.leaderboard.metric_help
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.spec import Better

_FILE = "metric_help.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricHelp:
    """What a reader of a board needs to know of a metric; ``aliases`` are published names for it."""

    name: str
    title: str
    better: Better
    meaning: str
    values: str
    pitfalls: str
    source: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    metrics: tuple[MetricHelp, ...]


def help_for(label: str) -> MetricHelp | None:
    """Return what is known of a metric by its label (``kd:efficientnet-lite0``), None where nothing is."""
    return _by_name().get(label.partition(":")[0].partition("/")[0])


def current_help() -> str:
    """Return what the shipped file should hold now, as JSON text. Loads torch."""
    from evalkit.metric_catalogue import metric_facts  # noqa: PLC0415 - loads every metric, and torch
    from evalkit.selection import INCEPTION, metric_label  # noqa: PLC0415 - as above

    def published(name: str) -> set[str]:
        label = metric_label(
            metric=name, head="2048", extractor=INCEPTION, preset=None, sha256="", published=True
        )
        return {label.partition(":")[0]} - {name}

    metrics = tuple(
        MetricHelp(
            name=facts.name,
            title=facts.title,
            better=facts.better,
            meaning=facts.meaning,
            values=facts.values,
            pitfalls=facts.pitfalls,
            source=facts.source,
            aliases=tuple(sorted(published(facts.name) | set(facts.named))),
        )
        for facts in metric_facts()
    )
    return strict_json.dumps(strict_json.encode(_File(metrics)))


@functools.cache
def _by_name() -> Mapping[str, MetricHelp]:
    text = importlib.resources.files("evalkit.leaderboard").joinpath(_FILE).read_text(encoding="utf-8")
    metrics = strict_json.decode(strict_json.loads(text), _File).metrics
    aliases = {alias: metric for metric in metrics for alias in metric.aliases}
    return aliases | {metric.name: metric for metric in metrics}


if __name__ == "__main__":
    write_atomically(Path(__file__).with_name(_FILE), current_help())
