"""What a run tells programs of its passes, its record and its end.

look = telling(job, console)
extract(job, progress=progress, stop=stop, after_shard=look)
console.tell(finished(record, path))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.console import Console
from evalkit.errors import EvalkitError
from evalkit.events import (
    Event,
    OutOfMemory,
    PassBegan,
    PhaseBegan,
    RunFailed,
    RunFinished,
    RunIdentified,
    RunInterrupted,
    ScoreFound,
    ShardDone,
    without_secrets,
)
from evalkit.extracted import Extracted
from evalkit.extraction import AfterShard, Interrupted
from evalkit.jobs import Job
from evalkit.progress import ranges_of
from evalkit.record import RunRecord


def telling(job: Job, console: Console, *, then: AfterShard | None = None) -> AfterShard:
    """Tell that the pass over ``job`` begins; return what tells of each whole shard, and calls ``then``.

    To be given to :func:`~evalkit.extraction.extract` as ``after_shard``.
    """
    numbers = job.layout.shards_of(job.part)
    folders = tuple(str(lane.store.folder) for lane in job.lanes)
    console.tell(PassBegan(images=job.images, shards=ranges_of(numbers), state=folders))
    shards, clock = iter(numbers), _Clock(time.monotonic())

    def look(done: Sequence[Extracted]) -> None:
        shard = next(shards)
        for event in _of_shard(shard, len(job.layout.indices(shard)), done, clock):
            console.tell(event)
        if then is not None:
            then(done)

    return look


def telling_elsewhere(
    jobs: Sequence[Job], shards: Sequence[int], console: Console, *, drawn: bool
) -> Callable[[int], None]:
    """Tell that ``shards`` of ``jobs`` are computed elsewhere; return what tells of each that came back.

    How long it took there is not known here: reading and networks are 0 in its event.
    """
    layout, clock = jobs[0].layout, _Clock(time.monotonic())
    sizes = {shard: len(layout.indices(shard)) for shard in shards}
    folders = dict.fromkeys(str(lane.store.folder) for job in jobs for lane in job.lanes)
    console.tell(PhaseBegan(phase="sampling" if drawn else "reading"))
    console.tell(PassBegan(images=sum(sizes.values()), shards=ranges_of(shards), state=tuple(folders)))

    def came(shard: int) -> None:
        console.tell(
            ShardDone(
                shard=shard,
                images=sizes[shard],
                seconds=clock.lap(),
                reused=False,
                read_seconds=0.0,
                extract_seconds=0.0,
                largest_batch=0,
            )
        )

    return came


@dataclass(slots=True)
class _Clock:
    """When the last shard was done, and how many images were reused by then."""

    since: float
    reused: int = 0

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        return round(seconds, 4)

    def newly_reused(self, total: int) -> bool:
        more, self.reused = total > self.reused, total
        return more


def _of_shard(shard: int, images: int, done: Sequence[Extracted], clock: _Clock) -> Iterator[Event]:
    facts = [lane.shards[-1].facts for lane in done]
    # Reused is what no lane computed.
    reused = clock.newly_reused(min((lane.reused for lane in done), default=0))
    yield ShardDone(
        shard=shard,
        images=images,
        seconds=clock.lap(),
        reused=reused,
        # Every lane notes the reading of the images that they share.
        read_seconds=round(max((sum(fact["read_seconds"]) for fact in facts), default=0.0), 4),
        extract_seconds=round(sum(sum(fact["extract_seconds"]) for fact in facts), 4),
        largest_batch=max((max(fact["images"], default=0) for fact in facts), default=0),
    )
    fitted = [fact["out_of_memory_batch"] for fact in facts if fact.get("out_of_memory_batch")]
    if fitted and not reused:
        yield OutOfMemory(shard=shard, batch=min(fitted))


def finished(record: RunRecord, path: Path) -> RunFinished:
    """Return what is told of a record that is written."""
    return RunFinished(
        status=record.status,
        seconds=record.duration_seconds,
        fingerprint=record.protocol.fingerprint,
        record=str(path),
        scores=tuple(
            ScoreFound(
                metric=result.metric,
                variant=result.variant,
                value=result.value,
                se=result.se,
                low=result.ci.low if result.ci else None,
                high=result.ci.high if result.ci else None,
            )
            for result in record.results
        ),
    )


def identified(record: RunRecord, path: Path) -> RunIdentified:
    """Return what is told of a record that was begun."""
    return RunIdentified(
        subject=record.model.id,
        subject_sha256=record.model.sha256,
        protocol=record.protocol.name,
        images=record.inputs.used,
        record=str(path),
    )


def ended_by(error: BaseException) -> RunInterrupted | RunFailed:
    """Return what is told of a run that ended early."""
    text = str(without_secrets(str(error) or type(error).__name__))
    if isinstance(error, Interrupted | KeyboardInterrupt):
        code = error.exit_code if isinstance(error, Interrupted) else Interrupted.exit_code
        return RunInterrupted(exit_code=code, text=text)
    code = error.exit_code if isinstance(error, EvalkitError) else EvalkitError.exit_code
    hint = str(without_secrets(getattr(error, "hint", None) or ""))
    return RunFailed(exit_code=code, error=type(error).__name__, text=text, hint=hint)
