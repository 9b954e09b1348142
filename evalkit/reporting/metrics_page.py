"""The page that tells a newcomer what every number means: Markdown made from the registry. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from evalkit.metric_facts import MetricFacts

_KINDS = (
    ("images", "Distributions of images", "Computed by `evalkit score` on the features of an extractor."),
    (
        "paths",
        "Smoothness of a latent space",
        "Computed by `evalkit score --metrics …` on a generator that shows it.",
    ),
    (
        "latents",
        "Structure of a latent space",
        "Computed by `evalkit score --metrics …` on a generator that shows it.",
    ),
    (
        "pairs",
        "Pairs of images",
        "Computed by `evalkit pairs GENERATED REFERENCE`, or by `score --task reconstruct`.",
    ),
)
_ARROWS = {"lower": "lower is better ↓", "higher": "higher is better ↑"}
_HEAD = """# What the numbers mean

Made by `evalkit list metrics --format md > docs/metrics.md`; a test checks that it is not stale.

Every number is printed with its standard error and 95 % interval: the delete-one-block jackknife for a
statistic of a whole set, the standard error of the mean for an average over images or pairs. Two numbers
compare only within one protocol fingerprint, which holds the extractor, its weights, the resizer, the head,
the parameters below, the number of images and the reference. `--param METRIC.NAME=VALUE` sets a parameter;
`METRIC@HEAD` and `METRIC:EXTRACTOR` choose what a metric reads.
"""


def metrics_page(metrics: Sequence[MetricFacts]) -> str:
    """Return the page as Markdown."""
    parts = [_HEAD, _overview(metrics)]
    for kind, title, text in _KINDS:
        chosen = [facts for facts in metrics if facts.reads == kind]
        if chosen:
            parts.append(f"## {title}\n\n{text}\n")
            parts += [_section(facts) for facts in chosen]
    return "\n".join(parts)


def _overview(metrics: Sequence[MetricFacts]) -> str:
    rows = [
        f"| [`{facts.name}`](#{facts.name}) | {facts.title} | {'↓' if facts.better == 'lower' else '↑'} "
        f"| {facts.reads} | {', '.join(facts.needs) or '—'} | {facts.minimum} |"
        for facts in metrics
    ]
    return "\n".join(
        [
            "| metric | | better | reads | needs | at least |",
            "| --- | --- | --- | --- | --- | ---: |",
            *rows,
            "",
        ]
    )


def _section(facts: MetricFacts) -> str:
    lines = [
        f"### {facts.name}",
        "",
        f"**{facts.title}**, {_ARROWS[facts.better]}. {facts.meaning}",
        "",
        f"- Values: {facts.values}",
        f"- Needs: at least {facts.minimum} images{_joined(facts.needs)}",
    ]
    if facts.parameters:
        shown = ", ".join(f"`{name}={_shown(value)}`" for name, value in facts.parameters.items())
        lines.append(f"- Parameters: {shown}")
    if facts.protocols:
        lines.append(f"- Part of the protocols {', '.join(f'`{name}`' for name in facts.protocols)}")
    if facts.named:
        shown = ", ".join(f"`{alias}` ({what})" for alias, what in facts.named.items())
        lines.append(f"- Published names: {shown}")
    return "\n".join(
        [*lines, f"- Pitfalls: {facts.pitfalls}", f"- Cost: {facts.cost}", f"- Source: {facts.source}", ""]
    )


def _joined(needs: Sequence[str]) -> str:
    return "; " + ", ".join(needs) if needs else ""


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
