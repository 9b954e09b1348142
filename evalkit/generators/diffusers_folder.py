"""Folders in the layout of the diffusers library: ``config.json`` beside the weights of one network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import strict_json
from evalkit.errors import CheckpointError, InvalidInputError

_CONFIG, _SCHEDULER, _INDEX = "config.json", "scheduler_config.json", "model_index.json"
_NETWORKS = ("unet", "transformer")
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NO_NETWORKS = frozenset({"scheduler", "feature_extractor", "safety_checker", "image_processor"})
_MAX_JSON, _DEEPEST = 2**20, 64
_LIKE = 'it must hold one object, like {"num_heads": 4}'


@dataclass(frozen=True, slots=True)
class DiffusersFolder:
    """The files of one network, and what its JSON files say (the scheduler's under ``scheduler``)."""

    weights: Path
    class_name: str
    config: Mapping[str, Any]
    files: tuple[Path, ...]


def open_folder(folder: Path) -> DiffusersFolder:
    """Find the network of a diffusers folder, at its top or below ``unet/``.

    Raises:
        CheckpointError: there is none, it is one network of several, or a file is missing or damaged.
    """
    index = folder / _INDEX
    if index.is_file():
        _check_single(read_json(index), index)
    network = next((f for f in (folder, *(folder / n for n in _NETWORKS)) if (f / _CONFIG).is_file()), None)
    if network is None:
        raise CheckpointError(
            f"{folder} holds no {_CONFIG}", hint="--ckpt takes a file, or a folder that diffusers has saved"
        )
    config = read_json(network / _CONFIG)
    class_name = config.get("_class_name")
    if not isinstance(class_name, str):
        raise CheckpointError(f"{network / _CONFIG} does not say its _class_name")
    files = [network / _CONFIG]
    for place in (folder, folder / "scheduler"):
        if (place / _SCHEDULER).is_file():
            config = {**config, "scheduler": read_json(place / _SCHEDULER)}
            files.append(place / _SCHEDULER)
            break
    weights = next((network / name for name in _WEIGHTS if (network / name).is_file()), None)
    if weights is None:
        raise CheckpointError(
            f"{network} holds neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}",
            hint="weights in several files are not read; save them as one",
        )
    return DiffusersFolder(weights, class_name, config, (*files, weights))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a small JSON file.

    Raises:
        CheckpointError: it is larger than 1 MB, not JSON, not an object, or nested too deep.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON + 1)
        if len(content) > _MAX_JSON:
            raise CheckpointError(f"{path} has more than 1 MB, which no configuration needs")
        return parse_object(content.decode("utf-8"), name=str(path))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not text in UTF-8") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def parse_object(text: str, *, name: str) -> dict[str, Any]:
    """Return the object in a JSON text, which errors call ``name``.

    Raises:
        CheckpointError: it is not JSON, not an object, or nested more than 64 deep.
    """
    try:
        parsed = strict_json.loads(text)
    except InvalidInputError as error:
        raise CheckpointError(f"{name}: {error.message}", hint=_LIKE) from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{name} must hold a JSON object", hint=_LIKE)
    inner: list[object] = [parsed]
    for _ in range(_DEEPEST):
        inner = [item for value in inner for item in _items(value)]
    if inner:
        raise CheckpointError(f"{name} is nested more than {_DEEPEST} deep")
    return parsed


def _items(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_single(index: Mapping[str, Any], path: Path) -> None:
    components = [
        name
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and any(part is not None for part in value)
    ]
    others = sorted(set(components) - set(_NETWORKS) - _NO_NETWORKS)
    if others:
        raise CheckpointError(
            f"{path} describes a pipeline of several networks ({', '.join(others)} besides the denoiser)",
            hint="--model diffusers opens whole pipelines",
        )
