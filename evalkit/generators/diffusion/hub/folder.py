"""Finding a pipeline's files and making sure that none of them can run code.

Only classes of diffusers and transformers are built; weights are safetensors, or pickles that torch reads as
plain tensors. A hub repository is named with the commit that is meant: a branch is another model tomorrow.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, OfflineError, UnsafeCheckpointError, UsageError
from evalkit.generators.diffusers_folder import read_json

INDEX = "model_index.json"
HUB_PREFIX = "hub:"
_HUB = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_LIBRARIES = frozenset({"diffusers", "transformers"})
_TEXTS = ("*.json", "*.txt", "*.model")
_VARIANTS = ("*.fp16.*", "*.non_ema.*")


@dataclass(frozen=True, slots=True)
class PipelineFolder:
    """A checked folder: the pipeline's class, whether its weights are safetensors, and the files' digest."""

    path: Path
    class_name: str
    safetensors: bool
    sha256: str


def locate(where: str) -> Path:
    """Return the folder of ``where``: itself, or the snapshot of ``hub:OWNER/NAME@REVISION``.

    Raises:
        UsageError: there is no such folder, or the revision is not a commit.
        OfflineError: the repository must be downloaded and cannot be now.
    """
    if not where.startswith(HUB_PREFIX):
        if not (Path(where) / INDEX).is_file():
            raise UsageError(
                f"{where} holds no {INDEX}",
                hint="--ckpt takes a folder that a pipeline of diffusers was saved to, or "
                "hub:OWNER/NAME@REVISION; --model diffusers-unet reads a folder of one network",
            )
        return Path(where)
    found = _HUB.fullmatch(where)
    if found is None:
        raise UsageError(
            f"{where} does not name a repository and one commit of it",
            hint="hub:OWNER/NAME@REVISION with the 40 characters of a commit, from the repository's history",
        )
    return _snapshot(found["repository"], found["revision"])


def check(folder: Path) -> PipelineFolder:
    """Return what is in ``folder`` once nothing in it can run code.

    Raises:
        UnsafeCheckpointError: a class of neither library, or a pickle that asks for more than tensors.
        CheckpointError: a file is missing or damaged.
    """
    index = read_json(folder / INDEX)
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise UnsafeCheckpointError(
            f"{folder / INDEX} names a pipeline of its own code", hint="only classes of diffusers are built"
        )
    components = _components(index, folder)
    weights = [path for name in components for path in _weights(folder / name)]
    pickles = [path for path in weights if path.suffix == ".bin"]
    safe = not any(_only_pickles(folder / name) for name in components)
    if not safe:
        for path in pickles:
            _check_pickle(path)
    return PipelineFolder(folder, class_name, safe, _digest(folder, components))


def _snapshot(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow, and needed for hub: alone

    def fetch(*patterns: str, local: bool = False) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_VARIANTS),
                local_files_only=local,
            )
        )

    try:
        folder = fetch(*_TEXTS, "*.safetensors")
        index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
        lacking = [name for name in _components(index, folder) if not _weights(folder / name)]
        return fetch(*(f"{name}/*.bin" for name in lacking)) if lacking else folder
    except (OSError, ValueError, RuntimeError) as error:
        # What huggingface_hub raises: no network, no such repository or commit, access not granted.
        raise OfflineError(
            f"{repository} at {revision} is needed and cannot be downloaded now: {type(error).__name__}",
            hint=f"get https://huggingface.co/{repository}/tree/{revision} and pass its folder to --ckpt",
        ) from error


def _components(index: Mapping[str, Any], folder: Path) -> list[str]:
    names = []
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or len(value) != 2 or None in value:
            continue
        # Names of pipelines' own modules within diffusers stand there too: stable_diffusion.
        if value[0] not in _LIBRARIES and not _is_diffusers_module(str(value[0])):
            raise UnsafeCheckpointError(
                f"{folder / INDEX} asks for {value[0]}.{value[1]}, which is code of its own",
                hint="only classes of diffusers and transformers are built; remote code is never trusted",
            )
        if not re.fullmatch(r"\w+", name):
            raise CheckpointError(f"{folder / INDEX} names a component {name!r}")
        names.append(name)
    return names


def _is_diffusers_module(name: str) -> bool:
    from diffusers import pipelines  # noqa: PLC0415 - slow

    return re.fullmatch(r"\w+", name) is not None and hasattr(pipelines, name)


def _weights(component: Path) -> list[Path]:
    if not component.is_dir():
        return []
    return sorted(path for path in component.iterdir() if path.suffix in {".safetensors", ".bin"})


def _only_pickles(component: Path) -> bool:
    kinds = {path.suffix for path in _weights(component)}
    return kinds == {".bin"}


def _check_pickle(path: Path) -> None:
    try:
        torch.load(path, weights_only=True, map_location="meta", mmap=False)
    except Exception as error:
        raise UnsafeCheckpointError(
            f"{path} was not loaded: it is no pickle of plain tensors", hint="save it as safetensors"
        ) from error


def _digest(folder: Path, components: list[str]) -> str:
    files = [folder / INDEX, *(path for name in components for path in sorted((folder / name).rglob("*")))]
    lines = [f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in files if path.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
