"""Is there room for what will be written? Asked before hours of sampling, not after them."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import TemporaryError

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The shards of one network that a run will have.

    Attributes:
        folder: that they lie in; it exists.
        shards: their numbers; others in the folder are not this run's.
        size: bytes of all of them.
    """

    folder: Path
    shards: Container[int]
    size: int

    @property
    def missing(self) -> int:
        """Bytes that are still to be written: those of shards that are there already are not."""
        numbers = ((path, path.name.partition("-")[0]) for path in self.folder.glob("*.safetensors"))
        own = (path for path, number in numbers if number.isdecimal() and int(number) in self.shards)
        return max(self.size - sum(path.stat().st_size for path in own), 0)


def check_room(wanted: Iterable[Wanted]) -> None:
    """Refuse to begin where the shards of a run would not fit on their disk, all networks together.

    Raises:
        TemporaryError: there is less room than is still to be written.
    """
    disks: dict[int, list[Wanted]] = defaultdict(list)
    for one in wanted:
        disks[_disk_of(one.folder)].append(one)
    for together in disks.values():
        place = os.path.commonpath([one.folder for one in together])
        needed, free = sum(one.missing for one in together), shutil.disk_usage(together[0].folder).free
        if needed > free:
            raise TemporaryError(
                f"{place} needs {needed / _MIB:,.1f} MiB for features, and {free / _MIB:,.1f} MiB are free",
                hint="free some space or choose another --out; nothing was sampled",
            )


def _disk_of(folder: Path) -> int:
    return folder.stat().st_dev
