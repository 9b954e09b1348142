"""How images enter an encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from evalkit.errors import InvalidInputError


def entering(images: Tensor, resolution: int, *, name: str) -> Tensor:
    """Return uint8 ``[n, 3, h, w]`` as float32 ``x / 127.5 - 1``, as in training.

    Raises:
        InvalidInputError: ``images`` are not uint8, or not of ``resolution``.
    """
    expected = (3, resolution, resolution)
    if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise InvalidInputError(
            f"model {name!r} reconstructs torch.uint8 images of shape {['n', *expected]}, "
            f"not {images.dtype} of {list(images.shape)}",
            hint="resize them first: nothing is resized silently",
        )
    return images.float().div(127.5).sub(1.0).contiguous(memory_format=torch.channels_last)
