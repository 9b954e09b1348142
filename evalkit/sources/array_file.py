"""The arrays inside an ``.npy`` or ``.npz``: headers first, data mapped where possible, never a pickle."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evalkit.errors import InvalidInputError
from evalkit.sources.archive import ZIP_MAGICS, as_member, data_offset, list_infos
from evalkit.sources.members import ArchiveLimits

# An array is one member, so that only its size can tell a bomb from a large set of flat images.
_LIMITS = ArchiveLimits(ratio_from_bytes=2**30)
_HEADER_READERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_READING_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,  # zipfile: encrypted, or packed in a way that it does not know
)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array that has not been read yet; ``load`` maps it or reads it.

    ``load`` raises InvalidInputError where the data is truncated or corrupt.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int


def list_arrays(path: Path) -> dict[str, StoredArray]:
    """Return the arrays in the file at ``path`` by name (``.npy``: one, named ``array``).

    Raises:
        InvalidInputError: the file or a header cannot be read, or the archive looks like a bomb.
    """
    try:
        with path.open("rb") as stream:
            if not stream.read(len(ZIP_MAGICS[0])).startswith(ZIP_MAGICS):
                stream.seek(0)
                header = _read_header(stream)
                return {"array": _mapped(path, name="array", header=header, start=header.length)}
        return _list_members(path)
    except _READING_ERRORS as error:
        raise InvalidInputError(f"{path.name!r} is not a readable numpy file: {error}") from error


def _list_members(path: Path) -> dict[str, StoredArray]:
    arrays: dict[str, StoredArray] = {}
    for info in list_infos(path):
        if not info.filename.endswith(".npy"):
            continue
        name = info.filename.removesuffix(".npy")
        with zipfile.ZipFile(path) as archive, archive.open(info) as member:
            header = _read_header(member)
        if info.compress_type == zipfile.ZIP_STORED and not header.dtype.hasobject:
            with path.open("rb") as stream:
                start = data_offset(stream, as_member(info)) + header.length
            arrays[name] = _mapped(path, name=name, header=header, start=start)
        else:
            _LIMITS.check_ratio(info.file_size, info.compress_size, what=repr(info.filename))
            load = partial(_unpack, path, info.filename)
            arrays[name] = StoredArray(name, header.shape, header.dtype, load)
    return arrays


def _read_header(stream: IO[bytes]) -> _Header:
    version = npy_format.read_magic(stream)
    if version not in _HEADER_READERS:
        raise ValueError(f"npy format version {version} holds no images")
    try:
        shape, fortran_order, dtype = _HEADER_READERS[version](stream)
    except Exception as error:  # numpy reads it as Python text, and lets the tokenizer's own errors out
        raise ValueError(f"its header cannot be read: {error}") from error
    if any(side < 0 for side in shape):
        raise ValueError(f"negative shape {shape}")
    return _Header(shape, fortran_order, dtype, stream.tell())


def _mapped(path: Path, *, name: str, header: _Header, start: int) -> StoredArray:
    return StoredArray(name, header.shape, header.dtype, partial(_map, path, header=header, start=start))


def _map(path: Path, *, header: _Header, start: int) -> NDArray[Any]:
    if math.prod(header.shape) == 0:
        return np.empty(header.shape, dtype=header.dtype)
    if start + math.prod(header.shape) * header.dtype.itemsize > path.stat().st_size:
        raise InvalidInputError(f"{path.name!r} is truncated")
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    mapped: NDArray[Any] = np.memmap(
        path, header.dtype, mode="r", offset=start, shape=header.shape, order=order
    )
    return mapped


def _unpack(path: Path, member: str) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            array: NDArray[Any] = npy_format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # reading to the end also checks the CRC
                raise ValueError("data beyond the end of the array")
    except (*_READING_ERRORS, MemoryError) as error:
        raise InvalidInputError(f"{member!r} in {path.name!r} cannot be read: {error}") from error
    return array
