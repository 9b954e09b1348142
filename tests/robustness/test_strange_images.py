"""Images that are damaged, odd, too few or all alike: what a score of them says."""

from __future__ import annotations

import io
import math
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from evalkit.record import RunRecord
from tests.sources.conftest import encode


@pytest.fixture
def folder(tmp_path):
    """Sixty good images."""
    made = tmp_path / "images"
    made.mkdir()
    rng = np.random.default_rng(3)
    for number in range(60):
        (made / f"{number:03d}.png").write_bytes(encode(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)))
    return made


def _record(tmp_path) -> RunRecord:
    found = [RunRecord.read(path) for path in (tmp_path / "out").glob("*.json")]
    return max((record for record in found if record.status == "complete"), key=lambda record: record.run_id)


@pytest.mark.fault("images-damaged")
def test_damaged_files_are_listed_or_skipped_and_recorded(tmp_path, folder, score, observed):
    assert score("--images", folder).code == 0
    clean = _record(tmp_path)
    whole = (folder / "000.png").read_bytes()
    (folder / "x-cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "x-empty.png").write_bytes(b"")
    (folder / "x-text.jpg").write_bytes(b"no image at all")
    jpeg = bytearray(encode(np.zeros((16, 16, 3), np.uint8), "JPEG"))
    jpeg[2] ^= 0xFF
    (folder / "x-flipped.jpg").write_bytes(jpeg)
    ended = score("--images", folder)
    assert ended.code == 6
    assert all(f"x-{kind}" in ended.err for kind in ("cut", "empty", "text", "flipped"))
    skipped = score("--images", folder, "--on-bad", "skip", "--max-bad", "4")
    assert skipped.code == 0
    record = _record(tmp_path)
    assert (record.inputs.found, record.inputs.used, len(record.inputs.rejected)) == (64, 60, 4)
    assert score("--images", folder, "--on-bad", "skip", "--max-bad", "3").code == 6
    (folder / "000.png").unlink()
    assert score("--images", folder, "--on-bad", "skip", "--max-bad", "4").code == 0
    assert _record(tmp_path).protocol.fingerprint != clean.protocol.fingerprint, "another N"
    observed(f"{ended.told.splitlines()[0]} - with `--on-bad skip`: 60 of 64 used, 4 rejected")


@pytest.mark.fault("decompression-bomb")
def test_a_bomb_is_refused_on_the_command_line(tmp_path, folder, score, observed):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )
    (folder / "bomb.png").write_bytes(bomb)
    ended = score("--images", folder)
    assert ended.code == 6
    assert "bomb.png" in ended.err
    observed(f"{ended.told} ({len(bomb)} bytes)")


@pytest.mark.fault("float-images")
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_floats_are_no_images(tmp_path, score, observed, low):
    observed(_floats(tmp_path, score, low, code=2))


@pytest.mark.fault("nan-pixels")
def test_pixels_that_are_no_numbers_are_refused(tmp_path, score, observed):
    observed(_floats(tmp_path, score, math.nan, code=6))


def _floats(tmp_path, score, low: float, *, code: int) -> str:
    pixels = np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)
    pixels[0, 0, 0, 0] = low
    np.savez(tmp_path / "x.npz", pixels)
    ended = score("--images", tmp_path / "x.npz")
    assert ended.code == code
    return ended.told


@pytest.mark.fault("all-black")
def test_black_images_warn_and_score(tmp_path, score, observed):
    np.savez(tmp_path / "black.npz", np.zeros((64, 16, 16, 3), np.uint8))
    ended = score("--images", tmp_path / "black.npz", "--metrics", "fd,kd")
    assert ended.code == 0
    record = _record(tmp_path)
    assert all(math.isfinite(result.value) for result in record.results)
    (told,) = {warning for result in record.results for warning in result.warnings if "duplicate" in warning}
    assert told in ended.out
    value = next(result.value for result in record.results if result.metric.startswith("fd"))
    observed(f"exit 0: {told}; fd {value:.3f}")


@pytest.mark.fault("no-images")
def test_no_image_is_5(tmp_path, score, observed):
    (tmp_path / "none").mkdir()
    ended = score("--images", tmp_path / "none")
    assert ended.code == 5
    observed(ended.told)


@pytest.mark.fault("too-few-images")
def test_too_few_images_say_how_many_are_needed(tmp_path, folder, score, observed):
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    ended = score("--images", folder)
    assert ended.code == 6
    assert "at least 2" in ended.err
    observed(ended.told)


@pytest.mark.fault("fewer-images-than-dimensions")
def test_few_images_are_flagged(tmp_path, score, observed):
    observed(_warned(tmp_path, score, "small sample, rank-deficient: 40 images in 48 dimensions", same=0))


@pytest.mark.fault("duplicate-images")
def test_repeated_images_are_counted(tmp_path, score, observed):
    observed(_warned(tmp_path, score, "10 of 40 generated images are exact duplicates of others", same=10))


def _warned(tmp_path, score, text: str, *, same: int) -> str:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    images[40 - same :] = images[0]
    np.savez(tmp_path / "few.npz", images)
    ended = score("--images", tmp_path / "few.npz")
    assert ended.code == 0
    (result,) = _record(tmp_path).results
    (warning,) = [warning for warning in result.warnings if warning.startswith(text)]
    assert warning in " ".join(ended.out.split())
    return f"exit 0: {warning}"


@pytest.mark.fault("mixed-sizes")
def test_images_of_several_sizes_are_scored(tmp_path, folder, score, observed):
    (folder / "large.png").write_bytes(encode(np.zeros((40, 24, 3), np.uint8)))
    ended = score("--images", folder)
    assert ended.code == 0
    assert _record(tmp_path).inputs.used == 61
    observed("exit 0: 61 images of two sizes are scored; pairs of two sizes: exit 6, naming them")


@pytest.mark.fault("unclear-pixels")
@pytest.mark.parametrize("kind", ["alpha", "animation", "orientation"])
def test_what_pixels_are_meant_must_be_said(tmp_path, folder, score, observed, kind):
    image = Image.fromarray(np.arange(16 * 16 * 4, dtype=np.uint8).reshape(16, 16, 4), "RGBA")
    stream = io.BytesIO()
    if kind == "alpha":
        image.save(stream, "PNG")
    elif kind == "animation":
        image.convert("RGB").save(stream, "PNG", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.convert("RGB").save(stream, "PNG", exif=exif)
    (folder / "odd.png").write_bytes(stream.getvalue())
    ended = score("--images", folder)
    assert ended.code == 6
    assert "odd.png" in ended.err
    assert "--" in ended.err, "a flag says what to do"
    observed(ended.told)


@pytest.mark.fault("hostile-archive")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_climb_are_only_names(tmp_path, folder, score, observed, kind):
    inner = tmp_path / "inner"
    inner.mkdir()
    data = (folder / "000.png").read_bytes()
    path = inner / f"x.{kind}"
    names = ["../climbs.png", "/tmp/absolute.png", *(f"{number}.png" for number in range(58))]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    ended = score("--images", path)
    assert ended.code == 0
    assert _record(tmp_path).inputs.used == 60
    assert sorted(found.name for found in tmp_path.iterdir()) == ["images", "inner", "out"]
    assert [found.name for found in inner.iterdir()] == [path.name]
    observed("exit 0: 60 images are read in place; no file was written")


@pytest.mark.fault("bad-statistics")
def test_statistics_that_cannot_be_are_refused_on_the_command_line(tmp_path, score, observed):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(48), sigma=np.diag([1.0] * 47 + [-1.0]))
    ended = score("--reference", tmp_path / "stats.npz")
    assert ended.code == 6
    assert "positive semidefinite" in ended.err
    observed(ended.told)
