"""Numpy scalars and arrays in a pickle, as plain numbers: numpy's own rebuilding functions are never called.

Those trust the pickle with dtypes and buffers (setting the state of a dtype can crash the process), so these
stand-ins take their place in both unpicklers. Anything but plain numbers and text is refused.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

_PLAIN = re.compile(r"[biuf][1248]|U[0-9]{1,4}")
_ORDERS: Final = ("<", ">", "|", "=")


@final
class PickledDtype:
    """Stands in for ``numpy.dtype``: whole numbers, floats, truth values and text."""

    def __init__(self, code: str = "", align: bool = False, copy: bool = False) -> None:  # noqa: ARG002
        if type(code) is not str or not _PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f"a numpy dtype {_short(code)}, which holds no plain numbers")
        self.code = code
        self.order = "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in _ORDERS:
            raise pickle.UnpicklingError("a numpy dtype of unknown byte order")
        self.order = str(state[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The real dtype, made from its two parts."""
        return np.dtype(self.order.replace("|", "=") + self.code)


def _short(code: object) -> str:
    # A tuple of tuples of … may be far longer as text than in the pickle.
    return repr(code[:20]) if isinstance(code, str) else f"of type {type(code).__name__}"


@final
class PickledArray:
    """Stands in for ``numpy.ndarray``; ``array`` is there once the state has been set."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("a numpy array of unknown layout")
        _, shape, dtype, fortran_order, content = state
        if type(dtype) is not PickledDtype or type(content) is not bytes:
            raise pickle.UnpicklingError("a numpy array that holds objects")
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("a numpy array of impossible shape")
        flat = np.frombuffer(content, dtype=dtype.dtype)
        if math.prod(shape) != flat.size:
            raise pickle.UnpicklingError("a numpy array whose shape does not fit its values")
        self.array = flat.reshape(shape, order="F" if fortran_order else "C")


def rebuild_array(kind: object = None, shape: object = None, code: object = None) -> PickledArray:  # noqa: ARG001
    """Stand in for numpy's ``_reconstruct``, which makes the empty array that the state then fills."""
    if kind is not PickledArray:
        raise pickle.UnpicklingError("an array of a class of its own")
    return PickledArray()


def rebuild_scalar(dtype: object = None, content: object = b"") -> float | int | bool | str:
    """Stand in for numpy's ``scalar``: the plain Python value."""
    if type(dtype) is not PickledDtype or type(content) is not bytes:
        raise pickle.UnpicklingError("a numpy scalar that holds an object")
    values = np.frombuffer(content, dtype=dtype.dtype)
    if values.size != 1:
        raise pickle.UnpicklingError("a numpy scalar whose bytes do not fit its type")
    value: float | int | bool | str = values[0].item()
    return value


def rebuild_from_buffer(
    content: object = b"", dtype: object = None, shape: object = None, order: object = "C"
) -> PickledArray:
    """Stand in for numpy's ``_frombuffer``, which pickles of protocol 5 call."""
    made = PickledArray()
    made.__setstate__((1, shape, dtype, order == "F", content))
    return made


STAND_INS: Final = (
    (PickledDtype, "numpy.dtype"),
    (PickledArray, "numpy.ndarray"),
    # numpy 2 renamed numpy.core; files of both are in use.
    (rebuild_array, "numpy._core.multiarray._reconstruct"),
    (rebuild_array, "numpy.core.multiarray._reconstruct"),
    (rebuild_from_buffer, "numpy._core.numeric._frombuffer"),
    (rebuild_from_buffer, "numpy.core.numeric._frombuffer"),
    (rebuild_scalar, "numpy._core.multiarray.scalar"),
    (rebuild_scalar, "numpy.core.multiarray.scalar"),
)
"""What both unpicklers put in numpy's place: (stand-in, name in the pickle)."""
