"""Named image resizers: each is part of the protocol fingerprint, because each gives another score.

| name                     | what it reproduces                                                   |
|--------------------------|----------------------------------------------------------------------|
| `tf1-bilinear`           | FID as published (TensorFlow 1 legacy kernel), torch-fidelity, ADM   |
| `torch-bilinear`         | pytorch-fid: half-pixel centres, no antialias                        |
| `pil-bicubic-float`      | clean-fid: Pillow mode F, antialiased bicubic, clipped, not rounded  |
| `pil-bicubic-uint8`      | dgm-eval: Pillow RGB, antialiased bicubic, rounded to uint8          |
| `pil-bicubic-uint8-crop` | OpenAI CLIP, clean-fid's CLIP-FID: shorter side, then centre crop    |
| `crop-pil-bicubic-uint8` | CMMD: centre square crop, then as dgm-eval                           |
| `torch-bicubic-aa`       | EDM2: antialiased bicubic in float32; leaves 0..255, is not clipped  |
| `torch-bicubic-aa-crop`  | CLIP on the device: shorter side, then centre crop; not rounded      |
| `none`                   | nothing: images must already have the network's size                 |

Those without ``crop`` change the aspect ratio of oblong images. All are pure functions ``(images uint8
[n, 3, h, w], size) -> float32 [n, 3, size, size]`` on the scale 0..255, and every image is resized by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evalkit.errors import InvalidInputError
from evalkit.extractors.facts import Preset
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
    return _by_pillow(images, size=(size, size))


def _by_pillow(images: Tensor, *, size: tuple[int, int]) -> Tensor:
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    height, width = size
    resized = np.empty((len(pictures), height, width, 3), dtype=np.float32)
    for picture, out in zip(pictures, resized, strict=True):
        out[...] = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(images.device)


@RESIZERS.register("pil-bicubic-uint8-crop")
def pil_bicubic_uint8_crop(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side to ``size`` as a Pillow RGB image, bicubic, and cut out the centre.

    Source: the preprocessing of github.com/openai/CLIP, which is torchvision's ``Resize`` and ``CenterCrop``.
    """
    height, width = _shorter_side_to(images, size)
    top, left = _centre(height, width, size)
    resized = _by_pillow(images, size=(height, width))
    return resized[..., top : top + size, left : left + size]


@RESIZERS.register("crop-pil-bicubic-uint8")
def crop_pil_bicubic_uint8(images: Tensor, size: int) -> Tensor:
    """Cut out the centre square and resize it as a Pillow RGB image, bicubic.

    Source: ``io_util.py`` of the CMMD reference code; an odd margin is cut on the right and at the bottom.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pil_bicubic_uint8(images[..., top : top + side, left : left + side], size)


@RESIZERS.register("torch-bicubic-aa-crop")
def torch_bicubic_antialiased_crop(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side to ``size`` by the antialiased bicubic kernel in float32 and cut the centre."""
    height, width = _shorter_side_to(images, size)
    pixels = images.float()
    if images.shape[-2:] != (height, width):
        pixels = F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    top, left = _centre(height, width, size)
    return pixels[..., top : top + size, left : left + size]


def _shorter_side_to(images: Tensor, size: int) -> tuple[int, int]:
    """Return the new height and width; the longer side is rounded down, as torchvision does."""
    height, width = images.shape[-2:]
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    return (size, scaled) if height <= width else (scaled, size)


def _centre(height: int, width: int, size: int) -> tuple[int, int]:
    """Return top and left of the centre crop; halves are rounded to even, as torchvision does."""
    return round((height - size) / 2), round((width - size) / 2)


def prepared(images: Tensor, size: int, preset: Preset) -> Tensor:
    """Return uint8 ``[n, 3, h, w]`` images as a network takes them: resized, then scaled by ``preset``."""
    pixels = (RESIZERS[preset.resizer](images, size) - preset.offset) / preset.divisor
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
        for values in (preset.mean, preset.std)
    )
    return (pixels - mean) / std


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
