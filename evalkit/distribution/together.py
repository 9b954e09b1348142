"""Scoring by the ranks of ``torchrun``: each computes its shards, all meet, the first makes the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from evalkit.console import Console
from evalkit.distribution.gathering import check_whole, parts_beside
from evalkit.distribution.manifest import FOLDER, PartManifest
from evalkit.distribution.merging import score_parts
from evalkit.distribution.parts import compute
from evalkit.distribution.ranks import PATIENCE_S, Rank, meeting
from evalkit.errors import NothingMeasuredError
from evalkit.evaluate import run
from evalkit.extraction import Interrupted
from evalkit.mirror import NO_MIRROR
from evalkit.opening import STATE_FOLDER
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.shards import ShardStore


def score_together(
    requests: Sequence[ScoreRequest],
    rank: Rank,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    patience: float = PATIENCE_S,
) -> list[RunRecord]:
    """Compute this rank's shards of each request; return the records on the first rank, none on the others.

    Args:
        requests: the same on every rank, with an ``out`` that all can write to.
        rank: which this is.
        console: told how it goes.
        stop: returns the number of a signal that arrived, or 0.
        patience: seconds to wait for the slowest rank.

    Raises:
        EvalkitError: as :func:`evalkit.evaluate.run`; what went wrong on a rank is raised there once the
            others have finished. NothingMeasuredError on the first rank where another owes shards.
    """
    with meeting(rank, patience=patience) as met:
        own = [
            replace(request, device=rank.device(request.device), launch=met.launch) for request in requests
        ]
        if own:
            rank.share_threads(own[0].device)
        manifests, problem = _computed(own, rank, console=console, stop=stop)
        met.wait(stop)
    if problem is not None:
        raise problem
    if rank.index > 0:
        return []
    return [
        _record(request, manifest, console=console, stop=stop)
        for request, manifest in zip(own, manifests, strict=True)
    ]


def _computed(
    requests: Sequence[ScoreRequest], rank: Rank, *, console: Console, stop: Callable[[], int]
) -> tuple[list[PartManifest], Exception | None]:
    """Return what this rank computed and wrote down, and what kept it from the rest."""
    manifests: list[PartManifest] = []
    try:
        for request in requests:
            manifests.append(compute(request, console=console, part=rank.part, stop=stop).manifest)
            if request.mirror is NO_MIRROR:  # else the first rank reads the store, and not what others say
                manifests[-1].write(request.out)
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001 - raised later: the others are to finish first
        return manifests, error
    return manifests, None


def _record(
    request: ScoreRequest, manifest: PartManifest, *, console: Console, stop: Callable[[], int]
) -> RunRecord:
    if request.mirror is not NO_MIRROR:  # there all shards are brought by a run of their own
        return run(replace(request, fresh=False), console=console, stop=stop)
    found = parts_beside(manifest, request.out)
    try:
        check_whole(found)
    except NothingMeasuredError as error:
        raise NothingMeasuredError(
            error.message,
            hint="the same command continues; --out must be on a file system that all ranks share",
        ) from error
    record = score_parts(found, request.out, console=console, device=request.device, stop=stop)
    for part in found:
        part.manifest.path(request.out).unlink(missing_ok=True)
    for lane in {file.lane for part in found for file in part.manifest.files}:
        ShardStore(request.out / STATE_FOLDER / lane).forget_launches()
    with suppress(OSError):  # parts of other runs lie there
        (request.out / FOLDER).rmdir()
    return record
