"""Files that a run reads, on machines that may not have them: found at the same path, or sent once a machine.

A file counts as the same only by its content: its SHA-256, or (where a file system is shared) inode, size and
time of change that equal those of the sender. What is sent lies in the per-user cache of the machine, under
its digest, and is brought by one process while the others wait for the lock.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
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

    Raises:
        Lacking: it has not, and ``chunks`` was not given.
        InvalidInputError: what came is not what was announced.
        TemporaryError: the disk is full.
    """
    path = Path(sent.path)
    if _is_same(path, sent):
        return path
    folder = cache_folder() / "sent" / sent.digest
    target = folder / (path.name or "sent")
    if folder.is_dir():
        return target
    if chunks is None:
        raise Lacking(sent.path)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder.with_name(f".{sent.digest}.lock")):
        if not folder.is_dir():  # whoever held the lock before may have brought it
            _bring(sent, folder, target.name, chunks)
    return target


def _is_same(path: Path, sent: SentPath) -> bool:
    if not path.exists():
        return False
    folder = not (len(sent.files) == 1 and sent.files[0].place == "")
    if path.is_dir() != folder:
        return False
    if folder:
        found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        if found != {file.place for file in sent.files}:
            return False
    return all(_is_same_file(path / file.place if file.place else path, file) for file in sent.files)


def _is_same_file(path: Path, sent: SentFile) -> bool:
    return _identity(path) == sent.identity or file_sha256(path) == sent.sha256


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _bring(sent: SentPath, folder: Path, name: str, chunks: Chunks) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
    try:
        for file in sent.files:
            place = temporary / name / file.place if file.place else temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with place.open("wb") as out:
                for piece in chunks(file.sha256):
                    digest.update(piece)
                    out.write(piece)
            if digest.hexdigest() != file.sha256:
                raise InvalidInputError(
                    f"{sent.path} changed while it was sent", hint="leave it alone until the run ends"
                )
        if not sent.files:
            (temporary / name).mkdir()
        temporary.rename(folder)
    except OSError as error:
        raise TemporaryError(
            f"cannot keep a copy of {sent.path}: {error}", hint="is the disk full?"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
