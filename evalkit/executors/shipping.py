"""Files that a run reads, on machines that may not have them: found at the same path, or sent once a machine.

A file counts as the same only by its content: its SHA-256, or (where a file system is shared) inode, size and
time of change that equal those of the sender. What is sent lies in the per-user cache of the machine, under
its digest, and is brought by one process while the others wait for the lock. It stays there, so that the next
run finds it; each process reads it through once before it uses it, and asks for it again where it is damaged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

from filelock import FileLock

from evalkit.assets import cache_folder
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, TemporaryError
from evalkit.spec import sha256_of

CHUNK: Final = 64 << 20
"""Bytes of a file that travel at a time."""
Chunks = Callable[[str], Iterator[bytes]]
"""Given the digest of a file, its content in order."""
Put = Callable[[bytes], object]


@dataclass(frozen=True)
class SentFile:
    """One file: its place below the path that was named, and what tells it from others.

    Attributes:
        place: POSIX path; empty where the path names the file itself.
        identity: inode, size and time of change (ns) on the machine that knows it.
    """

    place: str
    sha256: str
    identity: tuple[int, int, int]


@dataclass(frozen=True)
class SentPath:
    """A file or folder that a run was given, as an absolute path of the machine that sends it."""

    path: str
    files: tuple[SentFile, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything below."""
        return sha256_of([[file.place, file.sha256] for file in self.files])


class Lacking(Exception):  # noqa: N818 - an answer, not an error: the sender is asked for more
    """A machine has none of ``path`` and must be sent it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def sent_path(path: Path) -> SentPath:
    """Describe a file, or every file of a folder.

    Raises:
        InvalidInputError: it cannot be read.
    """
    whole = path.resolve()
    try:
        found = [whole] if whole.is_file() else sorted(file for file in whole.rglob("*") if file.is_file())
        files = tuple(
            SentFile(
                "" if file == whole else file.relative_to(whole).as_posix(),
                file_sha256(file),
                _identity(file),
            )
            for file in found
        )
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    return SentPath(str(path.absolute()), files)


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in pieces of :data:`CHUNK` bytes."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def local_path(sent: SentPath, chunks: Chunks | None = None) -> Path:
    """Return where this machine has the same files: at the same path, or in its cache, brought there now.

    A copy in the cache that is not whole is taken for none, and is replaced.

    Raises:
        Lacking: it has not, and ``chunks`` was not given.
        InvalidInputError: what came is not what was announced.
        TemporaryError: the disk is full, or the cache cannot be written to.
    """
    path = Path(sent.path)
    if _is_same(path, sent):
        return path
    copy = cache_folder() / "sent" / sent.digest / (path.name or "sent")
    if _is_same(copy, sent):
        return copy
    if chunks is None:
        raise Lacking(sent.path)
    try:
        copy.parent.parent.mkdir(mode=0o700, exist_ok=True)
        with FileLock(copy.parent.with_name(f".{sent.digest}.lock")):
            if not _is_same(copy, sent):  # whoever held the lock before may have brought it
                _bring(sent, copy, chunks)
    except OSError as error:
        raise TemporaryError(
            f"cannot keep a copy of {sent.path}: {error}", hint="is the disk full?"
        ) from error
    return copy


def put_contents(sent: SentPath, contents: dict[str, tuple[object, ...]], put: Put) -> None:
    """Put the pieces of each file that ``contents`` lacks where every machine can fetch them.

    Args:
        sent: files of this machine.
        contents: digest of a file -> what its pieces are kept under; files are added.
        put: keeps a piece, and returns what to fetch it by.
    """
    for file in sent.files:
        if file.sha256 not in contents:
            source = Path(sent.path, file.place) if file.place else Path(sent.path)
            contents[file.sha256] = tuple(put(piece) for piece in chunks_of(source))


def _is_same(path: Path, sent: SentPath) -> bool:
    """Whether all that was sent is at ``path``, and nothing else; what cannot be read is not."""
    folder = not (len(sent.files) == 1 and sent.files[0].place == "")
    try:
        if not path.exists() or path.is_dir() != folder:
            return False
        if folder:
            found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
            if found != {file.place for file in sent.files}:
                return False
        return all(_is_same_file(path / file.place if file.place else path, file) for file in sent.files)
    except OSError:
        return False


def _is_same_file(path: Path, sent: SentFile) -> bool:
    found = _identity(path)
    return found == sent.identity or (found[1] == sent.identity[1] and _digest_of(path, found) == sent.sha256)


@lru_cache(maxsize=1 << 16)
def _digest_of(path: Path, _found: tuple[int, int, int]) -> str:
    """Return the digest of a file, which a process reads again only where the file has changed."""
    return file_sha256(path)


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _bring(sent: SentPath, copy: Path, chunks: Chunks) -> None:
    """Write the files beside where they belong, and move them there whole; the caller holds the lock."""
    temporary = copy.parent.with_name(f".part-{sent.digest}")
    shutil.rmtree(temporary, ignore_errors=True)  # of one who was killed
    new, old = temporary / "new", temporary / "old"
    new.mkdir(parents=True)
    try:
        whole = new / copy.name
        for file in sent.files:
            place = whole / file.place if file.place else whole
            place.parent.mkdir(parents=True, exist_ok=True)
            if _written(place, chunks(file.sha256)) != file.sha256:
                raise InvalidInputError(
                    f"{sent.path} changed while it was sent", hint="leave it alone until the run ends"
                )
        if not sent.files:
            whole.mkdir()
        copy.parent.mkdir(exist_ok=True)
        if copy.exists():  # and damaged; who reads it goes on with what is open
            copy.rename(old)
        whole.rename(copy)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _written(path: Path, pieces: Iterator[bytes]) -> str:
    """Write a file, down to the disk, and return the digest of what was written."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
