"""The picture of the worst pairs: which pairs, where each tile stands, and names that cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from evalkit.errors import UsageError
from evalkit.pairs.contact_sheet import Triplet, draw_sheet
from evalkit.pairs.per_pair import PairTable, find_heading

KNOWN = ("psnr", "ssim", "ssim/inside", "lpips:alex", "pd:efficientnet-lite0@1a2b3c4d")


def table(values: list[float], better: str) -> PairTable:
    names = tuple((f"{i}", f"{i}") for i in range(len(values)))
    return PairTable(names, {"x": np.asarray(values, dtype=np.float32)}, {"x": better})  # type: ignore[dict-item]


def test_worst_first_ties_by_index_and_nothing_without_a_value():
    values = [3.0, np.nan, 5.0, 3.0, np.inf]
    assert table(values, "higher").worst("x", 3) == [0, 3, 2]
    assert table(values, "lower").worst("x", 9) == [4, 2, 0, 3]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, "lpips:alex"),
        ("ssim", "ssim"),
        ("ssim/inside", "ssim/inside"),
        ("ssim/whole", "ssim"),
        ("lpips", "lpips:alex"),
        ("lpips-alex", "lpips:alex"),
        ("pd", "pd:efficientnet-lite0@1a2b3c4d"),
        ("pd-efficientnet-lite0", "pd:efficientnet-lite0@1a2b3c4d"),
    ],
)
def test_columns_go_by_several_names(asked, found):
    assert find_heading(asked, KNOWN) == found


def test_a_column_that_is_not_there():
    for asked in ("lpips:vgg", "ssim/outside", "fid"):
        with pytest.raises(UsageError, match="is not measured"):
            find_heading(asked, KNOWN)


def flat(level: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.full((*size, 3), level, dtype=np.uint8)


def test_tiles_stand_side_by_side_and_the_difference_is_brightened():
    sheet = draw_sheet([Triplet(flat(100), flat(60), "a", "ssim 0.5")], title="t")
    pixels = np.asarray(sheet)
    row = pixels[pixels.shape[0] - 16 - 96 - 16]
    assert row[16 + 96].tolist() == [100] * 3
    assert row[16 + 196 + 96].tolist() == [60] * 3
    assert row[16 + 392 + 96].tolist() == [40 * 6] * 3  # 255 // 40 = 6


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (300, 20), (20, 300), (2000, 1999), (97, 97)])
def test_any_size_fits(size):
    sheet = draw_sheet([Triplet(flat(9, size), flat(9, size), "a", "v")] * 5, title="t")
    assert sheet.size == (2 * (3 * 192 + 8 + 16) + 16, 40 + 3 * (228 + 16) + 32)


@pytest.mark.parametrize("name", ["日本語" * 40, "\x1b[31m\n\r", "\ud83d\udc4d", "\udcff", "x" * 5000, ""])
def test_names_are_only_drawn(name):
    draw_sheet([Triplet(flat(0), flat(0), name, "v")], title=name)


def test_a_machine_without_freetype_draws_too(monkeypatch):
    """Pillow's bitmap font knows Latin-1 alone, and no size."""
    bitmap = ImageFont.load_default_imagefont()
    monkeypatch.setattr(ImageFont, "load_default", lambda _size=None: bitmap)
    draw_sheet([Triplet(flat(0), flat(0), "日本語", "v")], title="t")
