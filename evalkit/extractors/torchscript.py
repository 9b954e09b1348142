"""Tensors out of a TorchScript archive, without running anything that it holds.

A TorchScript archive is a zip of code, of a pickle that describes the module tree, and of the raw bytes of
its tensors. Here the code is never read; the pickle is read by an unpickler that knows tensors, module
nodes and plain containers and refuses every other name.

Accepted trade-offs: evalkit refuses TorchScript archives as checkpoints. OpenAI published CLIP in no other
form, so for exactly the files whose whole digest is in the asset catalogue the tensors are taken out (see
:mod:`evalkit.extractors.clip`).
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor

from evalkit.errors import CheckpointError, UnsafeCheckpointError

_STORAGES: Final = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_LISTS: Final = frozenset({"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"})
_CODE_PREFIX: Final = "__torch__"


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive (and not a state dict, which has no constants)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, struct.error):
        return False


def read_torchscript_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of the module tree by its dotted name, as a state dict has it.

    Raises:
        UnsafeCheckpointError: the pickle asks for anything but tensors, module nodes and plain containers.
        CheckpointError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1]
            member = next(name for name in names if name.endswith("/data.pkl"))
            root = _TensorUnpickler(archive, member.removesuffix("data.pkl")).load()
            return dict(_named_tensors(root, ""))
    except UnsafeCheckpointError:
        raise
    except Exception as error:  # a crafted pickle can raise anything; all of it is bad input
        raise CheckpointError(f"{path.name} is not a whole TorchScript archive: {error!r}") from error


@final
class _Node:
    """A module: what its pickled attributes are put into."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        if type(state) is not dict:
            raise pickle.UnpicklingError("a module whose attributes are not a dict")
        self.attributes = state


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{prefix}data.pkl")))
        self._archive, self._prefix = archive, prefix
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - pickle's signature
        if module.partition(".")[0] == _CODE_PREFIX:
            return _Node
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        raise UnsafeCheckpointError(
            f"a TorchScript archive was refused: its pickle asks for {module}.{name}",
            hint="only tensors and plain containers are read",
        )

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor:
        _, dtype, key, _, count = pid
        if type(dtype) is not torch.dtype or type(key) is not str or not key.isalnum():
            raise pickle.UnpicklingError("a storage of an unknown form")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._prefix}data/{key}"))
            storage = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            if len(storage) != count:
                raise pickle.UnpicklingError(f"a storage of {len(storage)} values instead of {count}")
            self._storages[key] = storage
        return self._storages[key]


def _view(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: object
) -> Tensor:
    # as_strided checks that the view lies within the storage.
    return torch.as_strided(storage, size, stride, offset)


def _named_tensors(node: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(node, _Node):
        return
    for name, value in node.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _named_tensors(value, f"{prefix}{name}.")
