"""A zip archive of image files: members are read in place, by any number of threads, and never extracted."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, final

from evalkit.core import IndexArray
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError
from evalkit.sources.encoded import EncodedImages, Loader
from evalkit.sources.formats import FORMATS, ReadSettings, SourceFormat
from evalkit.sources.members import (
    DEFAULT_LIMITS,
    ArchiveLimits,
    Member,
    SharedFile,
    choose_images,
    plain_name,
)
from evalkit.sources.naming import find_labels

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature ... name length, extra length
_ENCRYPTED = 1


@final
class ZipArchive:
    """Images in the zip file at ``path``, in the byte order of their names.

    The members are read by their offsets rather than through ``zipfile.ZipFile``, whose open handle is
    neither safe between threads nor across a fork.

    Raises:
        InvalidInputError: not a readable zip, encrypted, or it exceeds ``limits``.
    """

    format = "zip"

    def __init__(self, path: Path, *, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._members, label_file = choose_images(_list_members(path), limits=limits)
        self.names: Sequence[str] = tuple(member.name for member in self._members)
        found = find_labels(
            self.names, None if label_file is None else _read_member(SharedFile(path), label_file)
        )
        self.labels: IndexArray | None = None if found is None else found[0]
        self.class_names: tuple[str, ...] | None = None if found is None else found[1]

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return a reader for each member."""
        file = SharedFile(self._path)
        return [partial(_read_member, file, self._members[position]) for position in positions]

    def sha256(self) -> str:
        """Return the SHA-256 of the archive file."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return file_sha256(self._path)


def _read_member(file: SharedFile, member: Member) -> bytes:
    """Return the unpacked bytes of a zip ``member``, at most its declared size.

    Raises:
        InvalidInputError: truncated, corrupt, or packed by a method other than stored and deflated.
    """
    start = _data_offset(file.read(member.offset, _LOCAL_HEADER.size), member)
    # Deflate adds 5 bytes to a block of 64 KiB at worst: what claims to be stored in far more is damaged.
    packed = file.read(start, min(member.stored, 2 * member.size + _LOCAL_HEADER.size))
    data = _unpack(packed, member)
    if len(data) != member.size or (member.crc is not None and zlib.crc32(data) != member.crc):
        raise InvalidInputError(f"{member.name!r} is corrupt in its archive")
    return data


def data_offset(stream: BinaryIO, member: Member) -> int:
    """Return where the bytes of a zip ``member`` start: behind its local header.

    Raises:
        InvalidInputError: there is no local header.
    """
    stream.seek(member.offset)
    return _data_offset(stream.read(_LOCAL_HEADER.size), member)


def _data_offset(header: bytes, member: Member) -> int:
    if len(header) < _LOCAL_HEADER.size or not header.startswith(ZIP_MAGICS[0]):
        raise InvalidInputError(f"{member.name!r} is not where its archive says")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    return int(member.offset + len(header) + name_length + extra_length)


def _unpack(packed: bytes, member: Member) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method != zipfile.ZIP_DEFLATED:
        raise InvalidInputError(
            f"{member.name!r} is packed by zip method {member.method}", hint="use zip's default, deflate"
        )
    try:
        # One byte more than declared shows that the declaration lies; nothing beyond it is unpacked.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
    except zlib.error as error:
        raise InvalidInputError(f"{member.name!r} is corrupt in its archive: {error}") from error


def list_infos(path: Path) -> list[zipfile.ZipInfo]:
    """Return the central directory of the zip at ``path``.

    Raises:
        InvalidInputError: there is none that can be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, struct.error, ValueError) as error:
        raise InvalidInputError(f"{path.name!r} is not a readable zip archive: {error}") from error
    size = path.stat().st_size
    if not all(info.filename and 0 <= info.header_offset < size for info in infos):
        raise InvalidInputError(
            f"{path.name!r} is not a readable zip archive: a member has no name or lies outside"
        )
    return infos


def _list_members(path: Path) -> Iterator[Member]:
    for info in list_infos(path):
        if info.is_dir():
            continue
        member = as_member(info)
        if info.flag_bits & _ENCRYPTED:
            raise InvalidInputError(f"{path.name!r} is encrypted")
        yield member


def as_member(info: zipfile.ZipInfo) -> Member:
    """Return the plain facts of a central directory entry."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # Unix mode; 0 where made elsewhere
    return Member(
        name=plain_name(info.filename),
        offset=info.header_offset,
        size=info.file_size,
        stored=info.compress_size,
        regular=kind in {0, stat.S_IFREG},
        method=info.compress_type,
        crc=info.CRC,
    )


def _open(path: Path, settings: ReadSettings) -> EncodedImages:
    return EncodedImages(ZipArchive(path), settings)


def first_member_name(head: bytes) -> bytes:
    """Return the name of the first member of a zip from its first bytes (empty where it is none)."""
    if len(head) < _LOCAL_HEADER.size or not head.startswith(ZIP_MAGICS[0]):
        return b""
    _, name_length, _ = _LOCAL_HEADER.unpack_from(head)
    return head[_LOCAL_HEADER.size : _LOCAL_HEADER.size + name_length]


def _matches(_path: Path, head: bytes) -> bool:
    return head.startswith(ZIP_MAGICS) and not first_member_name(head).endswith(b".npy")


FORMATS.register("zip")(SourceFormat(accepts="a zip of images", matches=_matches, open=_open))
