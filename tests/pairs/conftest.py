"""Tiles of real photographs and their blurred, noisy copies, with masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter

from evalkit.console import Silent
from evalkit.pairs.evaluate import evaluate_pairs
from evalkit.pairs.request import Measuring, PairsRequest
from evalkit.record import RunRecord

HEIGHT, WIDTH, COUNT = 40, 48, 20


@pytest.fixture(scope="session")
def tiles() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(generated, reference, mask) of each pair: uint8 [h, w, 3] twice, bool [h, w]."""
    rng = np.random.default_rng(5)
    picture = skimage.data.astronaut()
    found = []
    for i in range(COUNT):
        y, x = (i // 5) * HEIGHT + 20, (i % 5) * WIDTH + 100
        tile = np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH])
        blurred = Image.fromarray(tile).filter(ImageFilter.GaussianBlur(0.1 * i))
        noisy = np.asarray(blurred) + rng.normal(0, 2 + i, tile.shape)
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[8 : 20 + i, 10:30] = True
        found.append((np.clip(noisy, 0, 255).astype(np.uint8), tile, mask))
    return found


@pytest.fixture
def folders(tmp_path: Path, tiles: list) -> tuple[Path, Path, Path]:
    """Folders ``out``, ``truth`` and ``masks`` with equal names."""
    for number, (generated, reference, mask) in enumerate(tiles):
        for folder, pixels in (("out", generated), ("truth", reference), ("masks", mask.astype("u1") * 255)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number:02d}.png")
    return tmp_path / "out", tmp_path / "truth", tmp_path / "masks"


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., RunRecord]:
    """``evaluate(out, truth, measures=("psnr",))``: fields of the request or of its measuring."""

    def run(generated: Path | None, reference: Path | None, **fields: object) -> RunRecord:
        known = Measuring.__dataclass_fields__
        settings = {"measures": ("psnr", "ssim"), "out": tmp_path / "runs", "device": "cpu"}
        settings |= {name: fields.pop(name) for name in list(fields) if name in known}
        stop = fields.pop("stop", lambda: 0)
        request = PairsRequest(generated=generated, reference=reference, measuring=Measuring())
        request = replace(request, measuring=Measuring(**settings), **fields)
        return evaluate_pairs(request, console=Silent(), stop=stop)

    return run
