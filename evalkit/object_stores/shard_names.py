"""Which shards a folder of this machine and its copy in a store have, known by their names alone. No torch.

    changes = compared(there=names_in_the_store, here=shards_in(folder), stored=stored_in(folder))

``.stored`` beside the shards lists those that the store has had. One of them that is gone from there was
replaced or removed by another machine: it is old, and not to be sent again. What was never there was computed
here while the store did not answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SHARD: Final = re.compile(r"[0-9]{6,9}-([0-9a-f]{32})\.safetensors")
_STORED: Final = ".stored"
_OF: Final = "-of-"


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes a folder equal to its copy.

    Attributes:
        old: to be removed here.
        missing: to be brought.
        known: what the store has and need not be brought; those that are not here were replaced here, and
            are to be removed there.
    """

    old: frozenset[str]
    missing: frozenset[str]
    known: frozenset[str]


def compared(*, there: AbstractSet[str], here: AbstractSet[str], stored: AbstractSet[str]) -> Changes:
    """Compare the shards of a store and of this machine, of which ``stored`` were in the store once.

    A shard that the store has anew, made by another machine, is taken instead of ours.
    """
    anew = {_number(name) for name in there - here - stored}
    old = frozenset(name for name in here - there if name in stored or _number(name) in anew)
    ours = {_number(name) for name in here - there - old}
    replaced = {name for name in (there & stored) - here if _number(name) in ours}
    return Changes(old, frozenset(there - here - replaced), frozenset((there & here) | replaced))


def is_shard(name: str) -> bool:
    """Whether it is the name of a shard."""
    return _SHARD.fullmatch(name) is not None


def is_whole(name: str, content: bytes) -> bool:
    """Whether the digest in a name is that of the content."""
    named = _SHARD.fullmatch(name)
    return named is not None and hashlib.sha256(content).hexdigest().startswith(named[1])


def owns(part: str, name: str) -> bool:
    """Whether a shard is of ``part``: ``whole``, or ``i-of-n``."""
    index, _, count = part.partition(_OF)
    return not count or _number(name) % int(count) == int(index)


def shards_in(folder: Path) -> set[str]:
    """Return the names of the shards in a folder of this machine."""
    return {path.name for path in folder.glob("*.safetensors") if is_shard(path.name)}


def stored_in(folder: Path) -> set[str]:
    """Return the names of the shards of a folder that its store has had."""
    with suppress(FileNotFoundError):
        return set((folder / _STORED).read_text(encoding="ascii").split())
    return set()


def note_stored(folder: Path, names: Iterable[str]) -> None:
    """Add to them; each name is one write, so that of parts that run side by side none cuts another's."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _STORED).open("ab", buffering=0) as file:
        for name in sorted(names):
            file.write(f"{name}\n".encode("ascii"))


def _number(name: str) -> int:
    return int(name.partition("-")[0])
