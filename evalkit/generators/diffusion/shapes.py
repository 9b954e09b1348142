"""Sizes read off a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from evalkit.errors import CheckpointError

Tensors = Mapping[str, Tensor]


def size_of(tensors: Tensors, name: str, axis: int) -> int:
    """Return the length of tensor ``name`` along ``axis``.

    Raises:
        CheckpointError: there is no such tensor, or it has too few axes.
    """
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim <= axis:
        raise CheckpointError(
            f"the tensor {name} is missing or misshapen", hint="is this the checkpoint of another model?"
        )
    return int(tensor.shape[axis])
