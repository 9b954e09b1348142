"""Writing samples: PNG files, one npz in the layout that evaluators share, or one grid to look at."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.core import IndexArray
from evalkit.spec import Scalar, Spec

MANIFEST = "evalkit.samples/1"


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


def write_manifest(
    out: Path, images: NDArray[np.uint8], *, source: Spec, generator: Spec, seeds: IndexArray,
    labels: NDArray[np.int64] | None, facts: Mapping[str, Scalar],
) -> Path:  # fmt: skip
    """Write what every sample is, beside ``out``: its index, seed, label and the digest of its pixels.

    The digest is the SHA-256 of the uint8 ``[3, h, w]`` values in that order, so that two machines can tell
    whether they drew the same image without exchanging it.

    Returns:
        Path of the manifest, ``OUT.manifest.json`` without the ending of ``out``.

    Raises:
        TemporaryError: the disk is full or read-only.
    """
    rows = [
        {
            "index": i,
            "seed": int(seeds[i]),
            "label": None if labels is None else int(labels[i]),
            "sha256": hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest(),
        }
        for i, image in enumerate(images)
    ]
    content = {
        "schema": MANIFEST,
        "generator": generator.to_json(),
        "source": source.to_json(),
        **facts,
        "samples": rows,
    }
    path = out.with_name(f"{out.stem}.manifest.json")
    write_atomically(path, strict_json.dumps(content))
    return path


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
