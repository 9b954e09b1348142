"""Grids of samples: small WebP pictures of real pictures only."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.leaderboard.samples import MOST_BYTES, sample_grid


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def opened(content):
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def test_a_picture_keeps_its_pixels_and_loses_its_metadata(tmp_path):
    info = PngInfo()
    info.add_text("comment", "secret")
    Image.new("RGB", (256, 128), (200, 30, 30)).save(tmp_path / "g.png", pnginfo=info, exif=b"Exif\0\0secret")
    content = sample_grid(tmp_path / "g.png")
    picture = opened(content)
    assert (picture.format, picture.mode, picture.size) == ("WEBP", "RGB", (256, 128))
    assert b"secret" not in content
    assert np.abs(np.asarray(picture).astype(int) - [200, 30, 30]).max() < 8


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    noise(64, 64).save(tmp_path / "g.png")
    assert sample_grid(tmp_path / "g.png") == sample_grid(tmp_path / "g.png")


def test_a_large_picture_of_noise_becomes_small(tmp_path):
    noise(600, 1200).save(tmp_path / "g.PNG")
    content = sample_grid(tmp_path / "g.PNG")
    assert len(content) <= MOST_BYTES
    assert opened(content).size == (512, 256)


def test_a_folder_becomes_eight_columns_of_its_first_samples_in_the_order_of_their_numbers(tmp_path):
    for number in range(40):
        Image.new("RGB", (16, 16), (6 * number, 0, 0)).save(tmp_path / f"s{number}.png")
    (tmp_path / "notes.txt").write_text("not a sample")
    picture = np.asarray(opened(sample_grid(tmp_path)))
    assert picture.shape == (64, 128, 3)
    centres = picture[8::16, 8::16, 0].astype(int)
    assert np.abs(centres.ravel() - 6 * np.arange(32)).max() < 8


def test_three_large_samples_stand_side_by_side_made_small(tmp_path):
    for number in range(3):
        Image.new("RGB", (1000, 1000)).save(tmp_path / f"{number}.png")
    assert opened(sample_grid(tmp_path)).size == (510, 170)


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "g.png")
    assert np.asarray(opened(sample_grid(tmp_path / "g.png"))).min() > 250


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "I;16", "RGBA"])
def test_every_kind_of_png_is_read(tmp_path, mode):
    Image.new(mode, (20, 10)).save(tmp_path / "g.png")
    assert opened(sample_grid(tmp_path / "g.png")).size == (20, 10)


@pytest.mark.parametrize(
    "content", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]
)
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "g.png").write_bytes(content)
    with pytest.raises(InvalidInputError, match="not a PNG or WebP picture"):
        sample_grid(tmp_path / "g.png")


def test_a_picture_cut_short_is_refused(tmp_path):
    noise(64, 64).save(tmp_path / "g.png")
    (tmp_path / "g.png").write_bytes((tmp_path / "g.png").read_bytes()[:3000])
    with pytest.raises(InvalidInputError, match="not a PNG or WebP picture"):
        sample_grid(tmp_path / "g.png")


def test_a_picture_of_another_format_is_refused_whatever_its_ending(tmp_path):
    noise(8, 8).save(tmp_path / "g.png", format="bmp")
    with pytest.raises(InvalidInputError, match="not a PNG or WebP picture"):
        sample_grid(tmp_path / "g.png")


@pytest.mark.parametrize("side", [9_000, 65_000])  # beyond our limit, and beyond Pillow's
def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path, side):
    noise(8, 8).save(tmp_path / "bomb.png")
    content = (tmp_path / "bomb.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    (tmp_path / "bomb.png").write_bytes(
        content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    )
    with pytest.raises(InvalidInputError, match="too large"):
        sample_grid(tmp_path / "bomb.png")


def test_an_animation_is_refused(tmp_path):
    noise(8, 8).save(tmp_path / "g.webp", save_all=True, append_images=[noise(8, 8, seed=1)])
    with pytest.raises(InvalidInputError, match="animated"):
        sample_grid(tmp_path / "g.webp")


def test_samples_of_two_sizes_make_no_grid(tmp_path):
    noise(8, 8).save(tmp_path / "0.png")
    noise(9, 8).save(tmp_path / "1.png")
    with pytest.raises(InvalidInputError, match=r"1\.png is 8 x 9 pixels"):
        sample_grid(tmp_path)


def test_a_path_that_leads_nowhere_or_to_something_else_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no picture or folder"):
        sample_grid(tmp_path / "none.png")
    (tmp_path / "g.gif").write_bytes(b"GIF89a")
    with pytest.raises(UsageError, match="neither"):
        sample_grid(tmp_path / "g.gif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingMeasuredError):
        sample_grid(tmp_path / "empty")
