"""The one pass over the images: source -> extractors -> one whole file for each shard and extractor.

Every image is read once and every network runs once on it, however many extractors take part and however
many metrics read them. A :class:`~evalkit.core.Probe` (pairs, latent paths) goes through the same shards.

Every shard is computed in the same batches whatever was interrupted before it, so a resumed run ends in
the identical files. The images of a batch exist only inside :func:`extract`: those that the networks see and,
where they are read from files, those of the next batch (:mod:`evalkit.sources.ahead`).

Accepted trade-offs: an interruption drops the batches of the shard at hand (at most 64 images at the 1 024 of
the embedded protocol, 512 from 8 192 images on); a half shard would be a second kind of state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.core import ImageSource, IndexArray
from evalkit.disk_room import Wanted, check_room
from evalkit.errors import EvalkitError, TemporaryError
from evalkit.extracted import Extracted, MissingShards
from evalkit.jobs import Job, default_batch_size, state_store
from evalkit.lanes import Lane, ShardFacts, measured, synchronise
from evalkit.runtime import bitwise_numerics, strict_numerics
from evalkit.shard_facts import FACTS
from evalkit.shard_locks import Waiting
from evalkit.shards import ShardResult
from evalkit.sources.ahead import ReadAhead

__all__ = [
    "AfterShard",
    "Extracted",
    "Interrupted",
    "Job",
    "MissingShards",
    "Progress",
    "default_batch_size",
    "extract",
    "interruption",
    "missing",
    "patience",
    "state_store",
]

Progress = Callable[[int], None]
AfterShard = Callable[[Sequence[Extracted]], None]
_MOMENT_S = 0.1
_FLOAT = 4  # bytes of a feature


class Interrupted(EvalkitError):  # noqa: N818 - the user did it, it is no error
    """A signal asked the run to stop; every whole shard is kept."""

    exit_code = 130


def extract(
    job: Job, *, progress: Progress, stop: Callable[[], int], after_shard: AfterShard | None = None
) -> tuple[Extracted, ...]:
    """Compute every shard of the job that is not there yet, in order, and return all, lane by lane.

    Args:
        job: what to extract.
        progress: called with the number of images done, batch by batch.
        stop: returns the number of a signal that arrived, or 0; asked after each batch.
        after_shard: shown what there is after each whole shard; may raise to end the pass there.

    Raises:
        Interrupted: ``stop`` said so; whole shards are kept.
        InvalidInputError: an image or a feature is not usable.
        MissingShards: the job computes nothing, and some shard is not there.
        TemporaryError: another process works on the same state, or the disk is full.
    """
    done = tuple(Extracted(job.layout) for _ in job.lanes)
    with ExitStack() as stack:
        # In one order everywhere, so that two runs that share folders cannot wait for each other.
        for store in sorted({lane.store for lane in job.lanes}, key=lambda store: store.folder):
            stack.enter_context(store.exclusive(job.part, waiting=patience(stop) if job.patient else None))
        stack.enter_context(bitwise_numerics() if job.bitwise else strict_numerics())
        if job.fresh:
            for lane in job.lanes:
                lane.store.clear(job.part, launch=job.launch)
        pieces = _pieces(job, done)
        if job.only_stored:
            return _stored(job, pieces, done, progress=progress, after_shard=after_shard)
        own = job.layout.shards_of(job.part)
        check_room(Wanted(lane.store.folder, own, lane.width * job.images * _FLOAT) for lane in job.lanes)
        images = stack.enter_context(_images(job, job.source)) if job.source is not None else None
        piece = next(pieces, None)
        while piece is not None:
            following = next(pieces, None)
            _add_shard(job, piece, done, images=images, following=following, progress=progress, stop=stop)
            if after_shard is not None:
                after_shard(done)
            piece = following
    return done


def _stored(
    job: Job,
    pieces: Iterator[_Piece],
    done: tuple[Extracted, ...],
    *,
    progress: Progress,
    after_shard: AfterShard | None,
) -> tuple[Extracted, ...]:
    """Return every shard as its file has it."""
    missing: list[int] = []
    for piece in pieces:
        if piece.wanted:
            missing.append(piece.shard)
            continue
        progress(len(piece.index))
        for number, extracted in enumerate(done):
            extracted.add(piece.whole[number])
        if after_shard is not None and not missing:
            after_shard(done)
    if missing:
        raise MissingShards(missing, job.layout, [text for extracted in done for text in extracted.warnings])
    return done


def missing(job: Job) -> tuple[int, ...]:
    """Return the shards of the job that :func:`extract` would compute; damaged files are removed."""
    unused = tuple(Extracted(job.layout) for _ in job.lanes)
    return tuple(piece.shard for piece in _pieces(job, unused) if piece.wanted)


def patience(stop: Callable[[], int]) -> Waiting:
    """Return what waits a moment for a folder that somebody else holds, unless the user has enough of it."""

    def wait(_holder: str) -> None:
        if signal_number := stop():
            raise interruption(signal_number)
        time.sleep(_MOMENT_S)

    return wait


def _images(job: Job, source: ImageSource) -> ReadAhead:
    return ReadAhead(source, pin=job.device.type == "cuda", finished=partial(synchronise, job.device))


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A shard: what of it is there, by lane, and the heads that are still to be computed, by lane."""

    shard: int
    index: IndexArray
    whole: dict[int, ShardResult]
    wanted: dict[int, tuple[str, ...]]


def _pieces(job: Job, done: Sequence[Extracted]) -> Iterator[_Piece]:
    """Look at each shard in order and tell what is missing."""
    for shard in job.layout.shards_of(job.part):
        piece = _Piece(shard, job.layout.indices(shard), {}, {})
        for number, lane in enumerate(job.lanes):
            result, warning = lane.store.read(shard, len(piece.index), lane.heads)
            if warning:
                done[number].warnings.append(
                    warning if job.only_stored else f"{warning} and is computed again"
                )
            if result is not None and _is_whole(job, lane, result):
                piece.whole[number] = result
            else:
                # What was extracted before stays: asking for heads in turn never computes one twice.
                piece.wanted[number] = tuple(
                    dict.fromkeys([*lane.heads, *(result.features if result else ())])
                )
        yield piece


def _is_whole(job: Job, lane: Lane, result: ShardResult) -> bool:
    """Whether a shard has all that is asked of it; a file whose name is right may still be made up."""
    if not set(lane.heads) <= set(result.features) or not set(result.facts) >= FACTS:
        return False
    if job.needs_labels and "labels" not in result.facts:
        return False
    # Of probes infinities may be right: the PSNR of equal images.
    return job.source is None or all(np.isfinite(result.features[head]).all() for head in lane.heads)


def _add_shard(
    job: Job, piece: _Piece, done: Sequence[Extracted], *, images: ReadAhead | None, following: _Piece | None,
    progress: Progress, stop: Callable[[], int],
) -> None:  # fmt: skip
    """Add one shard to every lane: as its file has it, or computed in one pass over its images."""
    if piece.wanted:
        then = following.index[: job.batch_size] if following is not None and following.wanted else None
        computed = _compute(job, piece, images=images, then=then, progress=progress, stop=stop)
        for number, result in computed.items():
            path = job.lanes[number].store.write(piece.shard, result)
            piece.whole[number] = replace(result, path=path)
    else:
        progress(len(piece.index))
    for number, extracted in enumerate(done):
        extracted.add(piece.whole[number])
        extracted.reused += 0 if number in piece.wanted else len(piece.index)


def _compute(
    job: Job, piece: _Piece, *, images: ReadAhead | None, then: IndexArray | None, progress: Progress,
    stop: Callable[[], int],
) -> dict[int, ShardResult]:  # fmt: skip
    """Return what is missing of a shard; ``then`` is the batch that will be asked for after it."""
    wanted, index = piece.wanted, piece.index
    parts: dict[int, dict[str, list[NDArray[np.float32]]]] = {
        number: {head: [] for head in heads} for number, heads in wanted.items()
    }
    facts = ShardFacts(job.device)
    size, position = min(job.batch_size, len(index)), 0
    while position < len(index):
        part = index[position : position + size]
        rest = index[position + size : position + 2 * size]
        try:
            read = None if images is None else partial(images.read, part, then=rest if len(rest) else then)
            batch = measured(job.lanes, wanted, part, read, job.device)
        except torch.OutOfMemoryError:
            size = _smaller(size, job)
            facts.out_of_memory_batch = size
            continue
        for number, rows in batch.rows.items():
            for head, values in rows.items():
                parts[number][head].append(values)
        facts.add(len(part), batch)
        position += len(part)
        progress(len(part))
        if signal_number := stop():
            raise interruption(signal_number)
    return {
        number: ShardResult({head: np.concatenate(x) for head, x in heads.items()}, facts.of(number))
        for number, heads in parts.items()
    }


def _smaller(size: int, job: Job) -> int:
    """Return the batch size to go on with where ``size`` images did not fit."""
    if size == 1 or job.bitwise:
        images = "one image does" if size == 1 else f"{size} images do"
        raise TemporaryError(
            f"{images} not fit into the memory of {job.device}",
            hint="free the device, choose another with --device, or drop --determinism strict"
            if job.bitwise
            else "free the device, or choose another with --device",
        ) from None
    torch.cuda.empty_cache()
    return max(size // 2, 1)


def interruption(number: int) -> Interrupted:
    """Return the error of a run that signal ``number`` stopped."""
    error = Interrupted("stopped by a signal; whole shards are kept", hint="run the same command to continue")
    error.exit_code = 128 + number  # type: ignore[misc]  # 130 for SIGINT, 143 for SIGTERM
    return error
