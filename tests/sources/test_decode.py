"""Bytes to uint8 RGB: exact where possible, refused where pixels would silently change."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.errors import InvalidInputError, UsageError
from evalkit.sources.decode import DecodePolicy, decode_image


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header_only(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")


@pytest.fixture
def photo(rng):
    smooth = np.cumsum(np.cumsum(rng.normal(size=(32, 24, 3)), axis=0), axis=1)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(photo, kind):
    image = decode_image(saved(Image.fromarray(photo), kind), name="a")
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    np.testing.assert_array_equal(image.numpy(), photo.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_equal_pillow(photo, kind):
    data = saved(Image.fromarray(photo), kind, quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(data, name="a").numpy(), expected)


def test_progressive_jpeg_with_restart_markers_is_accepted(photo):
    for options in ({"progressive": True}, {"restart_marker_blocks": 1}):
        data = saved(Image.fromarray(photo), "JPEG", **options)
        assert decode_image(data, name="a").shape == (3, 32, 24)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bilevel_gray_and_opaque_palette_are_lossless(photo, mode):
    original = Image.fromarray(photo).convert(mode)
    expected = np.asarray(original.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(saved(original), name="a").numpy(), expected)


@pytest.mark.fault("sixteen-bit-gray")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_ramp_is_scaled_and_monotone(kind):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode_image(saved(Image.fromarray(ramp), kind), name="ramp").numpy()
    np.testing.assert_array_equal(image[0], image[2])
    values = image[0].reshape(-1).astype(int)
    assert (values[0], values[-1]) == (0, 255)
    assert set(np.diff(values)) == {0, 1}
    np.testing.assert_array_equal(values, np.rint(np.arange(65536) * 255 / 65535))


def test_float_pixels_are_refused():
    data = saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(InvalidInputError, match="no exact 8-bit"):
        decode_image(data, name="f.tif")


@pytest.mark.fault("images-damaged")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_truncation_anywhere_is_refused_and_named(photo, kind):
    data = saved(Image.fromarray(photo), kind)
    # The last byte of a GIF is a trailer that no pixel depends on.
    last = len(data) // 2 if kind == "GIF" else len(data) - 1
    for length in (1, 10, len(data) // 2, last):
        with pytest.raises(InvalidInputError, match=r"bad\.img"):
            decode_image(data[:length], name="bad.img")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_not_an_image_is_refused(data):
    with pytest.raises(InvalidInputError, match=r"x\.png"):
        decode_image(data, name="x.png")


def test_every_flipped_byte_of_a_png_is_found(photo):
    data = saved(Image.fromarray(photo[:8, :8]))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(InvalidInputError):
            decode_image(bytes(damaged), name="a.png")


@pytest.mark.fault("images-damaged")
def test_flipped_bits_of_a_jpeg_are_found_where_they_break_its_markers(photo):
    """JPEG has no checksum; what must hold is that nothing but InvalidInputError comes out."""
    data = saved(Image.fromarray(photo), "JPEG")
    found = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] = 0xFF
        try:
            decode_image(bytes(damaged), name="a.jpg")
        except InvalidInputError:
            found += 1
    assert found > len(data) // 4


def test_restart_markers_out_of_order_are_found(photo):
    data = saved(Image.fromarray(photo), "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") >= 1
    with pytest.raises(InvalidInputError, match="restart markers"):
        decode_image(data.replace(b"\xff\xd1", b"\xff\xd5", 1), name="a.jpg")


@pytest.mark.fault("decompression-bomb")
@pytest.mark.parametrize("side", [8_100, 10_000, 14_000])
def test_decompression_bomb_is_refused_fast_without_memory(side):
    """Sides chosen below Pillow's warning, between its warning and its error, and above both."""
    data = png_header_only(side, side)
    assert len(data) < 200
    tracemalloc.start()
    start = time.perf_counter()
    # Pillow warns by itself in the middle case, which the strict filter of this suite turns into an error.
    with pytest.raises(InvalidInputError, match="bomb"):
        decode_image(data, name="bomb.png")
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.fault("decompression-bomb")
def test_max_pixels_is_exact_and_bounded(photo):
    data = saved(Image.fromarray(photo))
    assert decode_image(data, name="a", policy=DecodePolicy(max_pixels=32 * 24)).shape == (3, 32, 24)
    with pytest.raises(InvalidInputError, match="24 x 32 pixels"):
        decode_image(data, name="a", policy=DecodePolicy(max_pixels=32 * 24 - 1))
    for limit in (0, 10**9):
        with pytest.raises(UsageError, match="max_pixels"):
            DecodePolicy(max_pixels=limit)


def translucent() -> Image.Image:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[..., 3] = [[0, 255], [255, 255]]
    return Image.fromarray(pixels)


@pytest.mark.fault("unclear-pixels")
def test_alpha_is_refused_by_default_and_follows_the_policy():
    data = saved(translucent())
    with pytest.raises(InvalidInputError, match="transparent") as refusal:
        decode_image(data, name="a.png")
    assert "--alpha" in refusal.value.hint
    corner = {
        alpha: decode_image(data, name="a", policy=DecodePolicy(alpha=alpha))[:, 0, 0].tolist()
        for alpha in ("white", "black", "drop")
    }
    assert corner == {"white": [255, 255, 255], "black": [0, 0, 0], "drop": [200, 0, 0]}


def test_alpha_that_is_opaque_everywhere_is_accepted(photo):
    for mode in ("RGBA", "LA"):
        original = Image.fromarray(photo).convert(mode)
        expected = np.asarray(original.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(decode_image(saved(original), name="a").numpy(), expected)


@pytest.mark.fault("unclear-pixels")
@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_counts_as_alpha(mode):
    data = saved(Image.new(mode, (2, 2)), transparency=(0, 0, 0) if mode == "RGB" else 0)
    with pytest.raises(InvalidInputError, match="transparent"):
        decode_image(data, name="a.png")
    white = decode_image(data, name="a", policy=DecodePolicy(alpha="white"))
    assert white.unique().tolist() == [255]


def test_16_bit_transparency_can_only_be_dropped():
    data = saved(Image.fromarray(np.full((2, 2), 65535, np.uint16)), transparency=65535)
    with pytest.raises(InvalidInputError, match="transparent"):
        decode_image(data, name="a.png", policy=DecodePolicy(alpha="white"))
    assert decode_image(data, name="a", policy=DecodePolicy(alpha="drop")).unique().tolist() == [255]


@pytest.mark.fault("unclear-pixels")
def test_cmyk_is_refused_by_default(photo):
    data = saved(Image.fromarray(photo).convert("CMYK"), "JPEG")
    with pytest.raises(InvalidInputError, match="CMYK"):
        decode_image(data, name="a.jpg")
    assert decode_image(data, name="a", policy=DecodePolicy(cmyk="convert")).shape == (3, 32, 24)


@pytest.mark.fault("unclear-pixels")
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_is_refused_or_its_first_frame_taken(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(InvalidInputError, match="animated"):
        decode_image(data, name="a")
    first = decode_image(data, name="a", policy=DecodePolicy(animated="first"))
    assert first[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.fault("unclear-pixels")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_refused_applied_or_ignored(photo, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(photo), kind, exif=exif)
    with pytest.raises(InvalidInputError, match="orientation 6"):
        decode_image(data, name="a")
    assert decode_image(data, name="a", policy=DecodePolicy(orientation="apply")).shape == (3, 24, 32)
    ignore = DecodePolicy(orientation="ignore")
    if kind == "TIFF":
        with pytest.raises(InvalidInputError, match="orientation"):
            decode_image(data, name="a", policy=ignore)
    else:
        assert decode_image(data, name="a", policy=ignore).shape == (3, 32, 24)


def test_upright_orientation_is_accepted(photo):
    exif = Image.Exif()
    exif[0x0112] = 1
    assert decode_image(saved(Image.fromarray(photo), "JPEG", exif=exif), name="a").shape == (3, 32, 24)


def test_policy_refuses_unknown_words_and_names_what_changes_pixels():
    with pytest.raises(UsageError, match="alpha") as error:
        DecodePolicy(alpha="whit")
    assert "white" in error.value.hint
    assert DecodePolicy().params() == {}
    assert DecodePolicy(alpha="drop", max_pixels=10).params() == {"alpha": "drop"}
