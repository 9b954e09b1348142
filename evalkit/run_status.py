"""What has become of the runs below a folder, from their progress files, records and shards. No torch.

    report = status_of(Path("evalkit-runs"), now=datetime.now(UTC), notify=print)
    for run in report.runs:
        print(run.subject, run.state, run.images_done, run.missing)

A run that a newer one of the same command took over is not listed. A record without a progress file (of an
older release, or copied here alone) counts by its own status.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from evalkit.errors import NothingMeasuredError, TemporaryError
from evalkit.progress import (
    FOLDER,
    Found,
    Snapshot,
    State,
    numbers_in,
    ranges_of,
    read_progress,
    state_of,
    time_of,
)

SCHEMA: Final = "evalkit.status/1"
_PART = "-part-"
_SHARDS = "*.safetensors"
_PRUNED = frozenset({"state", "logs"})
_RECORD_STATES: Final[dict[str, State]] = {
    "complete": "complete",
    "partial": "partial",
    "error": "failed",
    "started": "stalled",
}
RunState = Literal["running", "stalled", "complete", "partial", "failed", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One run, or one part of a distributed run.

    Attributes:
        folder: that it writes to, below the one asked about.
        state: ``missing`` is a part of a distributed run that never began.
        missing: numbers of the shards that are not whole on disk, as ranges; of an ended run nothing.
        unmerged: whether it is the last of parts that are all complete and that nobody has merged.
        counts: whether the state matters: a part does not any more where the whole run is complete.
        silent_seconds: since the last heartbeat; ``still_seconds`` since it last got on.
    """

    run: str
    folder: str
    subject: str
    protocol: str
    state: RunState
    phase: str = ""
    part: int = 0
    parts: int = 1
    images_done: int = 0
    images_total: int = 0
    shards_done: int = 0
    shards_total: int = 0
    missing: str = ""
    rate: float | None = None
    eta_seconds: float | None = None
    started_utc: str = ""
    silent_seconds: float | None = None
    still_seconds: float | None = None
    pid: int | None = None
    host: str = ""
    warning: str = ""
    error: str = ""
    unmerged: bool = False
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStatus:
    """How the cells of a suite ended that have run."""

    name: str
    folder: str
    done: int
    failed: int
    interrupted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything found below a folder."""

    schema: Literal["evalkit.status/1"] = "evalkit.status/1"
    folder: str
    runs: tuple[RunStatus, ...]
    suites: tuple[SuiteStatus, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 where all is complete, 75 where the rest still runs, 5 where something has to be run again."""
        states = Counter(run.state for run in self.runs if run.counts)
        broken = any(suite.failed or suite.interrupted for suite in self.suites)
        if broken or set(states) - {"complete", "running"}:
            return NothingMeasuredError.exit_code
        return TemporaryError.exit_code if states["running"] else 0


def status_of(folder: Path, *, now: datetime, notify: Callable[[str], None]) -> Report:
    """Return what has become of every run below ``folder``.

    Raises:
        NothingMeasuredError: there is no such folder, or no run below it.
    """
    if not folder.is_dir():
        raise NothingMeasuredError(f"no folder at {folder}", hint="evalkit status OUT, the --out of the runs")
    runs: list[RunStatus] = []
    suites: list[SuiteStatus] = []
    for place in _places(folder):
        found = read_progress(place, notify=notify)
        runs += _of_progress(found, place, folder, now)
        runs += _of_records(place, folder, {one.snapshot.run for one in found}, _earlier(found))
        suites += _suite(place, folder)
    if not (runs or suites):
        raise NothingMeasuredError(
            f"no run below {folder}",
            hint="evalkit score writes its progress to OUT/progress and its record to OUT",
        )
    return Report(folder=str(folder), runs=tuple(runs), suites=tuple(suites))


def _places(folder: Path) -> Iterator[Path]:
    """Folders that runs may have written to, without those that hold nothing but shards."""
    for path, below, _files in os.walk(folder):
        below[:] = sorted(name for name in below if name not in _PRUNED and name[0] != ".")
        if Path(path).name != FOLDER:
            yield Path(path)


def _earlier(found: Iterable[Found]) -> set[str]:
    return {run for one in found for run in one.snapshot.continues}


def _of_progress(found: Sequence[Found], place: Path, root: Path, now: datetime) -> Iterator[RunStatus]:
    together: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        together[one.path.stem.partition(_PART)[0]].append(one)
    for group in together.values():
        merged = any(one.snapshot.parts == 1 and one.snapshot.phase == "done" for one in group)
        snapshots = [one.snapshot for one in group]
        rows = [_status(one, place, root, now, counts=one.parts == 1 or not merged) for one in snapshots]
        absent = () if merged else _absent(snapshots, place, root)
        ordered = sorted([*rows, *absent], key=lambda row: (row.parts, row.part))
        if not merged and ordered[0].parts > 1 and all(row.state == "complete" for row in ordered):
            ordered[-1] = replace(ordered[-1], unmerged=True)
        yield from ordered


def _absent(snapshots: Sequence[Snapshot], place: Path, root: Path) -> Iterator[RunStatus]:
    """Parts that never began, of the latest division into parts."""
    divided = [snapshot for snapshot in snapshots if snapshot.parts > 1]
    if not divided:
        return
    latest = max(divided, key=lambda snapshot: snapshot.started_utc)
    begun = {snapshot.part for snapshot in divided if snapshot.parts == latest.parts}
    for part in range(latest.parts):
        if part not in begun:
            yield RunStatus(
                run="", folder=_name(place, root), subject=latest.subject, protocol=latest.protocol,
                state="missing", part=part, parts=latest.parts,
            )  # fmt: skip


def _status(snapshot: Snapshot, place: Path, root: Path, now: datetime, *, counts: bool) -> RunStatus:
    state = state_of(snapshot, now=now)
    ended = state not in {"running", "stalled"}
    return RunStatus(
        run=snapshot.run,
        folder=_name(place, root),
        subject=snapshot.subject,
        protocol=snapshot.protocol,
        state=state,
        phase=snapshot.phase,
        part=snapshot.part,
        parts=snapshot.parts,
        images_done=snapshot.images_done,
        images_total=snapshot.images_total,
        shards_done=snapshot.shards_done,
        shards_total=snapshot.shards_total,
        missing="" if state == "complete" else ranges_of(missing_shards(snapshot, place)),
        rate=snapshot.rate if state == "running" else None,
        eta_seconds=snapshot.eta_seconds if state == "running" else None,
        started_utc=snapshot.started_utc,
        silent_seconds=None if ended else _since(snapshot.heartbeat_utc, now),
        still_seconds=None if ended else _since(snapshot.moved_utc, now),
        pid=snapshot.pid,
        host=snapshot.host,
        warning=snapshot.warning,
        error=snapshot.error,
        counts=counts,
    )


def missing_shards(snapshot: Snapshot, place: Path) -> set[int]:
    """Return the shards that some network of a run has not seen yet; damage to files is not looked for."""
    missing: set[int] = set()
    wanted = set(numbers_in(snapshot.shards))
    for folder in snapshot.state:
        names = (path.name.partition("-")[0] for path in (place / folder).glob(_SHARDS))
        missing |= wanted - {int(name) for name in names if name.isdecimal()}
    return missing


def _since(text: str, now: datetime) -> float:
    return max(round((now - time_of(text)).total_seconds(), 1), 0.0)


def _of_records(place: Path, root: Path, known: set[str], earlier: set[str]) -> Iterator[RunStatus]:
    """Records whose run left no progress file; of several of one command the last."""
    last: dict[str, RunStatus] = {}
    for path in sorted(place.glob("[!.]*.json")):
        facts = _facts(path)
        if facts is None or facts["run_id"] in known | earlier:
            continue
        model, protocol, inputs = facts.get("model"), facts.get("protocol"), facts.get("inputs")
        if not (isinstance(model, dict) and isinstance(protocol, dict) and isinstance(inputs, dict)):
            continue
        status = facts.get("status")
        state = _RECORD_STATES.get(str(status), "failed")
        asked = json.dumps([facts.get("command"), model, protocol.get("name"), facts.get("sampling")])
        images = inputs.get("used")
        last[asked] = RunStatus(
            run=str(facts["run_id"]),
            folder=_name(place, root),
            subject=str(model.get("id")),
            protocol=str(protocol.get("name")),
            state=state,
            images_done=images if state == "complete" and isinstance(images, int) else 0,
            images_total=images if isinstance(images, int) else 0,
            started_utc=str(facts.get("created_utc")),
            error=str(facts.get("notes")) if state in {"failed", "partial"} else "",
        )
    yield from last.values()


def _facts(path: Path) -> dict[str, object] | None:
    """Return the JSON of a record, or None where a file is something else; it is read, not judged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    claims = isinstance(data, dict) and str(data.get("schema", "")).startswith("evalkit.run/")
    return data if claims and isinstance(data.get("run_id"), str) else None


def _suite(place: Path, root: Path) -> Iterator[SuiteStatus]:
    """The manifest of a suite, where there is one; read here, as its own module loads the numerics."""
    try:
        data = json.loads((place / "suite.json").read_text(encoding="utf-8"))
        endings = Counter(str(cell["status"]) for cell in data["cells"].values())
        name = str(data["suite"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return
    yield SuiteStatus(
        name=name,
        folder=_name(place, root),
        done=endings["done"],
        failed=endings["failed"],
        interrupted=endings["interrupted"],
    )


def _name(place: Path, root: Path) -> str:
    return place.relative_to(root).as_posix()
