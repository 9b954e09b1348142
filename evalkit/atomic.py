"""Files that appear whole or not at all, and nothing that a killed writer leaves beside them for long.

A writer holds a lock on its temporary file. One without a lock is a dead writer's, on any machine that shares
the locks of the file system, and :func:`remove_orphans` takes it away.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from evalkit.errors import TemporaryError

if sys.platform != "win32":  # there nobody can tell, and temporary files of killed writers stay
    import fcntl

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) under a temporary name beside ``path``, sync it, and rename it.

    Raises:
        TemporaryError: the file could not be written; what was at ``path`` is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as (file, temporary):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space or choose another place"
        ) from error


def remove_orphans(folder: Path) -> None:
    """Remove the temporary files in ``folder`` whose writers were killed; those of living ones stay."""
    if sys.platform == "win32":
        return
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Give a new file beside ``path`` that is locked while it is open, and gone afterwards."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                if _is_claimed(file):
                    yield file, temporary
                    return
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _is_claimed(file: BinaryIO) -> bool:
    """Lock ``file``; false where it was taken for an orphan between its making and its lock."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks: nobody can take the file for an orphan there
        return True
    return os.fstat(file.fileno()).st_nlink > 0
