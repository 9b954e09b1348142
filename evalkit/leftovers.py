"""What killed runs leave in a run folder, taken away by the run that finishes their work.

A process that is killed cannot say so: its record says ``started`` for ever, and a file that it was writing
stays under a temporary name. The same command continues its shards, and when that has its record there is
nothing left that the dead one could tell. Records that say how a run ended (``partial``, ``error``) stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from evalkit.atomic import remove_orphans
from evalkit.errors import InvalidInputError
from evalkit.record import RunRecord

_STARTED = f'"status": {json.dumps("started")}'
_HEAD = 400  # the status is the third key of a record


def clear_leftovers(out: Path, begun: RunRecord, *, folders: tuple[str, ...] = ()) -> None:
    """Remove from ``out`` the records of runs that were killed doing what ``begun`` began and now has done.

    A run that lives still is none the worse: it writes its record again when it ends.

    Args:
        out: folder of records.
        begun: the record of the run that is complete, as it was when it started.
        folders: names of folders below ``out`` that temporary files of killed writers may lie in.
    """
    for path in _started(out):
        with suppress(InvalidInputError, OSError):
            other = RunRecord.read(path)
            same = replace(
                other,
                run_id=begun.run_id,
                created_utc=begun.created_utc,
                env=begun.env,
                command=begun.command,
            )
            if other.run_id != begun.run_id and same == begun:
                path.unlink()
    for folder in (out, *(out / name for name in folders)):
        remove_orphans(folder)


def _started(out: Path) -> Iterator[Path]:
    for path in sorted(out.glob("[!.]*.json")):
        with suppress(OSError), path.open("rb") as file:
            if _STARTED.encode() in file.read(_HEAD):
                yield path
