"""Distances predicted at other numbers of images (``--report-at``), as a record's details keep them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evalkit.record import MetricResult
from evalkit.spec import Scalar

_NAME = re.compile(r"predicted_(\d+|inf)")
_PARTS = ("", "_stderr", "_low", "_high")


@dataclass(frozen=True, slots=True)
class Predicted:
    """One prediction: its key in the details, how its number of images is printed, and the numbers."""

    key: str
    images: str
    value: float
    stderr: float | None
    low: float | None
    high: float | None


def predictions(result: MetricResult) -> tuple[Predicted, ...]:
    """Return the predictions of a score, by number of images, the limit last."""
    details = result.details
    found = sorted(
        (float(match[1]), name) for name in details if (match := _NAME.fullmatch(name)) is not None
    )
    return tuple(
        Predicted(
            name,
            "∞" if at == float("inf") else f"{at:,.0f}",
            details[name],
            *(details.get(f"{name}{part}") for part in _PARTS[1:]),
        )
        for at, name in found
    )


def prediction_keys(results: Iterable[MetricResult]) -> tuple[str, ...]:
    """Return the keys of details, in order, that hold the predictions of ``results``."""
    names = dict.fromkeys(found.key for result in results for found in predictions(result))
    return tuple(f"{name}{part}" for name in names for part in _PARTS)


def prediction_data(result: MetricResult | None, keys: Iterable[str]) -> dict[str, Scalar]:
    """Return what a score holds at each of ``keys``, None where nothing."""
    return {key: None if result is None else result.details.get(key) for key in keys}
