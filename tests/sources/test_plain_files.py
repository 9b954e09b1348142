"""Plain files go to Pillow's decoder without its reader of whole files: with the same pixels and refusals."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from evalkit.errors import InvalidInputError
from evalkit.sources import decode
from evalkit.sources.decode import DecodePolicy, decode_pixels
from evalkit.sources.integrity import Examined, examine


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 21)) -> Image.Image:
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def cut_in_three(data: bytes, *, between: tuple[bytes, bytes] | None = None) -> bytes:
    parts: list[tuple[bytes, bytes]] = []
    for kind, body in chunks_of(data):
        third = len(body) // 3
        pieces = [body[:third], body[third : 2 * third], body[2 * third :]] if kind == b"IDAT" else [body]
        for number, piece in enumerate(pieces):
            parts += [(b"tIME", bytes(7))] if between and number else []
            parts.append((kind, piece))
    return png_of(parts)


def texts(**entries: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in entries.items():
        info.add_text(key, text)
    return info


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


JPEG = saved(picture(), "JPEG", quality=88)
PNG = saved(picture(), "PNG")

PLAIN = {
    "png": PNG,
    "gray png": saved(picture("L"), "PNG"),
    "png with dots an inch": saved(picture(), "PNG", dpi=(72, 72)),
    "png in three chunks": cut_in_three(PNG),
    "jpeg": JPEG,
    "gray jpeg": saved(picture("L"), "JPEG"),
    "jpeg, all colours": saved(picture(), "JPEG", subsampling=0),
    "jpeg, half the colours": saved(picture(), "JPEG", subsampling=1),
    "progressive jpeg": saved(picture(), "JPEG", progressive=True),
    "jpeg with restarts": saved(picture(size=(150, 90)), "JPEG", restart_marker_blocks=3),
    "jpeg with a comment": saved(picture(), "JPEG", comment=b"tiff:Orientation=6"),
    "jpeg, red green blue": saved(picture(), "JPEG", keep_rgb=True),
}

OTHER = {
    "png with two headers": png_of([chunks_of(PNG)[0], *chunks_of(PNG)]),
    "palette": saved(picture("P"), "PNG"),
    "bilevel": saved(picture("1"), "PNG"),
    "opaque alpha": saved(picture("RGBA"), "PNG"),
    "text in a png": saved(picture(), "PNG", pnginfo=texts(Software="x")),
    "a colour that is transparent, and absent": saved(picture(), "PNG", transparency=(1, 2, 255)),
    "png with a profile": saved(picture(), "PNG", icc_profile=b"x" * 200),
    "jpeg with EXIF": saved(picture(), "JPEG", exif=turned(1)),
    "jpeg with a profile": saved(picture(), "JPEG", icc_profile=b"x" * 200),
    "gif": saved(picture(), "GIF"),
}

REFUSED = {
    "time between the data of a png": (
        cut_in_three(PNG, between=(b"tIME", bytes(7))),
        "image file is truncated",
    ),
    "turned jpeg": (saved(picture(), "JPEG", exif=turned(6)), "EXIF orientation 6"),
    "turned png": (saved(picture(), "PNG", exif=turned(3)), "EXIF orientation 3"),
    "jpeg turned by XMP": (saved(picture(), "JPEG", xmp=b'<x tiff:Orientation="8"/>'), "EXIF orientation 8"),
    "transparent png": (saved(picture(), "PNG", transparency=picture().getpixel((0, 0))), "transparent"),
    "moving png": (
        saved(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)]),
        "is animated",
    ),
    "cmyk": (saved(picture("CMYK"), "JPEG"), "is CMYK"),
    "two pictures": (
        saved(picture(), "MPO", save_all=True, append_images=[picture().rotate(90)]),
        "is animated or holds",
    ),
}


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_pixels_are_those_of_pillow(name):
    data = (PLAIN | OTHER)[name]
    assert (examine(data).plain is not None) == (name in PLAIN)
    np.testing.assert_array_equal(decode_pixels(data, name="a", policy=DecodePolicy()), by_pillow(data))


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_turn_move_or_shine_through_is_not_plain(name):
    data, reason = REFUSED[name]
    assert examine(data) == Examined(None, None)
    with pytest.raises(InvalidInputError, match=reason):
        decode_pixels(data, name="a", policy=DecodePolicy())


@pytest.mark.parametrize("data", [JPEG, PNG], ids=["jpeg", "png"])
def test_a_plain_image_beyond_the_cap_is_refused_as_any_other(data):
    with pytest.raises(InvalidInputError, match="37 x 21 pixels, more than 776"):
        decode_pixels(data, name="a", policy=DecodePolicy(max_pixels=776))
    assert decode_pixels(data, name="a", policy=DecodePolicy(max_pixels=777)).shape == (3, 21, 37)


def outcome(data: bytes) -> list[object] | str:
    try:
        return decode_pixels(data, name="a", policy=DecodePolicy(max_pixels=10_000)).tolist()
    except InvalidInputError as error:
        return error.message


def resealed(data: bytes) -> bytes:
    """The PNG with a true checksum in every chunk, so that damage reaches the decoder."""
    try:
        return png_of(chunks_of(data))
    except struct.error:
        return data


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(PLAIN)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3),
    kept=st.floats(0.5, 1),
)
def test_damaged_files_end_as_without_the_short_way(name, flips, kept):
    """Whatever is altered, the pixels or the refusal are those of Pillow's reader of whole files."""
    data = bytearray(PLAIN[name])
    for where, bits in flips:
        data[8 + int(where * (len(data) - 8))] ^= bits
    damaged = bytes(data)[: int(kept * len(data)) + 8]
    damaged = resealed(damaged) if "png" in name else damaged
    short = outcome(damaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "examine", lambda data: examine(data)._replace(plain=None))
        assert outcome(damaged) == short
