"""Which registered model reads a checkpoint, for those who named another or none."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping

from safetensors import SafetensorError, safe_open

from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.recognition import nearest_layouts, recognise
from evalkit.registry import did_you_mean

_ALIKE = 0.9


def models_reading(layout: str) -> tuple[str, ...]:
    """Return the models that read ``layout``, in the order in which they are registered."""
    return tuple(facts.name for facts in GENERATOR_FACTS.values() if layout in facts.layouts)


def model_for(names: Collection[str]) -> str | None:
    """Return the model whose tensors have these ``names``, for plain state dicts of no known container."""
    try:
        found = recognise({"": names}, LAYOUTS.values())
    except CheckpointError:
        return None
    if found is not None:
        return next(iter(models_reading(found.layout.name)), None)
    wanted = set(names)
    for model, known in _bundled_names().items():
        if len(wanted & known) >= _ALIKE * len(wanted | known):
            return model
    return None


def advice(parts: Mapping[str, Collection[str]]) -> str:
    """Return one sentence on what unrecognised tensors resemble."""
    for names in parts.values():
        model = model_for(names)
        if model is not None:
            return f"the tensor names are those of {model!r}: use --model {model}"
    near = nearest_layouts(parts, LAYOUTS.values(), most=1)
    if near:
        missing = ", ".join(near[0].missing[:3])
        return f"the nearest known layout is {near[0].layout.name}, but there is no {missing}"
    return "`evalkit inspect FILE` shows what it holds; `evalkit list models` what is read"


def preset_fields(model: str, preset: str) -> Mapping[str, object]:
    """Return the configuration that ``preset`` of ``model`` stands for.

    Raises:
        UsageError: the model has no such preset.
    """
    presets = GENERATOR_FACTS[model].presets
    if preset not in presets:
        raise UsageError(f"model {model!r} has no preset {preset!r}", hint=did_you_mean(preset, presets))
    return presets[preset]


@functools.cache
def _bundled_names() -> dict[str, frozenset[str]]:
    names: dict[str, frozenset[str]] = {}
    for facts in GENERATOR_FACTS.values():
        if facts.bundled:
            try:
                with safe_open(facts.checkpoint, framework="pt", device="cpu") as file:
                    names[facts.name] = frozenset(file.keys())
            except (SafetensorError, OSError):
                continue  # a damaged bundled file is told of when it is loaded
    return names
