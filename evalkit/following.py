"""Follows one run: its progress file, its events, and the last warning. A run tells it as it tells a console.

    with following(request, console) as console:          # "opening"
        console.tell(PhaseBegan(phase="sampling"))
        look = telling(job, console)
        with console.progress("sampling ddpm", job.images) as progress:
            extract(job, progress=progress, stop=stop, after_shard=look)
        console.tell(PhaseBegan(phase="scoring"))
        console.tell(finished(record, path))

A thread replaces the file while nothing else happens, so that a slow batch looks alive and a dead process
does not. What cannot be written is told once and changes nothing else: no run ends for want of its progress.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from evalkit.console import Console
from evalkit.errors import TemporaryError
from evalkit.events import (
    Event,
    PartFinished,
    PassBegan,
    PhaseBegan,
    RunFailed,
    RunFinished,
    RunIdentified,
    RunInterrupted,
    RunStarted,
    ShardDone,
    without_secrets,
)
from evalkit.extraction import Progress
from evalkit.progress import (
    FOLDER,
    HEARTBEAT_SECONDS,
    Phase,
    Snapshot,
    before_us,
    numbers_in,
    write_progress,
)
from evalkit.record import new_run_id, redact_command, utc_now
from evalkit.request import ScoreRequest
from evalkit.shards import Part
from evalkit.spec import sha256_of
from evalkit.telling import ended_by

PROGRESS_SECONDS: Final = 2.0
"""Between two changes of the count of images, at least; changes of the phase are written at once."""
_WHOLE = Part(0, 1)
_FIRST_BEAT = 1.0
_JUDGED = frozenset({"sampling", "reading"})
# Not part of what is asked for: the same images are scored in the same way whatever these are.
_ELSEWHERE = frozenset({"out", "command", "fresh", "device", "batch_size", "backend", "mirror", "launch"})


@contextmanager
def following(request: ScoreRequest, console: Console, *, part: Part | None = None) -> Iterator[Follower]:
    """Follow a run from its first moment to its last, whatever ends it.

    Args:
        request: what is asked for.
        console: told of everything as well; one that follows a run already goes on to do so.
        part: which process of a distributed run this is; None where it is the only one.
    """
    if isinstance(console, Follower):
        yield console
        return
    follower = Follower(request, console, part or _WHOLE)
    follower.open()
    try:
        yield follower
    except BaseException as error:
        follower.tell(ended_by(error))
        raise
    finally:
        follower.close()


class Follower:
    """A console that also keeps the progress file of one run."""

    def __init__(self, request: ScoreRequest, console: Console, part: Part) -> None:
        self._console, self._request = console, request
        self._path = request.out / FOLDER / f"{progress_key(request, part)}.json"
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._written, self._refused = 0.0, False
        self._ours, self._admitted = False, False  # the file; to the folders of shards
        self._rate, self._judged = _Rate(time.monotonic()), _NOTHING
        now = utc_now()
        self._snapshot = Snapshot(
            run=new_run_id(),
            subject=str(without_secrets(request.name or request.model or str(request.images))),
            protocol=request.protocol,
            phase="opening",
            part=part.index,
            parts=part.count,
            started_utc=now,
            moved_utc=now,
            heartbeat_utc=now,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        self._heart = threading.Thread(target=self._beat, name="evalkit-heartbeat", daemon=True)

    @property
    def run(self) -> str:
        """Id of the run, for its record."""
        return self._snapshot.run

    @property
    def snapshot(self) -> Snapshot:
        """How far the run is."""
        return self._snapshot

    def open(self) -> None:
        """Begin to beat; the first progress is written after a second, or when the first phase begins."""
        first, command = self._snapshot, redact_command(list(self._request.command))
        self._console.tell(
            RunStarted(
                run=first.run,
                evalkit=version("evalkit"),
                subject=first.subject,
                protocol=first.protocol,
                out=str(self._request.out),
                pid=first.pid,
                host=first.host,
                part=first.part,
                parts=first.parts,
                command=command,
            )
        )
        self._heart.start()

    def close(self) -> None:
        """Stop the heart; what was written last stays."""
        self._ended.set()
        self._heart.join()

    def note(self, text: str) -> None:
        """Pass a sentence on; a warning is kept in the progress file."""
        if text.startswith("warning"):
            self._change(soon=True, warning=str(without_secrets(text)))
        self._console.note(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """Show a bar, and count its images."""
        with self._console.progress(title, total) as bar:

            def advance(images: int) -> None:
                bar(images)
                self._rate.add(images)
                self._move(images=images)

            yield advance

    def tell(self, event: Event) -> None:
        """Take from an event what the progress file holds, and pass it on."""
        match event:
            case PhaseBegan(phase=phase):
                self._enter(phase)
            case PassBegan():
                self._begin(event)
            case ShardDone(images=images, reused=reused):
                self._admitted |= self._snapshot.phase in _JUDGED
                self._rate.take_out(images if reused else 0)
                self._move(shards=1)
            case RunIdentified(subject=subject, protocol=protocol):
                self._change(subject=subject, protocol=protocol)
            case RunFinished() | PartFinished():
                self._admitted = True
                self._change(phase="done")
            case RunInterrupted(text=text):
                self._end("interrupted", text)
            case RunFailed(text=text):
                self._end("failed", text)
        self._console.tell(event)

    def _enter(self, phase: Phase) -> None:
        """Begin to count anew; while scoring, what was judged is shown."""
        if self._snapshot.phase in _JUDGED:
            self._judged = {name: getattr(self._snapshot, name) for name in _NOTHING}
        self._change(phase=phase, **(self._judged if phase == "scoring" else _NOTHING))

    def _end(self, phase: Phase, text: str) -> None:
        """Note what ended the run early; what was refused at once leaves no file behind."""
        if self._written:
            self._change(phase=phase, error=text)

    def _begin(self, event: PassBegan) -> None:
        own: dict[str, Any] = {}
        if self._snapshot.phase in _JUDGED:
            folders = tuple(_below(Path(folder), self._request.out) for folder in event.state)
            own = {"state": folders, "shards": event.shards}
        self._rate = _Rate(time.monotonic())
        total = len(numbers_in(event.shards))
        self._change(**{**_NOTHING, "images_total": event.images, "shards_total": total}, **own)

    def _move(self, *, images: int = 0, shards: int = 0) -> None:
        now, rate = self._snapshot, self._rate.value()
        done = min(now.images_done + images, now.images_total)
        self._change(
            soon=True,
            images_done=done,
            shards_done=min(now.shards_done + shards, now.shards_total),
            rate=rate,
            eta_seconds=round((now.images_total - done) / rate, 1) if rate else None,
        )

    def _change(self, *, soon: bool = False, **facts: Any) -> None:  # noqa: ANN401 - fields of the snapshot
        """Note that the run got on; ``soon`` says that it may be written a little later."""
        with self._lock:
            self._snapshot = replace(self._snapshot, **facts, moved_utc=utc_now())
            late = time.monotonic() - self._written < PROGRESS_SECONDS
            quiet = soon and (late or not self._written)
        if not quiet:
            self._write()

    def _beat(self) -> None:
        seconds = _FIRST_BEAT
        while not self._ended.wait(seconds):
            self._write()
            seconds = HEARTBEAT_SECONDS

    def _write(self) -> None:
        """Replace the file; where that fails, tell it once and go on."""
        with self._lock:
            if not self._ours:
                continues, held = before_us(self._path, now=datetime.now(UTC))
                if held and not self._admitted:
                    return
                self._ours, self._snapshot = True, replace(self._snapshot, continues=continues)
            self._snapshot = replace(self._snapshot, heartbeat_utc=utc_now())
            self._written = time.monotonic()
            reason = ""
            try:
                write_progress(self._path, self._snapshot)
            except TemporaryError as error:
                # Told once: a disk that is full now may have room again at the next beat.
                reason = "" if self._refused else error.message
                self._refused = True
        if reason:
            self._console.note(f"warning: {reason}; the run goes on without its progress file")


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("images_done", "images_total", "shards_done", "shards_total"), 0),
    **dict.fromkeys(("rate", "eta_seconds")),
}


@dataclass(slots=True)
class _Rate:
    """Images a second since the first one that was computed."""

    since: float
    images: int = 0

    def add(self, images: int) -> None:
        self.images += images

    def take_out(self, reused: int) -> None:
        """Forget images of an earlier run, and the time before them where nothing was computed."""
        self.images -= reused
        if reused and self.images == 0:
            self.since = time.monotonic()

    def value(self) -> float | None:
        elapsed = time.monotonic() - self.since
        return round(self.images / elapsed, 3) if self.images > 0 and elapsed > 0 else None


def progress_key(request: ScoreRequest, part: Part) -> str:
    """Return the name of the progress file of a part of ``request``; a run that continues it has the same."""
    fields = sorted(set(request.__dataclass_fields__) - _ELSEWHERE)
    digest = sha256_of({name: repr(getattr(request, name)) for name in fields})[:16]
    return digest if part.count == 1 else f"{digest}-part-{part.key}"


def _below(folder: Path, root: Path) -> str:
    try:
        return folder.relative_to(root).as_posix()
    except ValueError:
        return folder.as_posix()
