"""What pipelines give back, as uint8 images; nothing is resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evalkit.errors import InvalidInputError

ROUNDING = "round(255 x) clipped to 0..255"
"""How diffusers itself turns [0, 1] into uint8."""


def as_uint8(images: Any, count: int) -> Tensor:  # noqa: ANN401 - pipelines give arrays, tensors or PIL images
    """Return uint8 ``[n, 3, h, w]`` on the CPU.

    Args:
        images: float ``[n, h, w, c]`` in [0, 1] (NumPy), float ``[n, c, h, w]`` in [0, 1] (torch), or n PIL
            images; c is 3, or 1 for grey.
        count: n.

    Raises:
        InvalidInputError: another kind, number, range or shape, or a number that is not finite.
    """
    array = _channels_last(images)
    if array.ndim != 4 or len(array) != count or array.shape[3] not in {1, 3}:
        raise InvalidInputError(f"the pipeline returned {list(array.shape)}, not [{count}, h, w, 3]")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise InvalidInputError(
                "the pipeline returned numbers that are not finite", hint="try --dtype float32"
            )
        if array.min() < -1e-3 or array.max() > 1 + 1e-3:
            raise InvalidInputError(
                f"the pipeline returned values in {array.min():.3g} .. {array.max():.3g}, not 0 .. 1"
            )
        array = np.round(np.clip(array, 0.0, 1.0) * 255).astype(np.uint8)
    colour = np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(0, 3, 1, 2)))


def _channels_last(images: Any) -> np.ndarray[Any, np.dtype[Any]]:  # noqa: ANN401 - see as_uint8
    if isinstance(images, Tensor):
        return images.float().cpu().permute(0, 2, 3, 1).numpy() if images.ndim == 4 else images.cpu().numpy()
    if isinstance(images, np.ndarray):
        return images
    if isinstance(images, Sequence) and images and all(isinstance(image, Image.Image) for image in images):
        return np.stack([np.asarray(image.convert("RGB")) for image in images])
    if isinstance(images, Sequence) and images and all(isinstance(image, np.ndarray) for image in images):
        return np.stack(images)
    raise InvalidInputError(f"the pipeline returned {type(images).__name__}, no images")
