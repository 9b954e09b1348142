"""Members of an archive: which are images, and the caps that keep a hostile archive harmless.

Nothing is ever written: a member's name, be it ``../x`` or ``/etc/x``, is only a name. Archives inside
archives are ignored like every other file that is not an image.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import final

from evalkit.errors import InvalidInputError
from evalkit.sources.naming import LABEL_FILE, is_image_name, name_bytes


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Caps on an archive; what exceeds one is refused.

    Attributes:
        max_members: members of any kind.
        max_member_bytes: bytes of one image file, unpacked.
        max_ratio: unpacked bytes per stored byte, once more than ``ratio_from_bytes`` are unpacked; below
            that a bomb is harmless, and plain black bitmaps do reach a thousand.
    """

    max_members: int = 5_000_000
    max_member_bytes: int = 256 * 2**20
    max_ratio: float = 200.0
    ratio_from_bytes: int = 16 * 2**20

    def check_ratio(self, unpacked: int, stored: int, *, what: str) -> None:
        """Raise InvalidInputError where ``unpacked`` bytes out of ``stored`` ones look like a bomb."""
        if unpacked > self.ratio_from_bytes and unpacked > self.max_ratio * max(stored, 1):
            raise InvalidInputError(
                f"{what} unpacks {stored} bytes to {unpacked} or more: a decompression bomb?",
                hint="unpack it yourself if you trust it, and give the folder",
            )


DEFAULT_LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Member:
    """One member: where its bytes are (``offset``), how many (``stored``), and how many unpacked (``size``).

    ``method`` is zip's compression method and ``crc`` its CRC-32; a tar knows neither.
    """

    name: str
    offset: int
    size: int
    stored: int
    regular: bool = True
    method: int = 0
    crc: int | None = None


@final
class SharedFile:
    """A file that threads read side by side, each at its own offset, through one descriptor.

    It is opened by the first read and closed when the last who holds this lets go: a source that kept it
    could not be shared across a fork.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._descriptor: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from ``offset`` on, fewer than ``size`` where the file ends.

        Raises:
            OSError: the file cannot be opened or read.
        """
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY)
                weakref.finalize(self, os.close, self._descriptor)
        return os.pread(self._descriptor, size, offset)


def choose_images(
    members: Iterable[Member], *, limits: ArchiveLimits
) -> tuple[tuple[Member, ...], Member | None]:
    """Return the image members in the byte order of their names, and the label file where there is one.

    Raises:
        InvalidInputError: a cap is exceeded, a name occurs twice, or an image is a link, a device or sparse.
    """
    images: dict[str, Member] = {}
    label_file: Member | None = None
    for count, member in enumerate(members, start=1):
        if count > limits.max_members:
            raise InvalidInputError(f"the archive has more than {limits.max_members} members")
        if member.name == LABEL_FILE and member.regular:
            label_file = member
        elif not is_image_name(member.name):
            continue
        elif member.name in images:
            raise InvalidInputError(f"the archive holds {member.name!r} twice")
        else:
            images[member.name] = member
        _check_member(member, limits=limits)
    return tuple(sorted(images.values(), key=lambda member: name_bytes(member.name))), label_file


def plain_name(name: str) -> str:
    """Return ``name`` without the ``./`` that ``tar -C folder .`` puts before every name."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _check_member(member: Member, *, limits: ArchiveLimits) -> None:
    if not member.regular:
        raise InvalidInputError(
            f"{member.name!r} is not a regular file but a link, a device or sparse",
            hint="store the images themselves: tar --dereference --hard-dereference",
        )
    if member.size > limits.max_member_bytes:
        raise InvalidInputError(
            f"{member.name!r} unpacks to {member.size} bytes, more than {limits.max_member_bytes}"
        )
    limits.check_ratio(member.size, member.stored, what=repr(member.name))
