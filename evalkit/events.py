"""What happens in a run, as facts that a program can read: one JSON object a line. No torch.

    {"event":"shard_done","images":512,"run":"20261122T…","schema":"evalkit.event/1","seconds":3.1,…}

Lines are canonical (keys sorted, no blanks, UTF-8), each is written whole, and secrets are taken out of
every text. ``schemas/event-1.schema.json`` says which facts each event has; ``evalkit score --log json``
writes them.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from evalkit import strict_json
from evalkit.progress import Phase
from evalkit.redaction import redact_command

SCHEMA = "evalkit.event/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins; nothing is loaded yet.

    ``part`` is its number among the processes of a distributed run, from 0; ``parts`` how many there are.
    """

    kind: ClassVar[str] = "run_started"
    run: str
    evalkit: str
    subject: str
    protocol: str
    out: str
    pid: int
    host: str
    part: int
    parts: int
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentified:
    """Model and networks are open: what is judged, and how many images."""

    kind: ClassVar[str] = "run_identified"
    subject: str
    subject_sha256: str | None
    protocol: str
    images: int
    record: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBegan:
    """The run does something else now."""

    kind: ClassVar[str] = "phase_began"
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class PassBegan:
    """A pass over images begins, in the phase at hand.

    ``shards`` are the numbers of those that this process has to do, as :func:`evalkit.progress.ranges_of`
    writes them, and ``images`` are theirs; ``state`` are the folders that they are kept in.
    """

    kind: ClassVar[str] = "pass_began"
    images: int
    shards: str
    state: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """One shard is whole on disk; ``seconds`` is the wall clock since the one before.

    ``read_seconds`` is drawing or decoding and ``extract_seconds`` the networks, summed over batches, of
    whoever computed it: an earlier run where it is ``reused``.
    """

    kind: ClassVar[str] = "shard_done"
    shard: int
    images: int
    seconds: float
    reused: bool
    read_seconds: float
    extract_seconds: float
    largest_batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """A batch did not fit: the shard was finished with batches of ``batch`` images."""

    kind: ClassVar[str] = "out_of_memory"
    shard: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A sentence for people."""

    kind: ClassVar[str] = "note"
    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFound:
    """One score of a finished run."""

    metric: str
    variant: str
    value: float
    se: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The record is written; ``status`` is its own."""

    kind: ClassVar[str] = "run_finished"
    status: str
    seconds: float
    fingerprint: str
    record: str
    scores: tuple[ScoreFound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFinished:
    """A part of a distributed run has its shards; their scores come when all parts are merged."""

    kind: ClassVar[str] = "part_finished"
    part: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInterrupted:
    """A signal ended the run; whole shards are kept, and the same command continues."""

    kind: ClassVar[str] = "run_interrupted"
    exit_code: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """An error ended the run; ``hint`` says what to do about it, ``exit_code`` is that of the command."""

    kind: ClassVar[str] = "run_failed"
    exit_code: int
    error: str
    text: str
    hint: str


Event = (
    RunStarted
    | RunIdentified
    | PhaseBegan
    | PassBegan
    | ShardDone
    | OutOfMemory
    | Note
    | RunFinished
    | PartFinished
    | RunInterrupted
    | RunFailed
)
KINDS: tuple[type[Event], ...] = (
    RunStarted,
    RunIdentified,
    PhaseBegan,
    PassBegan,
    ShardDone,
    OutOfMemory,
    Note,
    RunFinished,
    PartFinished,
    RunInterrupted,
    RunFailed,
)
"""Every kind of event, in the order in which a run can meet them."""


def line_of(event: Event, *, run: str | None, time: datetime | None = None) -> str:
    """Return ``event`` as one canonical line of JSON, without its line break.

    Args:
        event: what happened.
        run: id of the run that it happened in; None outside of one.
        time: when; now where None.
    """
    at = (time or datetime.now(UTC)).astimezone(UTC)
    facts = {
        **strict_json.encode_object(event),
        "schema": SCHEMA,
        "event": event.kind,
        "run": run,
        "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
    }
    if isinstance(event, RunStarted):
        facts["run"] = event.run
    clean = without_secrets(facts)
    return json.dumps(clean, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def without_secrets(value: object) -> object:
    """Return JSON data whose texts hold no values of secret variables, no passwords in URLs, no tokens."""
    if isinstance(value, str):
        return redact_command((value,))[0]
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return list(redact_command(value))
        return [without_secrets(item) for item in value]
    return value


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one line."""
    file = importlib.resources.files("evalkit").joinpath("schemas", "event-1.schema.json")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded
