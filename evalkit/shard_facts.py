"""What is noted beside the features of a shard; a state file may come from elsewhere, and say anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

FACTS: Final = frozenset({"device", "threads", "images", "read_seconds", "extract_seconds", "sizes"})
"""What every pass notes."""


def are_facts(facts: object, count: int) -> bool:
    """Whether what is known of ``facts`` is of its kind: a file may come from elsewhere."""
    if not isinstance(facts, dict):
        return False
    images = facts.get("images", [])
    times = [facts[name] for name in ("read_seconds", "extract_seconds") if name in facts]
    labels, sizes = facts.get("labels"), facts.get("sizes", [])
    return (
        isinstance(facts.get("device", ""), str)
        and _is_whole_number(facts.get("threads", 0))
        and _is_whole_number(facts.get("out_of_memory_batch", 1))
        and _all(images, _is_whole_number)
        and all(_all(seconds, _is_time) and len(seconds) == len(images) for seconds in times)
        and _all(sizes, lambda size: _all(size, _is_whole_number) and len(size) == 2)
        and (labels is None or (_all(labels, _is_label) and len(labels) == count))
    )


def _all(values: object, right: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(right(value) for value in values)


def _is_label(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_whole_number(value: object) -> bool:
    return _is_label(value) and value >= 0  # type: ignore[operator]


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0.0 <= value < math.inf
