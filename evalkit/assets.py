"""The only downloader: a URL and a SHA-256 become a path in a per-user cache.

    path = fetch(Asset(name="...", url="https://...", sha256="6726825d", filename="weights.pth"))

A file is used only after its bytes were hashed, in the cache as after a download. The cache is
``$EVALKIT_CACHE`` or the platform's per-user cache folder, mode 0700. With ``EVALKIT_OFFLINE=1`` nothing
is ever downloaded.

Where only a prefix of the digest is published, the prefix is checked, and the full digest is written
beside the file at first use and checked from then on.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir
from tqdm import tqdm

from evalkit.errors import InvalidInputError, OfflineError, TemporaryError

if TYPE_CHECKING:
    from http.client import HTTPMessage

_TIMEOUT_S: Final = 30.0  # without a byte, not for the whole file
_LOCK_TIMEOUT_S: Final = 1800.0  # the holder downloads the very file that we want
_CHUNK_BYTES: Final = 1 << 20
_MAX_BYTES: Final = 8 << 30  # no published weight file is larger; a server that streams on is cut off
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_FILENAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Asset:
    """A published file.

    Attributes:
        name: what it is, for messages.
        url: where it is; https only.
        sha256: its digest in lower-case hexadecimal, or the published prefix of it (at least 8 digits).
        filename: its name in the cache.
        size: its length in bytes, where known.
    """

    name: str
    url: str
    sha256: str
    filename: str
    size: int | None = None

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 8 to 64 lower-case hexadecimal digits, not {self.sha256!r}")
        if not _FILENAME.fullmatch(self.filename):
            raise ValueError(f"{self.filename!r} is not a plain file name")
        if not self.url.startswith("https://"):
            raise ValueError(f"{self.url!r} is not an https URL")


class Response(Protocol):
    """The part of an HTTP response that is read."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


Opener = Callable[[str], Response]


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https alone."""

    def redirect_request(  # the signature is the base class's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_https(url: str) -> Response:
    """Open ``url`` with certificate checks and a timeout; redirects stay on https."""
    opener = urllib.request.build_opener(_HttpsOnly)
    response: Response = opener.open(url, timeout=_TIMEOUT_S)
    return response


def cache_folder() -> Path:
    """Return the cache folder, made with mode 0700 where it did not exist."""
    folder = Path(os.environ.get("EVALKIT_CACHE") or user_cache_dir("evalkit"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def is_offline() -> bool:
    """Whether ``EVALKIT_OFFLINE`` forbids downloads."""
    return os.environ.get("EVALKIT_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}


def cached(asset: Asset) -> Path | None:
    """Return the verified path of ``asset`` where the cache has it, else None.

    Raises:
        InvalidInputError: a file of that name is there with other contents; it is left as it is.
    """
    path = cache_folder() / asset.filename
    if not path.exists():
        return None
    _verify(path, asset)
    return path


def fetch(asset: Asset, *, opener: Opener = open_https) -> Path:
    """Return the path of ``asset`` in the cache, downloaded if need be; its hash is verified every time.

    Args:
        asset: what to get.
        opener: opens the URL; tests replace it.

    Raises:
        InvalidInputError: the cached file or the download has another hash. A wrong file in the cache is
            refused and left alone (somebody put it there); a wrong download leaves nothing behind.
        OfflineError: it is not cached, and downloads are forbidden or the network is not there.
        TemporaryError: another process held the lock too long, or the disk is full.
    """
    path = cached(asset)
    if path is not None:
        return path
    if is_offline():
        raise _offline(asset, "EVALKIT_OFFLINE is set")
    try:
        with FileLock(cache_folder() / f".{asset.filename}.lock", timeout=_LOCK_TIMEOUT_S):
            # Whoever held the lock before may have brought it.
            return cached(asset) or _download(asset, opener)
    except Timeout as error:
        raise TemporaryError(f"another process is still downloading {asset.filename}") from error


def import_file(asset: Asset, source: Path) -> Path:
    """Copy a local file into the cache after its hash was checked; return its path there.

    Raises:
        InvalidInputError: ``source`` cannot be read or is not ``asset``, or the cache holds another file.
        TemporaryError: the disk is full.
    """
    present = cached(asset)
    if present is not None:
        return present

    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if asset.size not in {None, size}:
                raise InvalidInputError(
                    f"{source} has {size} bytes, not {asset.size}: it is not {asset.name}",
                    hint=f"the right file is at {asset.url}",
                )
            return _store_as(asset, lambda _url: file, origin=str(source))
    except OSError as error:
        raise InvalidInputError(f"{source} cannot be read: {error.strerror or error}") from error


def _download(asset: Asset, opener: Opener) -> Path:
    return _store_as(asset, opener, origin=f"the download from {asset.url}")


def _store_as(asset: Asset, opener: Opener, *, origin: str) -> Path:
    target = cache_folder() / asset.filename
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{asset.filename}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = _store(asset, opener, file)
                file.flush()
                os.fsync(file.fileno())
            _check(digest, asset, what=origin)
            _record_digest(target, digest)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:  # of the disk: those of the network have become OfflineError
        raise TemporaryError(f"cannot store {asset.filename}: {error}", hint="is the disk full?") from error
    return target


def _store(asset: Asset, opener: Opener, file: IO[bytes]) -> str:
    """Write the body of the response to ``file``; return its SHA-256."""
    hasher, received = hashlib.sha256(), 0
    limit = asset.size or _MAX_BYTES
    progress = tqdm(
        total=asset.size, desc=asset.name, unit="B", unit_scale=True, file=sys.stderr, disable=None
    )
    with closing(_blocks(asset, opener)) as blocks, progress:
        for block in blocks:
            received += len(block)
            if received > limit:
                raise InvalidInputError(f"{asset.url} sends more than {limit} bytes; nothing was kept")
            hasher.update(block)
            file.write(block)
            progress.update(len(block))
    if asset.size is not None and received < asset.size:
        raise _offline(asset, f"the connection ended after {received} of {asset.size} bytes")
    return hasher.hexdigest()


def _blocks(asset: Asset, opener: Opener) -> Generator[bytes, None, None]:
    try:
        with closing(opener(asset.url)) as response:
            while block := response.read(_CHUNK_BYTES):
                yield block
    except (OSError, HTTPException) as error:  # URLError, timeouts and resets are OSErrors
        raise _offline(asset, str(error) or type(error).__name__) from error


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _record_digest(path: Path, digest: str) -> None:
    # Written by rename, so that a crash cannot leave half a digest that refuses the file for ever.
    temporary = _digest_file(path).with_suffix(".sha256.part")
    temporary.write_text(digest + "\n", encoding="ascii")
    temporary.replace(_digest_file(path))


def _verify(path: Path, asset: Asset) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check(digest, asset, what=str(path))
    record = _digest_file(path)
    if not record.exists():
        _record_digest(path, digest)
    elif (recorded := record.read_text(encoding="ascii", errors="replace").strip()) != digest:
        raise InvalidInputError(
            f"{path} has SHA-256 {digest}, but {recorded} was recorded when it was first used",
            hint=f"delete {path} and {record} to download it again",
        )


def _check(digest: str, asset: Asset, *, what: str) -> None:
    if not digest.startswith(asset.sha256):
        raise InvalidInputError(
            f"{what} has SHA-256 {digest}, not {asset.sha256}: it is not {asset.name} and is not used",
            hint=f"the right file is at {asset.url}",
        )


def _offline(asset: Asset, reason: str) -> OfflineError:
    path = cache_folder() / asset.filename
    return OfflineError(
        f"{asset.name} is needed and cannot be downloaded now: {reason}",
        hint=f"get {asset.url} (SHA-256 begins {asset.sha256}) and put it at {path}",
    )
