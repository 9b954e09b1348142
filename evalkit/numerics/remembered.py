"""Results that depend on one array, kept by its content: what every look works out of the same reference.

Accepted trade-offs: a process-wide cache, though of pure functions and by content, so that it cannot change a
number; a digest of the array (less than a second for a gigabyte) is taken even where nothing is found.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=NDArray[np.generic])

_KEPT = 8


def remembered(function: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
    """Keep the last 8 results of a pure function of an array and hashable arguments.

    A result that is an array must not be written to; it is returned read-only.
    """
    kept: OrderedDict[tuple[object, ...], R] = OrderedDict()
    lock = Lock()

    @wraps(function)
    def call(array: A, /, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (_digest(array), args, tuple(sorted(kwargs.items())))
        with lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        result = function(array, *args, **kwargs)
        if isinstance(result, np.ndarray):
            result = result.copy()  # it may be a view of what the caller goes on writing to
            result.flags.writeable = False
        with lock:
            kept[key] = result
            while len(kept) > _KEPT:
                kept.popitem(last=False)
        return result

    return call


def _digest(array: NDArray[np.generic]) -> tuple[object, ...]:
    content = hashlib.sha256(np.ascontiguousarray(array).data).digest()
    return array.dtype.str, array.shape, content
