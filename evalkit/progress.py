"""How far a run is, in one small file that a dashboard reads: ``OUT/progress/KEY.json``. No torch.

    for found in read_progress(Path("evalkit-runs")):
        print(found.snapshot.subject, state_of(found.snapshot), found.snapshot.images_done)

``KEY`` is a digest of what was asked for (and of the part, in a distributed run): the run that continues a
killed one takes its place, and says so in ``continues``. The file is replaced atomically; its schema is
``schemas/progress-1.schema.json``.

Accepted trade-offs: whether a process lives is known on its own host alone; elsewhere, and where a process
id was given to another program, the age of the heartbeat decides, which supposes clocks that agree to
within :data:`STALLED_AFTER` seconds.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.errors import InvalidInputError
from evalkit.record_parts import require

SCHEMA: Final = "evalkit.progress/1"
FOLDER: Final = "progress"
"""Below the run folder."""
HEARTBEAT_SECONDS: Final = 5.0
"""A living run replaces its file at least this often."""
STALLED_AFTER: Final = 60.0
"""Seconds after the last heartbeat from which a run counts as stalled."""

Phase = Literal[
    "opening", "reference", "sampling", "reading", "probing", "scoring", "done", "failed", "interrupted"
]
State = Literal["running", "stalled", "complete", "partial", "failed"]
ENDED: Final[Mapping[Phase, State]] = {"done": "complete", "failed": "failed", "interrupted": "partial"}
"""Phases after which nothing more happens, and what they say of the run."""
MOST_SHARDS: Final = 10_000_000
_MOST_CONTINUED = 20
_WHOLE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far one run, or one part of a distributed run, is.

    Attributes:
        run: id of the run, also the name of its record.
        continues: runs of the same command that ended early before this one.
        subject: what is judged; ``protocol`` under which: as asked for until they are known.
        part: number of this process among ``parts``, from 0.
        images_done: of the pass at hand, those that were there already included; ``shards_done`` alike.
        images_total: of the pass at hand that this process has to do, 0 before the first; ``shards_total``
            alike.
        rate: images a second of this pass, reused ones left out; None before the first batch.
        eta_seconds: to the end of the pass; the numerics after it are not part of it.
        started_utc: when the run began; ``moved_utc`` when it last got on; ``heartbeat_utc`` when it was last
            known to live.
        state: folders of the shards of the images judged, below the run folder; empty until they are known.
        shards: numbers of those that this process has to do, as :func:`ranges_of` writes them.
        warning: the last one, or nothing; ``error`` what ended the run, or nothing.
    """

    schema: Literal["evalkit.progress/1"] = "evalkit.progress/1"
    run: str
    continues: tuple[str, ...] = ()
    subject: str
    protocol: str
    phase: Phase
    part: int = 0
    parts: int = 1
    images_done: int = 0
    images_total: int = 0
    shards_done: int = 0
    shards_total: int = 0
    rate: float | None = None
    eta_seconds: float | None = None
    started_utc: str
    moved_utc: str
    heartbeat_utc: str
    pid: int
    host: str
    state: tuple[str, ...] = ()
    shards: str = ""
    warning: str = ""
    error: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.part < self.parts, f"part {self.part} of {self.parts}")
        require(0 <= self.images_done <= self.images_total, "more images are done than there are")
        require(0 <= self.shards_done <= self.shards_total, "more shards are done than there are")
        for text in (self.started_utc, self.moved_utc, self.heartbeat_utc):
            time_of(text)


def time_of(text: str) -> datetime:
    """Return a UTC time as records write it.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a UTC time such as 2026-01-31T12:00:00Z") from error


def ranges_of(numbers: Iterable[int]) -> str:
    """Return whole numbers as ascending ranges: ``0-3,8,10-11``."""
    ordered = sorted(set(numbers))
    runs: list[tuple[int, int]] = []
    for number in ordered:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def numbers_in(text: str) -> list[int]:
    """Return the numbers of :func:`ranges_of`.

    Raises:
        InvalidInputError: the text is of another form, or names more than :data:`MOST_SHARDS` numbers.
    """
    found: list[int] = []
    for piece in text.split(",") if text else ():
        first, dash, last = piece.partition("-")
        decimal = _WHOLE.fullmatch(first) and (_WHOLE.fullmatch(last) if dash else True)
        start, stop = (int(first), int(last or first) + 1) if decimal else (1, 1)
        require(start < stop and len(found) + stop - start <= MOST_SHARDS, f"no ranges: {text[:80]!r}")
        found.extend(range(start, stop))
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """A progress file that was read."""

    path: Path
    snapshot: Snapshot


def write_progress(path: Path, snapshot: Snapshot) -> None:
    """Replace the file.

    Raises:
        TemporaryError: it could not be written; the old one is untouched.
    """
    write_atomically(path, strict_json.dumps(strict_json.encode_object(snapshot)))


def read_snapshot(path: Path) -> Snapshot:
    """Read one progress file.

    Raises:
        InvalidInputError: it is damaged, or of another release.
    """
    try:
        data = strict_json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema") if isinstance(data, dict) else None
        require(found == SCHEMA, f"schema is {found!r}, not {SCHEMA!r}")
        snapshot = strict_json.decode(data, Snapshot)
        numbers_in(snapshot.shards)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}: not UTF-8 text") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.message}", hint=error.hint) from error
    return snapshot


def before_us(path: Path, *, now: datetime) -> tuple[tuple[str, ...], bool]:
    """Return the runs of the same command that ended early before this one, and whether the last still works.

    Where it does, in another process, this one is about to be refused: the file is that of the run at work.
    """
    try:
        before = read_snapshot(path)
    except (InvalidInputError, OSError):
        return (), False
    another = (before.pid, before.host) != (os.getpid(), socket.gethostname())
    continues = () if before.phase == "done" else (*before.continues, before.run)[-_MOST_CONTINUED:]
    return continues, another and state_of(before, now=now) == "running"


def read_progress(folder: Path, *, notify: Callable[[str], None]) -> list[Found]:
    """Return the progress of the runs of ``folder``, oldest first; one that cannot be read is told of."""
    found = []
    for path in sorted((folder / FOLDER).glob("[!.]*.json")):
        try:
            found.append(Found(path, read_snapshot(path)))
        except (InvalidInputError, OSError) as error:
            notify(f"warning: {error}; skipped")
    return sorted(found, key=lambda one: (one.snapshot.started_utc, one.snapshot.part, one.path))


def state_of(
    snapshot: Snapshot,
    *,
    now: datetime,
    host: str | None = None,
    alive: Callable[[int], bool] | None = None,
) -> State:
    """Return what has become of a run.

    Args:
        snapshot: its last words.
        now: the time, with its zone.
        host: name of this machine; asked for where None.
        alive: whether a process of this machine lives; asked for where None.
    """
    if snapshot.phase in ENDED:
        return ENDED[snapshot.phase]
    here = snapshot.host == (socket.gethostname() if host is None else host)
    if here and not (alive or is_alive)(snapshot.pid):
        return "stalled"
    silent = (now - time_of(snapshot.heartbeat_utc)).total_seconds()
    return "stalled" if silent > STALLED_AFTER else "running"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives, whoever it belongs to."""
    if pid < 1 or os.name != "posix":  # elsewhere a signal of 0 would end it: the heartbeat decides
        return os.name != "posix"
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a progress file."""
    file = importlib.resources.files("evalkit").joinpath("schemas", "progress-1.schema.json")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded
