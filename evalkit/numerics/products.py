"""Where large matrix products are computed: by numpy, or by torch on a device inside a context.

    with products_on("cuda"):
        precision_recall_density_coverage(generated, reference, k=3)

A tile of a product of two sets of rows is all that is asked for; what is made of the tile stays in numpy.
torch multiplies with MKL, which is a quarter faster than numpy's OpenBLAS on the processors tried, and on an
accelerator the larger set stays there. This module imports torch only inside the context.

Accepted trade-offs: tiles come back from an accelerator. They are a d-th of the work, and the sorting and
counting made of them would have to exist twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evalkit.numerics.arrays import Float64Array

if TYPE_CHECKING:
    import torch

_device: ContextVar[str | None] = ContextVar("device of large products", default=None)


@contextmanager
def products_on(device: str) -> Iterator[None]:
    """Compute the large float64 products of this thread's calls in torch on ``device``.

    Sums differ from numpy's in the last digits only. ``mps`` has no float64: there it is the CPU.
    """
    token = _device.set("cpu" if device.startswith("mps") else device)
    try:
        yield
    finally:
        _device.reset(token)


class Products(Protocol):
    """Products of one set of rows ``[n, d]`` with tiles of others."""

    def tile(self, rows: slice, right: Float64Array) -> Float64Array:
        """Return ``left[rows] @ right.T``, valid until the next call."""
        ...


def products_of(left: Float64Array) -> Products:
    """Return what multiplies rows of ``left`` ``[n, d]`` float64, where the context says."""
    device = _device.get()
    return _NumpyProducts(left) if device is None else _TorchProducts(left, device)


def product(left: Float64Array, right: Float64Array) -> Float64Array:
    """Return ``left @ right``, ``[n, k]`` and ``[k, m]``, computed where the context says."""
    device = _device.get()
    if device is None:
        return np.asarray(left @ right)
    return _TorchProducts(left, device).tile(slice(None), right.T)


class _NumpyProducts:
    def __init__(self, left: Float64Array) -> None:
        self._left = left
        self._buffer = np.empty(0)

    def tile(self, rows: slice, right: Float64Array) -> Float64Array:
        left = self._left[rows]
        size = len(left) * len(right)
        # One buffer: fresh memory for every tile costs as much as a pass over it.
        if self._buffer.size < size:
            self._buffer = np.empty(size)
        out = self._buffer[:size].reshape(len(left), len(right))
        return np.asarray(np.matmul(left, right.T, out=out))


class _TorchProducts:
    def __init__(self, left: Float64Array, device: str) -> None:
        import torch  # noqa: PLC0415 - only where the context asks for it

        self._from_numpy, self._multiply = torch.from_numpy, torch.matmul
        self._device = device
        self._left = torch.from_numpy(left).to(device)
        self._buffer = torch.empty(0, dtype=torch.float64, device=device)

    def tile(self, rows: slice, right: Float64Array) -> Float64Array:
        left = self._left[rows]
        other: torch.Tensor = self._from_numpy(right).to(self._device)
        size = len(left) * len(other)
        if self._buffer.numel() < size:
            self._buffer = left.new_empty(size)
        out = self._buffer[:size].view(len(left), len(other))
        self._multiply(left, other.T, out=out)
        return np.asarray(out.cpu().numpy())
