"""Probes: functions from an index to rows of numbers that no single image could give.

probe = path_probe(generator, seed=0, space="w", sampling="end", epsilon=1e-4, crop=False, distance=lpips)
rows = probe(np.arange(64), ["distance"])["distance"]  # float32 [64, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.probes.attributes import AttributeClassifier, load_attributes
    from evalkit.probes.latents import Interpolation
    from evalkit.probes.path import PathDistance, PathProbe, path_probe
    from evalkit.probes.separability import SeparabilityProbe, separability_probe

__all__ = [
    "AttributeClassifier",
    "Interpolation",
    "PathDistance",
    "PathProbe",
    "SeparabilityProbe",
    "load_attributes",
    "path_probe",
    "separability_probe",
]

_HOMES = {
    "AttributeClassifier": "attributes",
    "load_attributes": "attributes",
    "Interpolation": "latents",
    "PathDistance": "path",
    "PathProbe": "path",
    "path_probe": "path",
    "SeparabilityProbe": "separability",
    "separability_probe": "separability",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - torch loads only when a probe is used

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
