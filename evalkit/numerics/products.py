"""Where large matrix products are computed: by numpy, or by torch on a device inside a context.

    with products_on("cuda"):
        precision_recall_density_coverage(generated, reference, k=3)

A tile of a product of two sets of rows is all that is asked for; what is made of the tile stays in numpy, but
for the cubes of all its entries (:func:`cube`). torch multiplies with MKL, which is a quarter faster than
numpy's OpenBLAS on Intel's processors that were tried and a tenth slower on AMD's, where numpy goes on to
multiply. On an accelerator the larger set stays there. This module imports torch only inside the context.

Accepted trade-offs: tiles come back from an accelerator. They are a d-th of the work, and the sorting and
counting made of them would have to exist twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from evalkit.numerics.arrays import Float64Array, FloatArray

if TYPE_CHECKING:
    import torch

F = TypeVar("F", np.float32, np.float64)
Item = TypeVar("Item")
Result = TypeVar("Result")

_device: ContextVar[str | None] = ContextVar("device of large products", default=None)
_bitwise: ContextVar[bool] = ContextVar("whether float32 products are out of the question", default=False)


@contextmanager
def products_on(device: str, *, bitwise: bool = False) -> Iterator[None]:
    """Compute the large products of this thread's calls, and of the threads that they start, on ``device``.

    They are torch's, but on a CPU where numpy is faster. Sums differ from numpy's in the last digits only.
    ``mps`` has no float64: there it is the CPU. ``bitwise`` forbids float32 products whose rounding reaches a
    result: which library multiplies would show in more digits.
    """
    tokens = _device.set("cpu" if device.startswith("mps") else device), _bitwise.set(bitwise)
    try:
        yield
    finally:
        _device.reset(tokens[0])
        _bitwise.reset(tokens[1])


def multiplier() -> str | None:
    """What computes float32 products that may be rounded into a result; None where they may not be."""
    if _bitwise.get() or on_accelerator():
        return None
    return "torch" if _device.get() and not _numpy_is_faster() and _torch_keeps_float32() else "numpy"


@cache
def _numpy_is_faster() -> bool:
    """Whether this processor is one on which OpenBLAS is faster than MKL."""
    facts = Path("/proc/cpuinfo")
    return facts.is_file() and "AuthenticAMD" in facts.read_text(encoding="utf-8", errors="replace")


class Products(Protocol[F]):
    """Products of one set of rows ``[n, d]`` with tiles of others."""

    def tile(self, rows: slice, right: NDArray[F]) -> NDArray[F]:
        """Return ``left[rows] @ right.T``, valid until this thread's next call."""
        ...


def apart() -> bool:
    """Whether work on tiles is spread over the cores tile by tile: inside the context for a CPU."""
    return _device.get() == "cpu" and not _bitwise.get()


def side_by_side(run: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """Yield ``run(item)`` in order, each item on a core of its own where :func:`apart` says so.

    Take all results, or close the generator: until then numpy's and scipy's products stay on one core.
    """
    if not apart():
        yield from map(run, items)
        return
    from evalkit.threads import in_threads  # noqa: PLC0415 - imports torch

    with threadpool_limits(1, user_api="blas"):
        yield from in_threads(run, items)


def on_accelerator() -> bool:
    """Whether the context computes products elsewhere than in this machine's memory."""
    device = _device.get()
    return device is not None and device != "cpu"


def products_of(left: NDArray[F]) -> Products[F]:
    """Return what multiplies rows of ``left`` ``[n, d]`` in their own precision, where the context says.

    Float32 products are rounded as float32, never as bfloat16 or TF32: where torch is set to do that, numpy
    multiplies.
    """
    device = _device_for(left)
    return _NumpyProducts(left) if device is None else _TorchProducts(left, device)


def product(left: Float64Array, right: Float64Array) -> Float64Array:
    """Return ``left @ right``, ``[n, k]`` and ``[k, m]``, computed where the context says."""
    device = _device_for(left)
    if device is None:
        return np.asarray(left @ right)
    return _TorchProducts(left, device).tile(slice(None), right.T)


def _device_for(left: FloatArray) -> str | None:
    """Where torch multiplies ``left``; None where numpy does."""
    device = _device.get()
    if device is None or (device == "cpu" and _numpy_is_faster()):
        return None
    return None if left.dtype == np.float32 and not _torch_keeps_float32() else device


def cube(values: FloatArray, *, scale: float, out: Float64Array, room: Float64Array) -> None:
    """Write ``(scale values + 1)^3`` to ``out``, in fewer passes inside the context.

    Args:
        values: ``[n, m]``.
        scale: a factor.
        out: float64 ``[n, m]``; may be ``values``.
        room: float64 ``[n, m]``, overwritten.
    """
    if _device.get() is None:
        out[:] = values
        out *= scale
        out += 1.0
        out *= np.multiply(out, out, out=room)
        return
    import torch  # noqa: PLC0415 - only where the context asks for it

    cubes = torch.from_numpy(out).copy_(torch.from_numpy(values))
    one = torch.ones((), dtype=torch.float64)
    torch.add(one, cubes, alpha=scale, out=cubes).pow_(3)


def _torch_keeps_float32() -> bool:
    import torch  # noqa: PLC0415 - only where the context asks for it

    # Follows both of torch's ways to set it; the older function raises where they were mixed.
    return torch.backends.mkldnn.matmul.fp32_precision in {"ieee", "none"}  # type: ignore[attr-defined]


def _writeable(rows: NDArray[F]) -> NDArray[F]:
    """What torch takes: it warns of what is read-only and refuses what runs backwards."""
    return np.require(rows, requirements="W") if min(rows.strides) >= 0 else rows.copy()


class _NumpyProducts(Generic[F]):
    def __init__(self, left: NDArray[F]) -> None:
        self._left: NDArray[F] = left
        self._room = threading.local()

    def tile(self, rows: slice, right: NDArray[F]) -> NDArray[F]:
        left = self._left[rows]
        size = len(left) * len(right)
        # One buffer: fresh memory for every tile costs as much as a pass over it.
        buffer: NDArray[F] | None = getattr(self._room, "buffer", None)
        if buffer is None or buffer.size < size:
            buffer = self._room.buffer = np.empty(size, dtype=left.dtype)
        out = buffer[:size].reshape(len(left), len(right))
        return np.asarray(np.matmul(left, right.T, out=out))


class _TorchProducts(Generic[F]):
    def __init__(self, left: NDArray[F], device: str) -> None:
        import torch  # noqa: PLC0415 - only where the context asks for it

        self._from_numpy, self._multiply = torch.from_numpy, torch.matmul
        self._device = device
        self._left: torch.Tensor = torch.from_numpy(_writeable(left)).to(device)
        self._room = threading.local()

    def tile(self, rows: slice, right: NDArray[F]) -> NDArray[F]:
        left = self._left[rows]
        other: torch.Tensor = self._from_numpy(_writeable(right)).to(self._device)
        size = len(left) * len(other)
        buffer: torch.Tensor | None = getattr(self._room, "buffer", None)
        if buffer is None or buffer.numel() < size:
            buffer = self._room.buffer = left.new_empty(size)
        out = buffer[:size].view(len(left), len(other))
        self._multiply(left, other.T, out=out)
        return np.asarray(out.cpu().numpy())
