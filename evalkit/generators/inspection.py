"""What a checkpoint is, which model reads it, and what is still missing: ``evalkit inspect``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.generators.checkpoint import FORMAT, Checkpoint, Weights, from_contents, sidecar_path
from evalkit.generators.configuration import UnrevealedError
from evalkit.generators.containers import Contents, read_contents
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.fitting import model_for, models_reading
from evalkit.generators.loading import build_generator
from evalkit.generators.recognition import nearest_layouts
from evalkit.generators.sampling import SamplingOptions

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class PartReport:
    """One sub-dictionary: ``parameters`` counts the numbers in all its tensors."""

    name: str
    tensors: int
    parameters: int
    used: bool
    class_name: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a checkpoint.

    Attributes:
        model: the first model that reads it; ``models`` are all.
        holds: what else lies in the file, by name and kind.
        missing: fields that neither the tensors nor the file nor anything given says.
        presets: presets of ``model`` that supply all of them.
        not_finite: tensors that hold NaN or infinity (the first ten).
        nearest: known layouts whose tell-tale names are partly there, for files that none fits.
        problem: why no model reads it, or None.
    """

    path: str
    sha256: str
    container: str
    layout: str | None = None
    layout_title: str | None = None
    model: str | None = None
    models: tuple[str, ...] = ()
    parts: tuple[PartReport, ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    part: str | None = None
    class_name: str | None = None
    config: Mapping[str, Any] | None = None
    tensors: int = 0
    parameters: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    preset: str | None = None
    sidecar: str | None = None
    missing: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    problem: str | None = None
    hint: str | None = None


def inspect_checkpoint(path: Path, *, preset: str | None = None, weights: Weights = "ema") -> Inspection:
    """Say what a checkpoint is, without running anything in it.

    A file that can be read but that no model takes is described too; ``problem`` then says why.

    Raises:
        UsageError: there is no such file, or no such preset.
        CheckpointError: it cannot be read at all.
        UnsafeCheckpointError: its pickle asks for more than tensors and plain containers.
    """
    contents = read_contents(path)
    report = Inspection(
        path=str(path),
        sha256=contents.sha256,
        container=contents.container,
        parts=_parts(contents, None),
        holds={name: kind for name, kind in contents.held.items() if _is_aside(name, contents)},
    )
    try:
        checkpoint = from_contents(path, contents, weights=weights, model=None, preset=preset)
    except CheckpointError as error:
        near = _nearest(contents)
        return replace(report, nearest=near, problem=error.message, hint=error.hint)
    judged = _judged(_described(report, checkpoint, contents, path), checkpoint, contents)
    if judged.not_finite and judged.problem is None:
        return replace(judged, problem="the weights are not finite")
    return judged


def _described(report: Inspection, checkpoint: Checkpoint, contents: Contents, path: Path) -> Inspection:
    layout = LAYOUTS.get(checkpoint.layout or "")
    tensors = checkpoint.tensors
    sidecar = sidecar_path(path)
    return replace(
        report,
        container=f"{contents.container} with evalkit's header"
        if checkpoint.format == "evalkit"
        else contents.container,
        layout=checkpoint.layout or (FORMAT if checkpoint.format == "evalkit" else None),
        layout_title=layout.title if layout else None,
        models=_readers(checkpoint),
        parts=_parts(contents, checkpoint.part),
        part=checkpoint.part,
        class_name=checkpoint.class_name,
        config=_finite(checkpoint.config),
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
        preset=checkpoint.preset,
        sidecar=str(sidecar) if sidecar.is_file() else None,
        not_finite=tuple(
            key
            for key, tensor in tensors.items()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
        )[:_SHOWN],
    )


def _judged(report: Inspection, checkpoint: Checkpoint, contents: Contents) -> Inspection:
    """Add whether the first model that should read it builds."""
    if not report.models:
        return replace(
            report,
            nearest=_nearest(contents),
            problem="no registered model reads it",
            hint="`evalkit list models` names what is read; others go in by --model pkg.mod:factory",
        )
    model = report.models[0]
    report = replace(report, model=model)
    try:
        build_generator(model, checkpoint, SamplingOptions())
    except UnrevealedError as error:
        presets = GENERATOR_FACTS[model].presets
        supplying = tuple(name for name, fields in presets.items() if set(error.fields) <= set(fields))
        return replace(
            report, missing=error.fields, presets=supplying, hint=_how_to_say(error.fields, supplying, report)
        )
    except UsageError:
        raise
    except EvalkitError as error:
        return replace(report, problem=error.message, hint=error.hint)
    return report


def _how_to_say(missing: tuple[str, ...], presets: tuple[str, ...], report: Inspection) -> str:
    fields = ", ".join(f'"{name}": …' for name in missing)
    sidecar = f"write {{{fields}}} into {sidecar_path(Path(report.path)).name} beside it"
    return f"add --preset {presets[0]}, or {sidecar}" if presets else sidecar


def _finite(value: Any) -> Any:  # noqa: ANN401 - JSON data
    """JSON has no word for infinity; it is among the arguments that EDM's networks take."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _readers(checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.architecture is not None:
        return (checkpoint.architecture,) if checkpoint.architecture in GENERATOR_FACTS else ()
    if checkpoint.layout is not None:
        return models_reading(checkpoint.layout)
    model = model_for(checkpoint.tensors.keys())
    return (model,) if model else ()


def _parts(contents: Contents, used: str | None) -> tuple[PartReport, ...]:
    return tuple(
        PartReport(name, len(part.tensors), part.parameter_count, name == used, part.class_name)
        for name, part in contents.parts.items()
    )


def _is_aside(name: str, contents: Contents) -> bool:
    return name not in contents.parts and "" not in contents.parts


def _nearest(contents: Contents) -> tuple[str, ...]:
    names = {name: part.tensors.keys() for name, part in contents.parts.items()}
    return tuple(
        f"{near.layout.name} ({near.share:.0%} of its tell-tale names, without {', '.join(near.missing[:3])})"
        for near in nearest_layouts(names, LAYOUTS.values())
        if near.missing
    )
