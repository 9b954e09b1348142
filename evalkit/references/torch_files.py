"""Numpy arrays and tensors from a torch file, without running anything that its pickle asks for.

``torch.load(weights_only=True)`` refuses numpy arrays unless numpy's own rebuilding functions are allowed;
those trust the pickle with dtypes and buffers. So stand-ins are allowed in their place: they keep a plain
float array's shape, order and bytes, and refuse everything else.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError, UnsafeCheckpointError
from evalkit.pickle_bounds import check_bounds

_FLOATS: Final = ("f4", "f8")
_ASKED_FOR = re.compile(r"GLOBAL ([\w.]+)|global [\"'`]?([\w]+\.[\w.]+)|module ([\w.]+)")


@final
class PickledDtype:
    """Stands in for ``numpy.dtype``: little-endian float32 or float64."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:  # noqa: ARG002
        if code not in _FLOATS:
            raise pickle.UnpicklingError(f"dtype {code!r} is not a float of 32 or 64 bits")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) < 2 or state[1] not in {"<", ">"}:
            raise pickle.UnpicklingError("a dtype of unknown byte order")
        self.order = state[1]


@final
class PickledArray:
    """Stands in for ``numpy.ndarray``: shape, dtype and bytes of a plain float array."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) != 5:
            raise pickle.UnpicklingError("an array of an unknown layout")
        _, shape, dtype, fortran_order, content = state
        if type(dtype) is not PickledDtype or type(content) is not bytes:
            raise pickle.UnpicklingError("an array that is not plain floats")
        flat = np.frombuffer(content, dtype=np.dtype(dtype.order + dtype.code))
        if math.prod(shape) != flat.size:
            raise pickle.UnpicklingError(f"an array of shape {shape} with {flat.size} values")
        self.array = flat.reshape(shape, order="F" if fortran_order else "C")


def rebuild_array(kind: type, shape: tuple[int, ...], code: bytes) -> PickledArray:  # noqa: ARG001
    """Stand in for numpy's ``_reconstruct``, which makes the empty array that the state then fills."""
    if kind is not PickledArray:
        raise pickle.UnpicklingError(f"an array of type {kind}")
    return PickledArray()


_STAND_INS: Final = (
    (PickledDtype, "numpy.dtype"),
    (PickledArray, "numpy.ndarray"),
    # numpy 2 renamed numpy.core; files of both are in use.
    (rebuild_array, "numpy._core.multiarray._reconstruct"),
    (rebuild_array, "numpy.core.multiarray._reconstruct"),
)


def read_torch_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a torch file that holds a flat dict of tensors or numpy arrays.

    Raises:
        UnsafeCheckpointError: its pickle asks for anything else.
        InvalidInputError: it cannot be read, or is no such dict.
    """
    try:
        check_bounds(path)
        with torch.serialization.safe_globals([*_STAND_INS]):
            loaded: object = torch.load(path, weights_only=True, mmap=False, map_location="cpu")
    except Exception as error:  # a crafted file can raise anything; all of it is bad input
        raise _refusal(path, error) from error
    if not isinstance(loaded, Mapping):
        raise InvalidInputError(f"{path.name} holds a {type(loaded).__name__}, not a dict of statistics")
    return {str(key): array for key, value in loaded.items() if (array := _as_array(value)) is not None}


def _as_array(value: object) -> NDArray[Any] | None:
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        return np.asarray(value.detach().double().numpy())
    return None


def _refusal(path: Path, error: Exception) -> InvalidInputError:
    text = str(error)
    found = _ASKED_FOR.search(text) if isinstance(error, pickle.UnpicklingError) else None
    if found is None:
        reason = text.splitlines()[0] if text else type(error).__name__
        return InvalidInputError(f"{path.name} is not a whole torch file of statistics: {reason}")
    name = next(group for group in found.groups() if group)
    return UnsafeCheckpointError(
        f"{path.name} was refused: its pickle asks for {name}, which could run code",
        hint="only arrays, tensors and plain containers are read; save mu and sigma with np.savez",
    )
