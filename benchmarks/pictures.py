"""Seeded pictures for the benchmarks that read files: smooth colours with fine grain, as photographs have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_COARSE = 8  # pixels on a side of what is then enlarged
_GRAIN = 6.0  # standard deviation, of 255


def encoded(count: int, *, size: int, kind: str, seed: int = 0) -> list[bytes]:
    """Return ``count`` image files of ``size`` x ``size``: ``jpg`` at quality 90, or ``png``."""
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (_COARSE, _COARSE, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
        pixels = np.clip(smooth + rng.normal(0.0, _GRAIN, smooth.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        if kind == "jpg":
            Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        else:
            Image.fromarray(pixels).save(stream, "PNG")
        files.append(stream.getvalue())
    return files


def write_folder(folder: Path, files: list[bytes], *, kind: str) -> Path:
    """Write the files as ``000000.png`` and so on, and return the folder."""
    folder.mkdir(parents=True)
    for number, data in enumerate(files):
        (folder / f"{number:06d}.{kind}").write_bytes(data)
    return folder
