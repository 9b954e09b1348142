"""Changes to valid files, drawn by Hypothesis as small tuples, so that what fails shrinks to few of them.

A seed is a valid file. Where a checksum, a compression or a length would catch every change at once, the seed
names an inner part and how to wrap it again: changes go inside, and the wrapping is right.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
WIDE = (*EXTREMES, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{}=,:\n]')
TOKENS = (
    b"0",
    b"-1",
    b"1e999",
    b"-0.0",
    b"9" * 400,
    b"0x7fffffff",
    b"1979-05-27",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"false",
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"../../etc/passwd"',
    b'"=HYPERLINK(1)"',
    b'"</script>"',
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"' + b"x" * 5000 + b'"',
    b"1.5",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\x00",
    b"'",
    b'"',
    b"\\",
    b"\n\n",
    b",,",
    b"=",
    b"[[model]]",
    b"inf",
    b'"a" = 1',
    b"\xef\xbb\xbf",
    b'["a", 1, null, {"b": []}]',
    b"4294967296",
    b"1e-320",
)
PICKLE = (
    b"cposix\nsystem\n",
    b"cbuiltins\neval\n",
    b"cnumpy\nndarray\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"R",
    b"\x81",
    b"\x93",
    b"b",
    b"0",
    b"1",
    b"2",
    b"(",
    b"t",
    b"l",
    b"d",
    b"}",
    b"]",
    b"e",
    b"s",
    b"u",
    b"h\x00",
    b"h\x01",
    b"q\x00",
    b"\x94",
    b"j\xff\xff\xff\x7f",
    b"r\xff\xff\xff\x7f",
    b"K\xff",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08" + b"\xff" * 8,
    b"N",
    b"\x88",
    b"Q",
    b".",
    b"X\x04\x00\x00\x00evil",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"(" * 400,
    b"I99999999999\n",
    b"Vtext\n",
    b"c__main__\nx\n",
    b"i__main__\nx\n",
    b"\x82\x01",
    b"\x95\xff\xff\xff\xff\x00\x00\x00\x00",
)
KINDS = ("bit", "byte", "cut", "drop", "double", "insert", "number", "copy", "zeros", "token", "snippet")

Change = tuple[str, int, int]


@dataclass(frozen=True)
class Seed:
    """A valid file: ``core`` is what is changed, ``wrap`` makes the file of it, ``name`` is its file name."""

    name: str
    core: bytes
    wrap: Callable[[bytes], bytes] = bytes
    snippets: Sequence[bytes] = TOKENS


def changes() -> st.SearchStrategy[list[Change]]:
    """One change, or up to six: what kind, where, and with what."""
    number = st.integers(0, 2**32 - 1)
    one = st.tuples(st.sampled_from(KINDS), number, number)
    return st.one_of(st.lists(one, min_size=1, max_size=1), st.lists(one, min_size=1, max_size=6))


def mutate(data: bytes, made: Sequence[Change], snippets: Sequence[bytes]) -> bytes:
    """Return ``data`` after the changes, in order."""
    for kind, where, what in made:
        data = _changed(data, kind, _place(len(data), where), what, snippets)
    return data


def _place(length: int, where: int) -> int:
    """Anywhere, but every third time near the start and every sixth near the end: lengths stand there."""
    choice, where = where % 6, where // 6
    if choice < 2:
        return where % max(min(length, 160), 1)
    return length - 1 - where % max(min(length, 160), 1) if choice == 2 else where % max(length, 1)


def _changed(data: bytes, kind: str, at: int, what: int, snippets: Sequence[bytes]) -> bytes:
    at, size = max(at, 0), 1 + what % 64
    before, piece, after = data[:at], data[at : at + size], data[at + size :]
    match kind:
        case "cut":
            changed = before
        case "drop":
            changed = before + after
        case "double":
            changed = before + piece * (2 + what // 64 % 3) + after
        case "insert":
            changed = before + random.Random(what).randbytes(size) + data[at:]
        case "snippet":
            changed = before + snippets[what % len(snippets)] + data[at:]
        case "token":
            changed = _with_token(data, at, what)
        case _:
            piece = _overwriting(kind, data, at, what)
            changed = before + piece + data[at + len(piece) :]
    return changed


def _overwriting(kind: str, data: bytes, at: int, what: int) -> bytes:
    if kind == "copy":
        other = what % max(len(data), 1)
        return data[other : other + 16]
    if kind == "bit":
        return bytes([(data[at : at + 1] or b"\0")[0] ^ 1 << what % 8])
    if kind == "byte":
        return bytes([what % 256])
    if kind == "zeros":
        return bytes(1 + what % 64)
    code, values = (("H", EXTREMES), ("I", EXTREMES), ("Q", WIDE))[what % 3]
    value = values[what // 3 % len(values)] % 256 ** struct.calcsize(code)
    return struct.pack(("<" if what & 1 else ">") + code, value)


def _with_token(data: bytes, at: int, what: int) -> bytes:
    """Replace the first token at or behind ``at`` (of the first part of long data) by another one."""
    found = TOKEN.search(data, at, at + 4096)
    if found is None:
        return data
    return data[: found.start()] + TOKENS[what % len(TOKENS)] + data[found.end() :]
