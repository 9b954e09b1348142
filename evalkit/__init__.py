"""evalkit: comparable, resumable evaluation of generative image models, with error bars.

    import evalkit
    record = evalkit.score(model="ddpm", num_samples=256)
    for result in record.results:
        print(result.metric, result.value, "±", result.se)

Names are loaded when they are first used: ``import evalkit`` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit import numerics
    from evalkit.api import score
    from evalkit.errors import EvalkitError
    from evalkit.generators import SamplingOptions, load_generator
    from evalkit.record import RunRecord
    from evalkit.references import Reference, load_reference

__all__ = [
    "EvalkitError",
    "Reference",
    "RunRecord",
    "SamplingOptions",
    "load_generator",
    "load_reference",
    "numerics",
    "score",
]

_HOMES = {
    "EvalkitError": "evalkit.errors",
    "Reference": "evalkit.references",
    "RunRecord": "evalkit.record",
    "SamplingOptions": "evalkit.generators",
    "load_generator": "evalkit.generators",
    "load_reference": "evalkit.references",
    "score": "evalkit.api",
}


def __getattr__(name: str) -> object:
    if name == "numerics":
        return importlib.import_module("evalkit.numerics")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'evalkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
