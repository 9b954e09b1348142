"""Images of a source as small files inside the page: read by index, encoded within a bound of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evalkit.core import ImageSource
from evalkit.pages.report_facts import Picture
from evalkit.runtime import strict_numerics

PAGE_BYTES = 3_600_000
"""Bound of all picture data in a page, in characters; the rest of the page is far smaller than a megabyte."""

_EXACT = 64
_LARGEST = 128
_FEWEST_BYTES = 900
# Longest side and WebP quality, tried until a picture fits its share; None is without loss.
_LADDER = ((_LARGEST, 90), (_LARGEST, 75), (96, 75), (64, 75), (48, 60), (32, 50))
_AT_ONCE = 16

Pixels = NDArray[np.uint8]


class Studio:
    """Encodes every picture of a page, each within its share of the bytes."""

    def __init__(self, pictures: int) -> None:
        self._share = max(int(PAGE_BYTES * 3 / 4 / max(pictures, 1)) - 30, _FEWEST_BYTES)

    def picture(self, pixels: Pixels, *, alt: str, caption: str = "") -> Picture:
        """Return uint8 ``[h, w, 3]`` as a picture.

        Sides up to 64 pixels are kept exactly, where they fit; larger ones are shown smaller.
        """
        image = Image.fromarray(pixels)
        data = _encoded(image, None) if max(image.size) <= _EXACT else None
        for side, quality in _LADDER:
            if data is not None and len(data) <= self._share:
                break
            image = Image.fromarray(pixels)
            if max(image.size) > side:
                image.thumbnail((side, side), Image.Resampling.LANCZOS)
            data = _encoded(image, quality)
        text = base64.b64encode(data or b"").decode("ascii")
        return Picture(
            data=f"data:image/webp;base64,{text}",
            width=image.width,
            height=image.height,
            alt=alt,
            caption=caption,
        )


class Album:
    """The images of one source; each is read once, at the size at which a page can show it.

    Args:
        source: the images.
        stop: returns the number of a signal that arrived, or 0.
        interruption: the error to raise then.
    """

    def __init__(
        self, source: ImageSource, *, stop: Callable[[], int], interruption: Callable[[int], Exception]
    ) -> None:
        self._source = source
        self._stop = stop
        self._interruption = interruption
        self._kept: dict[int, Pixels] = {}

    def pixels(self, index: Iterable[int]) -> list[Pixels]:
        """Return the images at ``index``, uint8 ``[h, w, 3]``, none larger than a page shows."""
        wanted = [int(number) for number in index]
        missing = sorted(set(wanted) - self._kept.keys())
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            with strict_numerics():
                images = self._source.read(np.asarray(part, dtype=np.int64)).images
            self._kept.update(zip(part, (reduced(image) for image in images), strict=True))
            if number := self._stop():
                raise self._interruption(number)
        return [self._kept[number] for number in wanted]


def reduced(image: Tensor) -> Pixels:
    """Return a uint8 ``[3, h, w]`` image as ``[h, w, 3]`` pixels, its longer side at most 128."""
    pixels = np.ascontiguousarray(image.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    if max(pixels.shape[:2]) <= _LARGEST:
        return pixels
    smaller = Image.fromarray(pixels)
    smaller.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(smaller, dtype=np.uint8)


def _encoded(image: Image.Image, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, format="webp", lossless=True, quality=50, method=2)
    else:
        image.save(buffer, format="webp", quality=quality, method=4)
    return buffer.getvalue()
