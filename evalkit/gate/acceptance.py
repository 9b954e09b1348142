"""How a baseline changes: only by accepting a run, with a reason that is kept. No torch.

    accepted = accept(record, "baselines/ddpm.json", report=report, why="new sampler, see #12")

A baseline that is a file is replaced by the candidate's record, and the old record is kept beside it as
``replaced/RUN.json``; of a baseline that is a folder nothing is replaced, the candidate is added as
``RUN.json``. Each acceptance is one line of ``accepted.jsonl`` (schema ``evalkit.accepted/1``) beside the
file or in the folder.

Accepted trade-offs: the line is written before the record. A process killed in between leaves a line whose
``new_sha256`` is not yet that of the file, and the same command finishes; the other order could leave a
baseline that nobody gave a reason for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from evalkit import strict_json
from evalkit.atomic import write_atomically
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.gate.acceptances import ACCEPTED, standing
from evalkit.gate.facts import GateReport, Status
from evalkit.gate.sentences import label_of
from evalkit.record import RunRecord, utc_now

LOG = ACCEPTED
REPLACED = "replaced"
SCHEMA = "evalkit.accepted/1"

_LOCK_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedValue:
    """What a rule compared; None where a side had no such number."""

    metric: str
    variant: str
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One line of ``accepted.jsonl``.

    ``verdict`` is the gate's, and ``first`` where there was no baseline before;
    ``old_sha256`` and ``new_sha256`` are of the files of the records, ``baseline`` the name of the file or
    folder.
    """

    schema: Literal["evalkit.accepted/1"] = "evalkit.accepted/1"
    utc: str
    baseline: str
    model: str
    old_run_id: str | None
    run_id: str
    why: str
    verdict: Status | Literal["first"]
    old_sha256: str | None
    new_sha256: str
    values: tuple[AcceptedValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What was written: the record that is the baseline now, and where the old one is."""

    line: Acceptance
    record: Path
    replaced: Path | None
    log: Path


def check_acceptable(ref: str, why: str) -> None:
    """Refuse what can never be accepted, before anything is read.

    Raises:
        UsageError: no reason is given, or ``ref`` is a row of a leaderboard or a leaderboard's records, or no
            name of a file.
    """
    if not why.strip():
        raise UsageError("--accept needs a reason", hint='--why "what changed, and why that is right"')
    path = Path(ref)
    hint = "boards grow by: evalkit leaderboard add RECORD --board FOLDER"
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"no file can be named {ref[:80]!r}", hint="choose another name") from error
    if (not there and "#" in ref) or path.suffix.lower() == ".csv":
        raise UsageError(f"{ref} is a row of a leaderboard: a gate does not change it", hint=hint)
    if (path.parent / "board.toml").exists() or (path / "board.toml").exists():
        raise UsageError(f"{ref} belongs to a leaderboard: a gate does not change it", hint=hint)


def accept(record: RunRecord, ref: str, *, report: GateReport | None, why: str) -> Accepted:
    """Make ``record`` the baseline at ``ref``; ``report`` is None where there was none before.

    Of a ``ref`` that does not exist, one that ends in ``.json`` becomes a file, another one a folder.

    Raises:
        UsageError: no reason, a leaderboard, or ``record`` is the baseline already.
        InvalidInputError: ``record`` is not complete, or another record has its run id.
        TemporaryError: another process accepts a run here or has just done so, or the disk is full; the old
            baseline stands.
    """
    check_acceptable(ref, why)
    if record.status != "complete":
        raise InvalidInputError(
            f"{record.run_id} is {record.status}, not complete: it cannot be a baseline",
            hint="finish it: the same evalkit score command, without --until-decided",
        )
    if report is not None and report.baseline.run_id == record.run_id:
        raise UsageError(f"{record.run_id} is the baseline already", hint="nothing to accept")
    path = Path(ref)
    folder = path if path.is_dir() or path.suffix != ".json" else None
    with _locked(folder or path.parent):
        if folder is not None:
            return _add(record, folder, report, why)
        return _replace(record, path, report, why)


def _replace(record: RunRecord, path: Path, report: GateReport | None, why: str) -> Accepted:
    """Keep the old file under its run id, then put the new one in its place."""
    kept, found = None, RunRecord.read(path).run_id if path.exists() else None
    _require_unchanged(found, report, path)
    if found:
        old = path.read_bytes()
        kept = _write_once(path.parent / REPLACED / f"{found.replace('/', '_')}.json", old)
    text = strict_json.dumps(record.to_json())
    line = _line(record, path, report, why, old=path if kept else None, new=text)
    log = path.parent / LOG
    with _logged(log, line):
        write_atomically(path, text)
    return Accepted(line=line, record=path, replaced=kept, log=log)


def _add(record: RunRecord, folder: Path, report: GateReport | None, why: str) -> Accepted:
    """Put the record into the folder unless it is there."""
    _require_standing(record, folder, report)
    text = strict_json.dumps(record.to_json())
    path = _file_of(folder, record.run_id)
    if path is not None and RunRecord.read(path) != record:
        raise InvalidInputError(
            f"{path} has the run id {record.run_id} and is another record", hint="was one of the two edited?"
        )
    found = path or folder / f"{record.run_id.replace('/', '_')}.json"
    old = _file_of(folder, report.baseline.run_id) if report else None
    line = _line(
        record, folder, report, why, old=old, new=found.read_text(encoding="utf-8") if path else text
    )
    log = folder / LOG
    with _logged(log, line):
        if path is None:
            write_atomically(found, text)
    return Accepted(line=line, record=found, replaced=None, log=log)


def _require_unchanged(found: str | None, report: GateReport | None, path: Path) -> None:
    """Refuse to replace a baseline that the verdict was not about."""
    judged = report.baseline.run_id if report else None
    if found != judged:
        before = f"no longer {judged}" if judged else "where there was none"
        raise TemporaryError(
            f"the baseline at {path} is now {found or 'gone'}, {before}",
            hint="another run was accepted meanwhile; run the gate again",
        )


def _require_standing(record: RunRecord, folder: Path, report: GateReport | None) -> None:
    """Refuse what was judged by a baseline that stands no longer, or by none where there is one by now."""
    log = folder / LOG
    runs = standing(folder) if log.is_file() and log.read_bytes().strip() else ()
    if report is None:
        files = filter(None, (_file_of(folder, run_id) for run_id in reversed(runs)))
        found = (RunRecord.read(file) for file in files)
        _require_unchanged(
            next((r.run_id for r in found if r.model.id == record.model.id), None), None, folder
        )
    elif runs and report.baseline.run_id not in runs:
        _require_unchanged(runs[-1], report, folder)


def _line(
    record: RunRecord, place: Path, report: GateReport | None, why: str, *, old: Path | None, new: str
) -> Acceptance:
    return Acceptance(
        utc=utc_now(),
        baseline=place.resolve().name,
        model=record.model.id,
        old_run_id=report.baseline.run_id if report else None,
        run_id=record.run_id,
        why=why.strip(),
        verdict=report.status if report else "first",
        old_sha256=file_sha256(old) if old else None,
        new_sha256=hashlib.sha256(new.encode()).hexdigest(),
        values=tuple(_values(record, report)),
    )


def _values(record: RunRecord, report: GateReport | None) -> Iterator[AcceptedValue]:
    for outcome in report.outcomes if report else ():
        found = outcome.candidate or outcome.baseline
        yield AcceptedValue(
            metric=found.metric if found else label_of(outcome),
            variant=found.variant if found else outcome.rule.variant or "",
            old=outcome.baseline.value if outcome.baseline else None,
            new=outcome.candidate.value if outcome.candidate else None,
        )
    for result in () if report else record.results:
        yield AcceptedValue(metric=result.metric, variant=result.variant, old=None, new=result.value)


@contextmanager
def _logged(log: Path, line: Acceptance) -> Iterator[None]:
    """Write the line, and take it back if what it tells cannot be done."""
    before = log.read_bytes() if log.exists() else None
    earlier = (before or b"").removesuffix(b"\n")
    # ASCII: a line separator within a name or a reason must not end the line.
    text = json.dumps(strict_json.encode(line), allow_nan=False).encode()
    write_atomically(log, b"".join([earlier, b"\n" if earlier else b"", text, b"\n"]))
    try:
        yield
    except BaseException:
        if before is None:
            log.unlink(missing_ok=True)
        else:
            write_atomically(log, before)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder: of two that accept at once the second waits, and finds the first one's baseline."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{LOG}.lock", timeout=_LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise TemporaryError(
            f"another process is accepting a baseline in {folder}", hint="wait for it and try again"
        ) from error
    except OSError as error:
        raise TemporaryError(
            f"cannot write to {folder}: {error.strerror or error}", hint="choose another place"
        ) from error


def _write_once(path: Path, content: bytes) -> Path:
    """Keep ``content`` and return where; what lies there under the same name is never lost."""
    if path.exists() and path.read_bytes() != content:
        digest = hashlib.sha256(content).hexdigest()
        path = path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}")
    write_atomically(path, content)
    return path


def _file_of(folder: Path, run_id: str) -> Path | None:
    """Return the file of a run below ``folder``."""
    for file in sorted(folder.rglob("*.json")):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(data, dict) and data.get("run_id") == run_id:
            return file
    return None
