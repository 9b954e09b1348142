"""From a checkpoint to a network's configuration: what it says itself, what its tensors show, what was given.

Four sources, the later ones first in line: fields inferred from tensor shapes, the file's own description
(evalkit's header, constructor arguments in an NVIDIA pickle, a diffusers ``config.json``), a named preset,
and a sidecar JSON. Fields without a default that none of them knows are refused by name: never guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint

ConfigT = TypeVar("ConfigT")
_NOTHING: Mapping[str, object] = {}


class UnrevealedError(CheckpointError):
    """``fields`` are what neither the tensors nor the file nor anything given says."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(
            f"the tensors do not reveal: {', '.join(fields)}",
            hint="name a --preset (`evalkit inspect FILE` lists those that fit), or write these fields into "
            "a JSON file beside the checkpoint (its name with .json added)",
        )
        self.fields = fields


def build_config(kind: type[ConfigT], checkpoint: Checkpoint) -> ConfigT:
    """Return the configuration in the header, or the bundled model's where the file has none.

    Raises:
        CheckpointError: the header has unknown or ill-typed fields.
    """
    return configure(kind, checkpoint, described=checkpoint.config or _NOTHING)


def configure(
    kind: type[ConfigT],
    checkpoint: Checkpoint,
    *,
    inferred: Mapping[str, object] = _NOTHING,
    described: Mapping[str, object] = _NOTHING,
) -> ConfigT:
    """Return a frozen configuration of type ``kind`` (a dataclass) for ``checkpoint``.

    Args:
        kind: its fields are what the network and its sampler must know; those without a default are needed.
        checkpoint: supplies ``given`` (preset and sidecar).
        inferred: fields that the shapes of the tensors show beyond doubt.
        described: fields that the file itself states, already in the words of ``kind``.

    Raises:
        UnrevealedError: a field without a default is not known.
        CheckpointError: a field is unknown, ill-typed, or given otherwise than the file shows.
    """
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass by contract
    values: dict[str, Any] = {}
    for source in (inferred, described, checkpoint.given):
        unknown = sorted(set(source) - set(known))
        if unknown:
            raise CheckpointError(
                f"the checkpoint's configuration has unknown fields: {', '.join(unknown)}",
                hint=f"known ones are {', '.join(sorted(known))}",
            )
        values |= {key: _frozen(value) for key, value in source.items()}
    _check_types(kind, {key: values[key] for key in checkpoint.given})
    _check_shown(inferred, values)
    for key in values:
        if key.endswith("_eps") and not values[key] > 0:
            raise CheckpointError(f"{key} is {values[key]!r}: an epsilon is above 0")
    missing = sorted(name for name, f in known.items() if _is_needed(f) and name not in values)
    if missing:
        raise UnrevealedError(tuple(missing))
    try:
        return kind(**values)
    except TypeError as error:
        raise CheckpointError(f"the checkpoint's configuration is damaged: {error}") from error


def _check_shown(inferred: Mapping[str, object], values: Mapping[str, object]) -> None:
    for key, shown in inferred.items():
        if values[key] != _frozen(shown):
            raise CheckpointError(
                f"{key} is given as {values[key]!r}, but the tensors show {shown!r}",
                hint="correct the preset or the sidecar JSON",
            )


def _check_types(kind: type, given: Mapping[str, object]) -> None:
    hints = get_type_hints(kind) if given else {}
    for key, value in given.items():
        if not _fits(value, hints[key]):
            named = hints[key].__name__ if isinstance(hints[key], type) else str(hints[key])
            raise CheckpointError(
                f"{key} is given as {str(value)[:80]!r}, which is no {named}",
                hint="correct the preset or the sidecar JSON",
            )


def _fits(value: object, hint: object) -> bool:
    """Whether a JSON value is of the annotated type; types that JSON does not have are left to the class."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        repeated = inner[-1] is Ellipsis
        kinds = inner[:1] * len(value) if repeated and isinstance(value, tuple) else inner
        return (
            isinstance(value, tuple)
            and len(value) == len(kinds)
            and all(_fits(item, wanted) for item, wanted in zip(value, kinds, strict=True))
        )
    if hint is float:
        return type(value) in {int, float}
    return type(value) is hint if hint in {int, bool, str, type(None)} else True


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _frozen(value: Any) -> Any:  # noqa: ANN401 - JSON data
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
