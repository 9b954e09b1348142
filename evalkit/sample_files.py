"""Writing samples: PNG files, one npz in the layout that evaluators share, or one grid to look at."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalkit.atomic import write_atomically


def write_samples(out: Path, images: NDArray[np.uint8], *, labels: NDArray[np.int64] | None) -> None:
    """Write uint8 ``[n, 3, h, w]`` images to a folder, ``.npz`` or ``.png``; whole files or none.

    Raises:
        TemporaryError: the disk is full or read-only.
    """
    if out.suffix == ".npz":
        buffer = io.BytesIO()
        arrays = {"arr_0": images.transpose(0, 2, 3, 1)} | ({} if labels is None else {"arr_1": labels})
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomically(out, buffer.getvalue())
    elif out.suffix == ".png":
        write_atomically(out, _png(grid(images)))
    else:
        for number, image in enumerate(images):
            write_atomically(out / f"{number:06d}.png", _png(image))


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``[3, rows*h, columns*w]``: as near to a square as fits, missing tiles black."""
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * columns, channels, height, width), dtype=np.uint8)
    canvas[:n] = images
    tiles = canvas.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return tiles.reshape(channels, rows * height, columns * width)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="png")
    return buffer.getvalue()
