"""The functions and classes that the reader of NVIDIA's pickles knows, each as an inert stand-in."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.module_nodes import Node
from evalkit.generators.numpy_pickles import PickledDtype, rebuild_array, rebuild_from_buffer, rebuild_scalar
from evalkit.generators.torch_files import load_torch, unsafe

_ENTRY = 64
"""Bytes that an entry of a set or dict takes, about."""


@dataclass(frozen=True, slots=True)
class Global:
    """A known name that the pickle has looked up and not yet used."""

    name: str


@dataclass(slots=True)
class Budget:
    """Bytes that calls may still make: one text in the file could otherwise be encoded a million times."""

    left: int

    def spend(self, count: int) -> None:
        """Take ``count`` bytes.

        Raises:
            CheckpointError: there are not so many left.
        """
        self.left -= count
        if self.left < 0:
            raise CheckpointError(
                "the pickle makes more data than it holds", hint="no network's pickle does: do not trust it"
            )


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers of one type in a row."""

    flat: Tensor


def _persistent(meta: Any, *, budget: Budget, file: str) -> Node:  # noqa: ANN401, ARG001
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise CheckpointError(f"{file}: a persistent object is no class")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise CheckpointError(f"{file}: a persistent object has no class name or no state")
    return Node(name, state)


def _ordered(items: Any = (), *, budget: Budget, file: str) -> dict[str, object]:  # noqa: ANN401
    if not isinstance(items, dict | list | tuple):
        raise CheckpointError(f"{file}: an OrderedDict of something but names and values")
    budget.spend(_ENTRY * len(items))
    pairs = list(items.items() if isinstance(items, dict) else items)
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) is str for pair in pairs):
        raise CheckpointError(f"{file}: an OrderedDict of something but names and values")
    return {str(name): value for name, value in pairs}


def _set(items: Any = (), *, budget: Budget, file: str) -> set[object]:  # noqa: ANN401
    budget.spend(_ENTRY * len(items) if isinstance(items, list | tuple) else 0)
    if not isinstance(items, list | tuple) or not all(type(item) in {str, int} for item in items):
        raise CheckpointError(f"{file}: a set of something but text and numbers")
    return set(items)


def _encode(text: Any, encoding: Any = "latin1", *, budget: Budget, file: str) -> bytes:  # noqa: ANN401
    if type(text) is not str or encoding != "latin1":
        raise CheckpointError(f"{file}: bytes in an unknown encoding")
    budget.spend(len(text))
    return text.encode("latin1")


def _storage(content: Any, *, budget: Budget, file: str) -> _Storage:  # noqa: ANN401
    if type(content) is not bytes:
        raise CheckpointError(f"{file}: a storage that is no bytes")
    budget.spend(len(content))
    loaded = load_torch(io.BytesIO(content), file)
    if not isinstance(loaded, torch.storage.TypedStorage):
        raise unsafe(file, f"a storage that is {type(loaded).__name__}")
    untyped = loaded._untyped_storage  # noqa: SLF001 - the public way warns of its removal
    if untyped.device.type != "cpu" or untyped.nbytes() > len(content):
        raise CheckpointError(f"{file}: a storage without its data")
    return _Storage(torch.empty(0, dtype=loaded.dtype).set_(untyped))


def _tensor(
    storage: Any,  # noqa: ANN401
    offset: Any,  # noqa: ANN401
    size: Any,  # noqa: ANN401
    stride: Any,  # noqa: ANN401
    *_unused: object,
    budget: Budget,  # noqa: ARG001
    file: str,
) -> Tensor:
    if not isinstance(storage, _Storage) or not all(type(t) is tuple for t in (size, stride)):
        raise CheckpointError(f"{file}: a damaged tensor")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise CheckpointError(f"{file}: a tensor of impossible shape")
    made = torch.empty(size, dtype=storage.flat.dtype, device="meta")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if made.numel() else 0
    if last >= max(storage.flat.numel(), 1) or made.numel() > storage.flat.numel():
        raise CheckpointError(f"{file}: a tensor of shape {str(size)[:80]} goes beyond its data")
    return storage.flat.as_strided(size, stride, offset)


def _parameter(data: Any, *_unused: object, budget: Budget, file: str) -> Tensor:  # noqa: ANN401, ARG001
    if not isinstance(data, Tensor):
        raise CheckpointError(f"{file}: a parameter that is no tensor")
    return data


def _plain(made: Callable[..., object]) -> Callable[..., object]:
    def call(*arguments: object, budget: Budget, file: str) -> object:  # noqa: ARG001
        return made(*arguments)

    return call


CALLS: Final[dict[str, Callable[..., object]]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "numpy.dtype": _plain(PickledDtype),
    "numpy.core.multiarray.scalar": _plain(rebuild_scalar),
    "numpy._core.multiarray.scalar": _plain(rebuild_scalar),
    "numpy.core.multiarray._reconstruct": _plain(rebuild_array),
    "numpy._core.multiarray._reconstruct": _plain(rebuild_array),
    "numpy.core.numeric._frombuffer": _plain(rebuild_from_buffer),
    "numpy._core.numeric._frombuffer": _plain(rebuild_from_buffer),
    "builtins.set": _set,
    "_codecs.encode": _encode,
}
"""Global that a pickle may call -> what is done instead."""

CLASSES: Final[dict[str, Callable[[], object]]] = {
    "torch.nn.modules.container.ModuleDict": lambda: Node("torch.nn.modules.container.ModuleDict"),
    "dnnlib.util.EasyDict": dict,
    "collections.OrderedDict": dict,
}
"""Class of which a pickle may make objects -> the empty stand-in."""
