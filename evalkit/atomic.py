"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from evalkit.errors import TemporaryError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) under a temporary name beside ``path``, sync it, and rename it.

    Raises:
        TemporaryError: the file could not be written; what was at ``path`` is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise TemporaryError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space or choose another place"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
