"""Images large enough for several threads: same pixels, same order, same errors, nothing left open."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evalkit.errors import InvalidInputError
from evalkit.sources import encoded, open_source
from evalkit.sources.decode import DecodePolicy, decode_pixels
from evalkit.sources.integrity import damage

SIZES = [(64, 64), (64, 64), (128, 130), (64, 64), (63, 65), (8, 8), (128, 130)]


def plain(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.fixture
def mixed(rng, encode):
    return {
        f"{number}.{kind}": encode(rng.integers(0, 256, (*size, 3), dtype=np.uint8), kind.upper())
        for number, size in enumerate(SIZES)
        for kind in ("jpeg", "png")
    }


@pytest.fixture
def alike(mixed):
    return {name: data for name, data in mixed.items() if plain(data).shape == (3, 64, 64)}


@pytest.mark.parametrize("name", ["set", "set.zip", "set.tar", "set.tgz", "set.parquet"])
def test_threads_decode_every_image_to_its_own_place(write, alike, mixed, name):
    for files in (alike, mixed):
        path = write(f"{len(files)}-{name}", files)
        expected = [plain(files[key]) for key in sorted(files)]
        for workers in (1, 2, 7):
            images = open_source(path, workers=workers).read(np.arange(len(files))).images
            assert [tuple(image.shape) for image in images] == [image.shape for image in expected]
            for image, pixels in zip(images, expected, strict=True):
                np.testing.assert_array_equal(image.numpy(), pixels)
            assert hasattr(images, "shape") == (files is alike)


@pytest.mark.parametrize("bad", ["0.jpeg", "3.png", "6.png"])
@pytest.mark.parametrize("workers", [1, 4])
def test_bad_images_are_named_in_order_wherever_they_lie(write, mixed, bad, workers):
    files = {**mixed, bad: mixed[bad][:-20], "5.png": b""}
    source = open_source(write("set", files), workers=workers)
    with pytest.raises(InvalidInputError) as error:
        source.read(np.arange(len(files)))
    assert re.findall(r"^  '(\S+)'", error.value.message, re.MULTILINE) == sorted({bad, "5.png"})
    assert [image.name for image in source.check()] == sorted({bad, "5.png"})


def test_the_calling_thread_decodes_alone_where_images_are_small(write, files, alike, monkeypatch):
    used: set[str] = set()
    monkeypatch.setattr(
        encoded,
        "decode_pixels",
        lambda *a, **k: (used.add(threading.current_thread().name), decode_pixels(*a, **k))[1],
    )
    open_source(write("small", files), workers=4).read(np.arange(len(files)))
    assert used == {threading.current_thread().name}
    for _ in range(5):
        open_source(write("large", alike), workers=4).read(np.tile(np.arange(len(alike)), 20))
    assert 1 < len(used) <= 4
    assert all(name.startswith("evalkit-decode") for name in used - {threading.current_thread().name})


def test_a_source_waits_for_no_threads_that_another_holds(write, alike):
    held, path = threading.Event(), write("set", alike)
    running = [encoded._decoders(2).submit(held.wait) for _ in range(2)]
    batch = open_source(path, workers=3).read(np.arange(len(alike)))
    assert not any(future.done() for future in running)
    held.set()
    for image, name in zip(batch.images, sorted(alike), strict=True):
        np.testing.assert_array_equal(image.numpy(), plain(alike[name]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_decodes_with_threads_of_its_own(write, alike, monkeypatch):
    used: set[str] = set()

    def slow(*arguments, **options):
        time.sleep(0.01)  # the caller leaves some to the others
        used.add(threading.current_thread().name)
        return decode_pixels(*arguments, **options)

    monkeypatch.setattr(encoded, "decode_pixels", slow)
    source, index = open_source(write("set", alike), workers=3), np.arange(len(alike))
    expected = source.read(index).images.numpy().copy()
    assert len(used) > 1
    used.clear()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that waits for threads which only its parent has
        status = 1
        try:
            # By numpy: torch's threads do not live on in a fork either.
            same = np.array_equal(source.read(index).images.numpy(), expected)
            status = int(not (same and len(used) > 1))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_a_thread_cannot_handle_is_raised(write, alike, monkeypatch):
    def fail(*arguments, **options):
        if threading.current_thread().name.startswith("evalkit-decode"):
            raise MemoryError
        time.sleep(0.01)
        return decode_pixels(*arguments, **options)

    monkeypatch.setattr(encoded, "decode_pixels", fail)
    with pytest.raises(MemoryError):
        open_source(write("set", alike), workers=2).read(np.tile(np.arange(len(alike)), 4))


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_of_another_size_than_the_last(write, encode, rng, workers):
    sizes = [64, 64, 80, 80, 64, 80]
    pixels = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in sizes]
    files = {f"{number}.png": encode(image, "PNG") for number, image in enumerate(pixels)}
    source = open_source(write("set", files), workers=workers)
    for start in (0, 2, 4, 2, 0):
        images = source.read(np.arange(start, start + 2)).images
        assert isinstance(images, list) == (start == 4)
        for image, expected in zip(images, pixels[start : start + 2], strict=True):
            np.testing.assert_array_equal(image.numpy(), expected.transpose(2, 0, 1))


def test_a_batch_too_large_to_claim_at_once_is_stacked(write, alike, monkeypatch):
    path, index = write("set", alike), np.arange(len(alike))
    expected = open_source(path).read(index).images
    monkeypatch.setattr(encoded, "_MAX_BATCH_BYTES", expected.numel() - 1)
    np.testing.assert_array_equal(open_source(path).read(index).images.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["set.zip", "set.tar"])
def test_archives_are_closed_after_each_batch_and_missing_ones_are_named(write, alike, name):
    path = write(name, alike)
    source = open_source(path, workers=3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        source.read(np.arange(len(alike)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    path.unlink()
    with pytest.raises(InvalidInputError, match=r"'0.jpeg' cannot be read: No such file"):
        source.read(np.arange(2))


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), mode=st.sampled_from(["RGB", "L", "P", "1", "RGBA"])
)
@pytest.mark.parametrize("whole_rows", [True, False])
def test_pixels_land_in_the_room_that_fits_and_nowhere_else(height, width, mode, whole_rows):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "PNG")
    data, policy = stream.getvalue(), DecodePolicy()
    fitting = np.zeros((3, height, width), dtype=np.uint8)
    other = np.full((3, height, width + 1), 9, dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evalkit.sources.decode._PLANE_BY_PLANE_FROM", 1e9 if whole_rows else 0)
        assert decode_pixels(data, name="a", policy=policy, room=fitting) is fitting
        apart = decode_pixels(data, name="a", policy=policy, room=other)
    np.testing.assert_array_equal(fitting, plain(data))
    np.testing.assert_array_equal(apart, plain(data))
    assert (other == 9).all()


def slow_scan_fault(scan: bytes) -> str | None:
    """What is wrong with the bytes of one baseline scan and what follows it, byte by byte."""
    position, expected = 0, 0xD0
    while position < len(scan) - 1:
        if scan[position] != 0xFF or scan[position + 1] in {0x00, 0xFF}:
            position += 2 if scan[position : position + 2] == b"\xff\x00" else 1
        elif scan[position + 1] == expected:
            position, expected = position + 2, 0xD0 + (expected + 1) % 8
        elif 0xD0 <= scan[position + 1] <= 0xD7:
            return "order"
        else:
            return None if scan[position + 1] == 0xD9 else "other"
    return "truncated"


@given(st.lists(st.sampled_from([0x00, 0x41, 0xFF, 0xD0, 0xD1, 0xD2, 0xD9]), max_size=24).map(bytes))
def test_markers_in_a_scan_are_found_as_byte_by_byte(scan):
    header = b"\xff\xd8" + b"\xff\xda\x00\x02"
    found = damage(header + scan)
    expected = slow_scan_fault(scan)
    if expected is None:
        assert found is None
    elif expected == "order":
        assert found == "is corrupt (JPEG restart markers out of order)"
    elif expected == "truncated":
        assert found == "is truncated"
    else:  # another segment seems to begin, of which nothing is there
        assert found in {"is truncated", "is corrupt (an impossible JPEG marker between scans)"}
