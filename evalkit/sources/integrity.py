"""Damage that Pillow decodes without a word: PNG checksums it skips, JPEG markers it runs over.

Accepted trade-offs: JPEG has no checksum. A bit flipped inside its entropy-coded data is found where it
breaks the marker structure or the decoder; a flip that leaves a legal stream cannot be told from an image.
"""

from __future__ import annotations

import re
import struct
import zlib

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


def damage(data: bytes) -> str | None:
    """Return what is wrong with the PNG or JPEG in ``data``, or None where nothing is (or another format)."""
    if data.startswith(_PNG_MAGIC):
        return _png_damage(data)
    if data.startswith(_JPEG_MAGIC):
        return _jpeg_damage(data)
    return None


def _png_damage(data: bytes) -> str | None:
    position, view = len(_PNG_MAGIC), memoryview(data)
    while position + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        end = position + 12 + length
        if end > len(data):
            return "is truncated"
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return "is corrupt (a PNG chunk fails its checksum)"
        if kind == b"IEND":
            return None
        position = end
    return "is truncated"


def _jpeg_damage(data: bytes) -> str | None:
    position = 2
    in_scans = False
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return "is corrupt (a JPEG segment does not start with a marker)"
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if in_scans and marker not in _BETWEEN_SCANS:
            return "is corrupt (an impossible JPEG marker between scans)"
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            in_scans = True
            position, fault = _skip_scan(data, position)
            if fault is not None:
                return fault
            if data[position + 1 : position + 2] == bytes([_END_OF_IMAGE]):
                return None
    return "is truncated"


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
