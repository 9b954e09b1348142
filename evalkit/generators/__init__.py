"""Generators: the native models, and any object that follows the generator protocol.

What there is is known without torch (:mod:`evalkit.generators.facts`); the rest is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.generators.facts import GENERATOR_FACTS

if TYPE_CHECKING:
    from evalkit.generators.loading import load_generator
    from evalkit.generators.sampling import SamplingOptions

__all__ = ["GENERATOR_FACTS", "SamplingOptions", "load_generator"]


def __getattr__(name: str) -> object:
    if name == "load_generator":
        from evalkit.generators.loading import load_generator  # noqa: PLC0415 - loads torch

        return load_generator
    if name == "SamplingOptions":
        from evalkit.generators.sampling import SamplingOptions  # noqa: PLC0415 - loads torch

        return SamplingOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
