"""Which record came of which parts: a note beside them, so that a second merge leaves a run alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.distribution.gathering import MERGED, Run
from evalkit.distribution.manifest import FOLDER
from evalkit.errors import InvalidInputError
from evalkit.record import RunRecord
from evalkit.spec import sha256_of

SCHEMA: Final = "evalkit.merged/1"
Read = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """That the parts with the digest ``parts`` were merged into the record ``run_id``."""

    schema: Literal["evalkit.merged/1"] = SCHEMA
    run_id: str
    parts: str


def note_merged(parts: Run, record: RunRecord, out: Path) -> None:
    """Write below ``out`` that ``record`` came of ``parts``.

    Raises:
        TemporaryError: it cannot be written.
    """
    merged = Merged(run_id=record.run_id, parts=_digest(parts))
    write_atomically(out / _name(parts), strict_json.dumps(strict_json.encode_object(merged)))


def record_of(parts: Run, read: Read) -> RunRecord | None:
    """Return the complete record that came of these very parts, or None where there is none (any more).

    Args:
        parts: of one run.
        read: returns the text of a file below ``out``, or None.
    """
    with suppress(InvalidInputError, UnicodeDecodeError):
        if (text := read(_name(parts))) is None:
            return None
        merged = strict_json.decode(strict_json.loads(text), Merged)
        if merged.parts != _digest(parts) or (text := read(f"{merged.run_id}.json")) is None:
            return None
        record = RunRecord.from_json(strict_json.loads(text))
        return record if record.status == "complete" and record.run_id == merged.run_id else None
    return None


def _name(parts: Run) -> str:
    return f"{FOLDER}/{parts[0].manifest.run}{MERGED}"


def _digest(parts: Run) -> str:
    """Digest of all that parts say, but for when: one that ran again and found its shards is the same."""
    said = [part.manifest.to_json() for part in parts]
    return sha256_of([{key: value for key, value in data.items() if key != "created_utc"} for data in said])
