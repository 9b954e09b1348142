"""When a score is shown with its variant: wherever its label alone does not say what was read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

from evalkit.extractors.facts import FACTS
from evalkit.protocol import PROTOCOLS
from evalkit.record import MetricResult, RunRecord
from evalkit.reporting.footnotes import is_region

_WHOLE = "whole"


def shown_variants(record: RunRecord) -> set[tuple[str, str]]:
    """Return (metric, variant) of the results of a run that must be shown with their variant.

    These are regions, the variants of one label where there are several, and what the label does not imply:
    the path of a path length, the classifier of an accuracy, a head other than the usual one.
    """
    counts = Counter(result.metric for result in record.results)
    return {
        (result.metric, result.variant)
        for result in record.results
        if result.variant
        and (counts[result.metric] > 1 or is_region(result.variant) or not _implied(result, record))
    }


def _implied(result: MetricResult, record: RunRecord) -> bool:
    """Whether the label says all that the variant does."""
    variant, label = result.variant, result.metric
    if variant == _WHOLE or variant in re.split("[:/]", label):
        return True
    read = _heads_read(record)
    if read and variant not in read:  # a name that the metric gave, not a head
        return False
    usual = _usual_heads(label, record)
    return not usual or variant in usual


def _heads_read(record: RunRecord) -> set[str]:
    """Heads that the metrics of a run read; empty where the record does not say."""
    measured = record.protocol.fields.get("metrics")
    items = measured if isinstance(measured, list | tuple) else ()
    return {str(item["head"]) for item in items if isinstance(item, Mapping) and "head" in item}


def _usual_heads(label: str, record: RunRecord) -> Collection[str]:
    """Heads that a label ``metric:extractor`` stands for; empty where it names no extractor."""
    metric, _, network = label.partition(":")
    network = network.partition("@")[0]
    if network not in FACTS:
        return ()
    own: dict[str, str] = {}
    name = record.protocol.name
    if name in PROTOCOLS and (preset := PROTOCOLS[name]).extractor == network:
        own = {wanted.metric: wanted.head for wanted in preset.metrics if not wanted.extractor}
    return {own[metric]} if metric in own else {*own.values(), *dict(FACTS[network].roles).values()}
