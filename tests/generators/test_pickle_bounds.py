"""Small torch files that would crash the reader, or cost hours or all memory, are refused at once, 6."""

from __future__ import annotations

import io
import time
import zipfile

import pytest
import torch

from evalkit import pickle_bounds
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import read_checkpoint


def _saved(content, *, legacy=False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _zip(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"data.pkl": b"", "version": "3", **members}.items():
            if content:
                archive.writestr(f"x/{name}", content)
    return path


_DEEP = b"\x80\x02})" + b"\x85" * 5000 + b"Ns."


def _refused(path, match) -> None:
    started = time.process_time()
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint(path)
    assert caught.value.hint
    assert time.process_time() - started < 10


def test_deep_pickles_that_only_torch_would_find(tmp_path):
    """Torch ignores case, and looks at the first bytes alone to tell a zip."""
    _refused(_zip(tmp_path / "x", **{"DATA.PKL": _DEEP}), "nests tuples")
    head = _saved({}, legacy=True)
    tail = _zip(tmp_path / "tail", version="3").read_bytes()
    (tmp_path / "y").write_bytes(head[: head.index(b"}q") - 2] + _DEEP + tail)
    _refused(tmp_path / "y", "nests tuples")


def test_zip_in_which_readers_find_different_members(tmp_path):
    plain = _zip(tmp_path / "x", **{"data.pkl": b"\x80\x02}."}).read_bytes()
    for data in (b"PK\x03\x04" + plain, plain[:-22] + plain[-22:-2] + b"\x01\0x", plain + b"x"):
        (tmp_path / "x").write_bytes(data)
        _refused(tmp_path / "x", "at its end")


def _text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


_SHARED = b")" + b"q\x01h\x01\x86" * 300
"""A tuple of two equal tuples of two equal tuples …: short, but endless for whoever hashes it."""
_PAIRS = b"]q\x03(" + b"".join(_text(str(i)) + b"N\x86" for i in range(3000)) + b"e"
_COPIED = _PAIRS + b"(ccollections\nOrderedDict\nq\x01" + b"h\x01h\x03\x85R" * 3000 + b"l."
_LATE = b"]q\x03h\x03\x85q\x040" + _COPIED[4:].replace(b"h\x01h\x03\x85R", b"h\x01h\x04R")
BOMBS = {
    "shared key": (b"}" + _SHARED + b"Ns.", "hashes"),
    "shared argument": (b"cnumpy\ndtype\n" + _SHARED + b"\x85R.", "hashes"),
    "copied list": (_COPIED, "copies"),
    "copied list that grew later": (_LATE, "copies"),
    "encoded text": (
        b"("
        + _text("x" * 2**18)
        + _text("latin1")
        + b"\x86q\x02c_codecs\nencode\nq\x01"
        + b"h\x01h\x02R" * 600,
        "copies",
    ),
    "bytearray": (b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytearray"),
    "long name": (b"c" + b"x" * 16_000 + b"\ny\n.", "16002 characters"),
    "many operations": (b"N0" * 60_000 + b"}.", "operations"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_pickles_that_would_take_hours_or_all_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pickle_bounds, "_MAX_OPERATIONS", 100_000)
    content, match = BOMBS[name]
    _refused(_zip(tmp_path / "x", **{"data.pkl": b"\x80\x02" + content}), match)
