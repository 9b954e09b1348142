"""A tar archive of image files, plain or packed by gzip, bzip2 or xz: streamed, never extracted.

The headers are read once, when the archive is opened. A plain tar is then read by offset. A packed one can
only be read in sequence: a pass collects the images asked for and, as far as ``window_bytes`` reach, those
that follow them in index order. Reading all images in index order thus unpacks the archive at most
``ceil(bytes of images / window_bytes)`` times; an archive whose images fit in the window is unpacked once.

Accepted trade-offs: random order over a packed archive larger than the window is slow (unpack it, or use a
zip); a tar without its end mark is refused as truncated, because nothing else would show the loss.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import IO, cast, final

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

_PACKED_MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_TAR_MAGIC_AT = 257
_STEP = 2**20
_HEADER_BYTES = 2**20  # names and extended headers; a longer one is an attack on memory
_UNPACKING_ERRORS = (
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    RecursionError,
)


@final
class TarArchive:
    """Images in the tar file at ``path``, in the byte order of their names.

    Raises:
        InvalidInputError: not a readable tar, truncated, or it exceeds ``limits``.
    """

    format = "tar"

    def __init__(
        self, path: Path, *, limits: ArchiveLimits = DEFAULT_LIMITS, window_bytes: int = 256 * 2**20
    ) -> None:
        self._path = path
        self._window_bytes = window_bytes
        self._packed = _read_head(path).startswith(_PACKED_MAGICS)
        self._members, label_file = choose_images(_list_members(path, limits=limits), limits=limits)
        self._window: dict[int, bytes] = {}
        self._lock = Lock()
        self.names: Sequence[str] = tuple(member.name for member in self._members)
        text = None if label_file is None else next(_read_in_sequence(path, [label_file]))
        found = find_labels(self.names, text)
        self.labels: IndexArray | None = None if found is None else found[0]
        self.class_names: tuple[str, ...] | None = None if found is None else found[1]

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return a reader for each member; of a packed archive, the bytes are read here."""
        if not self._packed:
            file = SharedFile(self._path)
            return [partial(_read_plain, file, self._members[position]) for position in positions]
        with self._lock:
            if not self._window.keys() >= set(positions):
                self._fill_window(positions)
            return [partial(bytes, self._window[position]) for position in positions]

    def sha256(self) -> str:
        """Return the SHA-256 of the archive file."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return file_sha256(self._path)

    def _fill_window(self, positions: Sequence[int]) -> None:
        wanted = set(positions)
        room = self._window_bytes - sum(self._members[position].size for position in wanted)
        for position in range(min(wanted), len(self._members)):
            if position not in wanted:
                room -= self._members[position].size
                if room < 0:
                    break
                wanted.add(position)
        in_sequence = sorted(wanted, key=lambda position: self._members[position].offset)
        contents = _read_in_sequence(self._path, [self._members[position] for position in in_sequence])
        self._window = {}  # first, so that two windows are never held at once
        self._window = dict(zip(in_sequence, contents, strict=True))


class _HeaderStream:
    """What ``tarfile`` reads headers from: the unpacked bytes, forwards only, with caps.

    ``read`` and ``seek`` raise InvalidInputError where a header or the compression ratio is absurd.
    """

    def __init__(self, stream: IO[bytes], *, stored: int | None, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._stored = stored
        self._limits = limits
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > _HEADER_BYTES:
            raise InvalidInputError(f"the archive has a header of {size} bytes")
        self.last = self._stream.read(size)
        self._check_ratio()
        return self.last

    def seek(self, position: int) -> int:
        if self._stored is None:
            return self._stream.seek(position)
        while (before := self._stream.tell()) < position:
            self._stream.seek(min(position, before + _STEP))
            self._check_ratio()
            if self._stream.tell() == before:
                break
        return self._stream.tell()

    def tell(self) -> int:
        return self._stream.tell()

    def _check_ratio(self) -> None:
        if self._stored is not None:
            self._limits.check_ratio(self._stream.tell(), self._stored, what="the archive")


def _read_head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _open_unpacked(path: Path) -> IO[bytes]:
    head = _read_head(path)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(path))
    return cast("IO[bytes]", lzma.open(path)) if head.startswith(b"\xfd7zXZ\x00") else path.open("rb")


def _list_members(path: Path, *, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the members of a tar in its own order, reading nothing but headers where it is not packed."""
    stored = path.stat().st_size if _read_head(path).startswith(_PACKED_MAGICS) else None
    try:
        with _open_unpacked(path) as stream:
            headers = _HeaderStream(stream, stored=stored, limits=limits)
            with tarfile.open(fileobj=cast("IO[bytes]", headers), mode="r:", encoding="utf-8") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
                    if info.size < 0:
                        raise InvalidInputError(f"{info.name!r} has a negative size")
                    if not info.isdir():
                        yield _as_member(info)
            # tarfile takes a damaged or missing header for the end; the true end is a block of zeros.
            if headers.last != bytes(tarfile.BLOCKSIZE):
                raise InvalidInputError(f"{path.name!r} has no end mark: it is truncated or corrupt")
    except _UNPACKING_ERRORS as error:
        raise InvalidInputError(f"{path.name!r} is not a readable tar archive: {error}") from error


def _as_member(info: tarfile.TarInfo) -> Member:
    return Member(
        name=plain_name(info.name),
        offset=info.offset_data,
        size=info.size,
        stored=info.size,
        regular=info.isreg() and not info.issparse(),
    )


def _read_in_sequence(path: Path, members: Sequence[Member]) -> Iterator[bytes]:
    """Yield the bytes of ``members``, which are sorted by offset, in one pass over the archive."""
    try:
        with _open_unpacked(path) as stream:
            for member in members:
                stream.seek(member.offset)
                data = stream.read(member.size)
                if len(data) != member.size:
                    raise InvalidInputError(f"{member.name!r} is truncated in its archive")
                yield data
    except _UNPACKING_ERRORS as error:
        raise InvalidInputError(f"{path.name!r} cannot be unpacked: {error}") from error


def _read_plain(file: SharedFile, member: Member) -> bytes:
    data = file.read(member.offset, member.size)
    if len(data) != member.size:
        raise InvalidInputError(f"{member.name!r} is truncated in its archive")
    return data


def _open(path: Path, settings: ReadSettings) -> EncodedImages:
    return EncodedImages(TarArchive(path), settings)


def _matches(path: Path, head: bytes) -> bool:
    if head.startswith(_PACKED_MAGICS) or head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        return True
    # The oldest tars have no magic; the name must do.
    return bool(head) and path.name.lower().endswith(".tar")


FORMATS.register("tar")(
    SourceFormat(
        accepts="a tar of images (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz)", matches=_matches, open=_open
    )
)
