"""Damage that Pillow decodes without a word: PNG checksums it skips, JPEG markers it runs over.

On the way it finds files so plain that their data can go to Pillow's decoder as they are, because no chunk or
segment of theirs can change how the picture is meant. What Pillow does around its decoder costs 30 us a file,
as much as decoding 32 x 32 pixels.

Accepted trade-offs: JPEG has no checksum. A bit flipped inside its entropy-coded data is found where it
breaks the marker structure or the decoder; a flip that leaves a legal stream cannot be told from an image.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s")  # length of the data, type; the checksum covers type and data
_JPEG_MAGIC = b"\xff\xd8\xff"
# Inside a scan 0xFF is followed by 0x00 (a stuffed byte), a restart marker, or a fill byte.
_SCAN_MARKER = re.compile(rb"\xff[^\x00\xff]")
_RESTART = range(0xD0, 0xD8)
# Tables, scans, number of lines, application data, comments: what T.81 (B.2) allows between two scans.
_BETWEEN_SCANS = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_END_OF_IMAGE = 0xD9
_START_OF_SCAN = 0xDA

# Chunks that change nothing, with their length; others might turn the picture, be transparent or move.
_PLAIN_CHUNKS = {b"IEND": 0, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
_PNG_HEADER = struct.Struct(">IIBBBBB")  # width, height, depth, colours, compression, filter, interlacing
_PNG_MODES = {0: "L", 2: "RGB"}
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive, Huffman coded
_APPLICATION = {0xE0, 0xEE}  # JFIF and Adobe, which the decoder reads for itself
_TABLES = {0xC4, 0xDA, 0xDB, 0xDD, 0xFE}
_JPEG_HEADER = struct.Struct(">HBHHB")  # length, depth, height, width, components
_JPEG_MODES = {1: "L", 3: "RGB"}


class PlainImage(NamedTuple):
    """What Pillow's decoder called ``decoder`` needs to make an image of ``mode`` out of ``data``."""

    decoder: str
    arguments: tuple[str, ...]
    mode: str
    size: tuple[int, int]
    data: bytes | memoryview


class Examined(NamedTuple):
    """What is wrong with a file, and its data where nothing is and it is plain."""

    fault: str | None = None
    plain: PlainImage | None = None


_TRUNCATED = Examined("is truncated")


def examine(data: bytes) -> Examined:
    """Return what is wrong with the PNG or JPEG in ``data``; nothing where it is another format."""
    if data.startswith(_PNG_MAGIC):
        return _examine_png(data)
    if data.startswith(_JPEG_MAGIC):
        return _examine_jpeg(data)
    return Examined()


def damage(data: bytes) -> str | None:
    """Return what is wrong with the PNG or JPEG in ``data``, or None where nothing is (or another format)."""
    return examine(data).fault


def _examine_png(data: bytes) -> Examined:
    position, view = len(_PNG_MAGIC), memoryview(data)
    parts: list[memoryview] = []
    plain, before = True, b""
    while position + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        end = position + 12 + length
        if end > len(data):
            return _TRUNCATED
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return Examined("is corrupt (a PNG chunk fails its checksum)")
        if kind == b"IDAT":
            plain &= not parts or before == b"IDAT"
            parts.append(view[position + 8 : end - 4])
        elif kind == b"IHDR":
            plain &= not before  # a second one would count
        else:
            plain &= _PLAIN_CHUNKS.get(kind) == length
        if kind == b"IEND":
            return Examined(None, _plain_png(data, parts) if plain and parts else None)
        position, before = end, kind
    return _TRUNCATED


def _plain_png(data: bytes, parts: list[memoryview]) -> PlainImage | None:
    start = len(_PNG_MAGIC)
    if _PNG_CHUNK.unpack_from(data, start) != (_PNG_HEADER.size, b"IHDR"):
        return None
    width, height, depth, colours, *rest = _PNG_HEADER.unpack_from(data, start + _PNG_CHUNK.size)
    if depth != 8 or colours not in _PNG_MODES or any(rest):
        return None
    mode = _PNG_MODES[colours]
    return PlainImage("zip", (mode,), mode, (width, height), parts[0] if len(parts) == 1 else b"".join(parts))


def _examine_jpeg(data: bytes) -> Examined:
    position = 2
    in_scans, plain = False, True
    frames: list[int] = []
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return Examined("is corrupt (a JPEG segment does not start with a marker)")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if in_scans and marker not in _BETWEEN_SCANS:
            return Examined("is corrupt (an impossible JPEG marker between scans)")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            frames.append(position + 2)
        elif marker not in _TABLES:
            plain &= marker in _APPLICATION and length >= 14
        position += 2 + length
        if marker == _START_OF_SCAN:
            in_scans = True
            position, fault = _skip_scan(data, position)
            if fault is not None:
                return Examined(fault)
            if data[position + 1 : position + 2] == bytes([_END_OF_IMAGE]):
                return Examined(None, _plain_jpeg(data, frames[0]) if plain and len(frames) == 1 else None)
    return _TRUNCATED


def _plain_jpeg(data: bytes, frame: int) -> PlainImage | None:
    length, depth, height, width, components = _JPEG_HEADER.unpack_from(data, frame)
    if depth != 8 or components not in _JPEG_MODES or length != _JPEG_HEADER.size + 3 * components:
        return None
    mode = _JPEG_MODES[components]
    return PlainImage("jpeg", (mode, ""), mode, (width, height), data)


def _skip_scan(data: bytes, position: int) -> tuple[int, str | None]:
    """Return the position of the marker that ends a scan, and the fault of its restart markers, if any."""
    expected = 0
    for found in _SCAN_MARKER.finditer(data, position):
        marker = data[found.end() - 1]
        if marker not in _RESTART:
            return found.end() - 2, None
        if marker != _RESTART[expected]:
            return position, "is corrupt (JPEG restart markers out of order)"
        expected = (expected + 1) % len(_RESTART)
    return len(data), "is truncated"
