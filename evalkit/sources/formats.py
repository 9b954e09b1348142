"""What an opened image set offers, and the registry of the formats that can be opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from evalkit.core import ImageSource
from evalkit.registry import Registry
from evalkit.sources.decode import DEFAULT_POLICY, DecodePolicy


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that cannot be used: its name in the set, why, and what can be done about it."""

    name: str
    reason: str
    hint: str | None = None


class OpenedSource(ImageSource, Protocol):
    """An image source read from disk."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes 0..k-1 where known."""
        ...

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """Images left out by :meth:`usable`; they have no index."""
        ...

    def name_of(self, index: int) -> str:
        """Return the name of image ``index`` for messages."""
        ...

    def check(self) -> tuple[Rejected, ...]:
        """Decode every image once and return those that cannot be used."""
        ...

    def usable(self, *, max_bad: int) -> Self:
        """Return this set without the images that fail :meth:`check`.

        Raises:
            InvalidInputError: more than ``max_bad`` images fail.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How images are read: ``policy`` decides pixels, ``workers`` (decoding threads) only speed."""

    policy: DecodePolicy = DEFAULT_POLICY
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """One way to store images.

    Attributes:
        accepts: what a user may give, for messages.
        matches: tells from a path and the first 512 bytes (empty for a folder); no two formats
            match one path.
        open: opens the set cheaply, without decoding.
    """

    accepts: str
    matches: Callable[[Path, bytes], bool]
    open: Callable[[Path, ReadSettings], OpenedSource]


FORMATS: Registry[SourceFormat] = Registry("image format")
