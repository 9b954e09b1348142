"""Is there room for what will be written? Asked before hours of sampling, not after them."""

from __future__ import annotations

import shutil
from pathlib import Path

from evalkit.errors import TemporaryError

_MIB = 2**20


def check_room(folder: Path, *, wanted: int) -> None:
    """Refuse to begin where the shards in ``folder`` would not fit on its disk.

    Args:
        folder: of the shards; those that are there already count.
        wanted: bytes of all shards.

    Raises:
        TemporaryError: there is less room than is still to be written.
    """
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    needed, free = wanted - there, shutil.disk_usage(folder).free
    if needed > free:
        raise TemporaryError(
            f"{folder} needs {needed / _MIB:,.1f} MiB for features, and {free / _MIB:,.1f} MiB are free",
            hint="free some space or choose another --out; nothing was sampled",
        )
