"""Image files that a manifest lists, as an image source in the order of its rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import final

from evalkit.errors import InvalidInputError
from evalkit.pairs.manifest import PairManifest, Side
from evalkit.sources.encoded import EncodedImages, Loader, default_workers
from evalkit.sources.formats import ReadSettings
from evalkit.sources.naming import name_bytes

_MAX_FILE_BYTES = 256 * 2**20
_SHOWN = 10


@final
class ListedFiles:
    """Files below ``root`` in the order of ``names``; one file may be listed several times."""

    format = "manifest"
    labels = None
    class_names = None

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self.names: Sequence[str] = tuple(names)

    def loaders(self, positions: Sequence[int]) -> list[Loader]:
        """Return a reader for each file."""
        return [partial(self._read, self.names[position]) for position in positions]

    def sha256(self) -> str:
        """Return the SHA-256 over (name, SHA-256 of the bytes) of every row."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        unique = list(dict.fromkeys(self.names))
        with ThreadPoolExecutor(default_workers()) as pool:
            digests = dict(zip(unique, pool.map(self._file_digest, unique), strict=True))
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name_bytes(name) + b"\0" + digests[name])
        return digest.hexdigest()

    def _file_digest(self, name: str) -> bytes:
        try:
            if self._path(name).is_file():  # a pipe would block
                with self._path(name).open("rb") as stream:
                    return hashlib.file_digest(stream, "sha256").digest()
        except OSError:
            pass
        return b"unreadable"  # an offender of read() and check(); it must not prevent --on-bad skip

    def _path(self, name: str) -> Path:
        return self._root / name

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        if path.exists() and not path.is_file():
            raise InvalidInputError(f"{name!r} is not a file")
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise InvalidInputError(f"{name!r} is larger than {_MAX_FILE_BYTES} bytes")
        return data


def open_side(manifest: PairManifest, side: Side, *, root: Path, settings: ReadSettings) -> EncodedImages:
    """Return one column of images as a source with an image a row.

    Raises:
        InvalidInputError: a row has no such image, or there is no such file; names the lines.
    """
    require_column(manifest, side)
    names = [row.path(side) or "" for row in manifest.rows]
    missing = [
        (row.line, name)
        for row, name in zip(manifest.rows, names, strict=True)
        if not os.path.lexists(root / name)
    ]
    if missing:
        shown = [f"  line {line}: {name!r}" for line, name in missing[:_SHOWN]]
        more = [f"  and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
        raise InvalidInputError(
            "\n".join([f"{len(missing)} {side} files of the manifest do not exist:", *shown, *more]),
            hint="paths are relative to the folder of the manifest",
        )
    return EncodedImages(ListedFiles(root, names), settings)


def require_column(manifest: PairManifest, column: str) -> None:
    """Raise InvalidInputError with the lines of those rows whose ``column`` is empty."""
    if empty := manifest.lines_without(column):
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        lines = ", ".join(map(str, empty[:_SHOWN]))
        raise InvalidInputError(
            f"{len(empty)} of {len(manifest)} rows have no {column}: line {lines}{more}",
            hint=f"fill the column {column!r} in every row",
        )
