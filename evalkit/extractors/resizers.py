"""Named image resizers: each is part of the protocol fingerprint, because each gives another score.

| name                | what it reproduces                                                        |
|---------------------|---------------------------------------------------------------------------|
| `tf1-bilinear`      | FID as published (TensorFlow 1 legacy kernel), torch-fidelity, ADM        |
| `torch-bilinear`    | pytorch-fid: half-pixel centres, no antialias                             |
| `pil-bicubic-float` | clean-fid: Pillow mode F, antialiased bicubic, clipped, not quantised     |
| `pil-bicubic-uint8` | dgm-eval: Pillow RGB, antialiased bicubic, rounded to uint8               |
| `torch-bicubic-aa`  | EDM2: antialiased bicubic in float32; overshoots 0..255, is not clipped   |
| `none`              | nothing: images must already have the network's size                      |

All are pure functions ``(images uint8 [n, 3, h, w], size) -> float32 [n, 3, size, size]`` on the scale
0..255, and every image is resized by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evalkit.errors import InvalidInputError
from evalkit.registry import Registry

Resizer = Callable[[Tensor, int], Tensor]

RESIZERS: Registry[Resizer] = Registry("resizer")


@RESIZERS.register("tf1-bilinear")
def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """Resize as TensorFlow 1 ``resize_bilinear(align_corners=False)`` does, without half-pixel centres.

    src = dst * in / out in float32, lo = floor(src), hi = min(lo + 1, in - 1); first along the width,
    then along the height (order of operations of tensorflow/core/kernels/resize_bilinear_op.cc, r1.15).
    """
    pixels = images.float()
    if pixels.shape[-1] != size:
        pixels = _lerp_along(pixels, dim=3, size=size)
    if pixels.shape[-2] != size:
        pixels = _lerp_along(pixels, dim=2, size=size)
    return pixels


def _lerp_along(pixels: Tensor, *, dim: int, size: int) -> Tensor:
    length = pixels.shape[dim]
    # The scale is rounded to float32 before it is multiplied: that is what the kernel does.
    scale = torch.tensor(length / size, dtype=torch.float32, device=pixels.device)
    source = torch.arange(size, dtype=torch.float32, device=pixels.device) * scale
    low = source.long()
    weight = (source - low).view([-1 if axis == dim else 1 for axis in range(4)])
    at_low = pixels.index_select(dim, low)
    at_high = pixels.index_select(dim, (low + 1).clamp_max_(length - 1))
    return at_low + (at_high - at_low) * weight


@RESIZERS.register("torch-bilinear")
def torch_bilinear(images: Tensor, size: int) -> Tensor:
    """Resize bilinearly with half-pixel centres and no antialias (pytorch-fid)."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False)


@RESIZERS.register("torch-bicubic-aa")
def torch_bicubic_antialiased(images: Tensor, size: int) -> Tensor:
    """Resize with the antialiased bicubic kernel (a = -0.5) in float32; the result may leave 0..255."""
    if images.shape[-2:] == (size, size):
        return images.float()
    return F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True)


@RESIZERS.register("pil-bicubic-float")
def pil_bicubic_float(images: Tensor, size: int) -> Tensor:
    """Resize every channel as a Pillow mode-F image, bicubic, then clip to 0..255 (clean-fid)."""
    planes = images.cpu().numpy().astype(np.float32)
    resized = np.empty((*planes.shape[:2], size, size), dtype=np.float32)
    for plane, out in zip(
        planes.reshape(-1, *planes.shape[2:]), resized.reshape(-1, size, size), strict=True
    ):
        out[...] = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized.clip(0, 255)).to(images.device)


@RESIZERS.register("pil-bicubic-uint8")
def pil_bicubic_uint8(images: Tensor, size: int) -> Tensor:
    """Resize as a Pillow RGB image, bicubic, rounded to uint8 (dgm-eval)."""
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    resized = np.empty((len(pictures), size, size, 3), dtype=np.float32)
    for picture, out in zip(pictures, resized, strict=True):
        out[...] = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(images.device)


@RESIZERS.register("none")
def unresized(images: Tensor, size: int) -> Tensor:
    """Return the images as float32.

    Raises:
        InvalidInputError: they are not ``size`` by ``size``.
    """
    if images.shape[-2:] != (size, size):
        height, width = images.shape[-2:]
        raise InvalidInputError(
            f"resizer 'none' needs {size}x{size} images, not {height}x{width}",
            hint="choose a resizer: " + ", ".join(name for name in RESIZERS if name != "none"),
        )
    return images.float()
