"""A folder of image files, read recursively in the byte order of relative names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import final

from evalkit.core import IndexArray
from evalkit.errors import InvalidInputError
from evalkit.sources.encoded import EncodedImages, Loader, default_workers
from evalkit.sources.formats import FORMATS, ReadSettings, SourceFormat
from evalkit.sources.naming import LABEL_FILE, find_labels, is_image_name, name_bytes, sorted_names

_MAX_FILE_BYTES = 256 * 2**20
_STEP = 2**20  # bytes, of a file that is longer or shorter than it said
_HASHED_TOGETHER = 64  # files in one task of a thread
_HASHED_WHOLE = 2**20  # bytes; a larger file is hashed in pieces


@final
class Folder:
    """Image files below ``root``.

    Links are followed; every directory is entered once, under the first of its names in byte order, so
    that a loop of links ends. A dangling link with an image suffix counts as an image that cannot be read.

    Raises:
        InvalidInputError: a directory cannot be listed, or the label file cannot be used.
    """

    format = "folder"

    def __init__(self, root: Path) -> None:
        self._prefix = os.fsencode(root / "x")[:-1]
        self.names: Sequence[str] = tuple(sorted_names(_walk(root)))
        label_file = root / LABEL_FILE
        self._label_file = _read_capped(label_file, LABEL_FILE) if label_file.is_file() else None
        found = find_labels(self.names, self._label_file)
        self.labels: IndexArray | None = None if found is None else found[0]
        self.class_names: tuple[str, ...] | None = None if found is None else found[1]

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return a reader for each file."""
        return [partial(self._read, self.names[position]) for position in positions]

    def sha256(self) -> str:
        """Return the SHA-256 over (name, SHA-256 of the bytes) of every image, and of the label file."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        parts = [
            self.names[start : start + _HASHED_TOGETHER]
            for start in range(0, len(self.names), _HASHED_TOGETHER)
        ]
        with ThreadPoolExecutor(default_workers()) as pool:
            for names, digests in zip(parts, pool.map(self._file_digests, parts), strict=True):
                for name, part in zip(names, digests, strict=True):
                    digest.update(name_bytes(name) + b"\0" + part)
        if self._label_file is not None:
            digest.update(LABEL_FILE.encode() + b"\0" + hashlib.sha256(self._label_file).digest())
        return digest.hexdigest()

    def _file_digests(self, names: Sequence[str]) -> list[bytes]:
        return [self._file_digest(name) for name in names]

    def _file_digest(self, name: str) -> bytes:
        try:
            with open(self._path(name), "rb") as stream:  # noqa: PTH123 - as below
                if os.fstat(stream.fileno()).st_size < _HASHED_WHOLE:
                    return hashlib.sha256(stream.read()).digest()
                return hashlib.file_digest(stream, "sha256").digest()
        except OSError:
            # An unreadable file is an offender of read() and check(); it must not prevent --on-bad skip.
            return b"unreadable"

    def _path(self, name: str) -> bytes:
        return self._prefix + name_bytes(name)

    def _read(self, name: str) -> bytes:
        return _read_capped(self._path(name), name)


def _read_capped(path: Path | bytes, name: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)  # a file object for each of many small files costs as much again
    try:
        # Asking for as much as the cap would claim that memory for every file.
        expected = min(os.fstat(descriptor).st_size, _MAX_FILE_BYTES)
        data = os.read(descriptor, expected + 1)
        if len(data) != expected:
            parts = [data]
            while (room := _MAX_FILE_BYTES + 1 - sum(map(len, parts))) > 0:
                parts.append(os.read(descriptor, min(room, _STEP)))
                if not parts[-1]:
                    break
            data = b"".join(parts)
    finally:
        os.close(descriptor)
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidInputError(f"{name!r} is larger than {_MAX_FILE_BYTES} bytes")
    return data


def _walk(root: Path) -> Iterator[str]:
    """Yield the posix names, relative to ``root``, of the image files below it."""
    pending = [(root, "")]
    entered: set[tuple[int, int]] = set()
    while pending:
        directory, prefix = pending.pop()
        try:
            status = directory.stat()
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise InvalidInputError(f"cannot list {prefix or '.'!r}: {error.strerror}") from error
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        subfolders: list[tuple[Path, str]] = []
        for entry in entries:
            name = prefix + os.fsencode(entry.name).decode("utf-8", "surrogateescape")
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                subfolders.append((Path(entry.path), f"{name}/"))
            elif is_image_name(name) and _is_file(entry):
                yield name
        pending += reversed(subfolders)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether to list an entry: a regular file, or a link that leads nowhere (an offender when read)."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return entry.is_symlink()


def _open(path: Path, settings: ReadSettings) -> EncodedImages:
    return EncodedImages(Folder(path), settings)


FORMATS.register("folder")(
    SourceFormat(accepts="a folder of images", matches=lambda path, _head: path.is_dir(), open=_open)
)
