"""From a checkpoint's header to a network's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint

ConfigT = TypeVar("ConfigT")


def build_config(kind: type[ConfigT], checkpoint: Checkpoint) -> ConfigT:
    """Return the configuration in the header, or the bundled model's where the file has none.

    Raises:
        CheckpointError: the header has unknown or ill-typed fields.
    """
    if checkpoint.config is None:
        return kind()
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass by contract
    unknown = sorted(set(checkpoint.config) - known)
    if unknown:
        raise CheckpointError(f"the checkpoint's configuration has unknown fields: {', '.join(unknown)}")
    try:
        return kind(**{key: _frozen(value) for key, value in checkpoint.config.items()})
    except TypeError as error:
        raise CheckpointError(f"the checkpoint's configuration is damaged: {error}") from error


def _frozen(value: Any) -> Any:  # noqa: ANN401 - JSON data
    return tuple(value) if isinstance(value, list) else value
