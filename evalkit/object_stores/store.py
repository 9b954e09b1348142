"""One URL of an object store through fsspec: list, read, put whole, remove. No torch.

Every message names the URL without its credentials, and so does every text of a library that it carries on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import fsspec

from evalkit.errors import EvalkitError, TemporaryError, UsageError
from evalkit.redaction import redact_command

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Their puts show an object whole or not at all; elsewhere a temporary name and a move do.
_WHOLE_PUTS: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "obs", "memory"}
)
_PACKAGES: Final = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "oci": "ocifs",
    "oss": "ossfs",
    "hf": "huggingface-hub",
}
_AT_ONCE: Final = 32
_AGAIN: Final = "run the same command again: it continues; are the credentials and the bucket right?"


def is_url(text: str) -> bool:
    """Whether ``text`` names a place in an object store, and not a local path."""
    return _URL.match(text) is not None


def shown(text: str) -> str:
    """Return ``text`` (a URL, a message of a library) without credentials."""
    return " ".join(redact_command(text.split(" ")))


@dataclass(frozen=True, slots=True, eq=False)
class ObjectStore:
    """What lies below one URL; names are relative to it.

    Attributes:
        filesystem: that of fsspec.
        root: the path of the URL in it.
        url: the URL as it may be shown.
    """

    filesystem: fsspec.AbstractFileSystem
    root: str
    url: str

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Return the store at ``url``; nothing is asked of it yet.

        Raises:
            UsageError: unknown protocol, or its package is not installed.
            TemporaryError: it cannot be reached.
        """
        protocol = url.partition("://")[0].lower()
        plain = shown(url)
        if set(url) & set("*?[]#") or "::" in url:
            raise UsageError(
                f"{plain}: a folder is wanted, without any of * ? [ ] # ::",
                hint="s3://BUCKET/FOLDER, for example",
            )
        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            raise UsageError(
                f"{plain}: {protocol}:// needs a package that is not installed",
                hint=f"pip install {package}" if package else shown(str(error)),
            ) from error
        except ValueError as error:
            raise UsageError(
                f"{plain}: {shown(str(error))}", hint="s3://…, gs://…, abfs://…, file://… or a local folder"
            ) from error
        except Exception as error:  # any client may fail in its own way while it connects
            raise TemporaryError(f"{plain} cannot be reached: {_words(error)}", hint=_AGAIN) from error
        return cls(filesystem, root.rstrip("/"), plain.rstrip("/"))

    def names(self, folder: str = "") -> frozenset[str]:
        """Return the names of the files directly in ``folder``; none where it does not exist."""
        return self._listed(folder, "file")

    def folders(self, folder: str = "") -> frozenset[str]:
        """Return the names of the folders directly in ``folder``."""
        return self._listed(folder, "directory")

    def _listed(self, folder: str, kind: str) -> frozenset[str]:
        path = self._path(folder)
        with self._telling("list", folder):
            self.filesystem.invalidate_cache()
            try:
                listed = self.filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return frozenset()
        found = (str(info["name"]).rstrip("/") for info in listed if info["type"] == kind)
        return frozenset(name.rpartition("/")[2] for name in found if name.strip("/") != path.strip("/"))

    def read(self, name: str) -> bytes | None:
        """Return the bytes of one file, or None where it does not exist."""
        with self._telling("read", name):
            try:
                content: bytes = self.filesystem.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return content

    def read_all(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of those files that exist, some at a time, side by side where that can be."""
        for start in range(0, len(names), _AT_ONCE):
            paths = {self._path(name): name for name in names[start : start + _AT_ONCE]}
            with self._telling("read", next(iter(paths.values()))):
                contents: Mapping[str, bytes | Exception] = self.filesystem.cat(
                    list(paths), on_error="return"
                )
                for content in contents.values():
                    if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                        raise content
            for path, content in contents.items():
                if isinstance(content, bytes):
                    yield paths[path], content

    def write(self, name: str, content: bytes) -> None:
        """Put a file, replacing what is there: readers see the old one or the new one, never half."""
        path = self._path(name)
        with self._telling("write", name):
            if self._puts_whole:
                self.filesystem.pipe_file(path, content)
                return
            folder, _, last = path.rpartition("/")
            temporary = f"{folder}/.{last}.{secrets.token_hex(4)}.tmp"
            self.filesystem.makedirs(folder, exist_ok=True)
            try:
                self.filesystem.pipe_file(temporary, content)
                self.filesystem.mv(temporary, path)
            finally:
                if self.filesystem.exists(temporary):
                    self.filesystem.rm_file(temporary)

    def create(self, name: str, content: bytes) -> bool:
        """Put a file that does not exist; return False where it does."""
        path = self._path(name)
        with self._telling("write", name):
            try:
                if self._puts_whole:
                    self.filesystem.pipe_file(path, content, mode="create")
                else:
                    self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
                    with self.filesystem.open(path, "xb") as file:
                        file.write(content)
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is fine."""
        with self._telling("remove", name):
            try:
                self.filesystem.rm_file(self._path(name))
            except FileNotFoundError:
                return

    @property
    def _puts_whole(self) -> bool:
        protocols = self.filesystem.protocol
        return not _WHOLE_PUTS.isdisjoint({protocols} if isinstance(protocols, str) else protocols)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _telling(self, verb: str, name: str) -> Iterator[None]:
        """Turn whatever a client raises into an error of ours: each has exceptions of its own."""
        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except EvalkitError:
            raise
        except NotImplementedError as error:
            raise UsageError(
                f"cannot {verb} {place}: this kind of store does not do that", hint="choose another --out"
            ) from error
        except Exception as error:
            raise TemporaryError(
                f"cannot {verb} {place}: {_words(error)}",
                hint=_AGAIN,
            ) from error


def _words(error: Exception) -> str:
    """Return what a library says, on one line and without credentials."""
    return shown(" ".join(str(error).split())) or type(error).__name__
