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

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.core import Extractor, FeatureSet, ImageSource, IndexArray, Probe
from evalkit.errors import EvalkitError, TemporaryError
from evalkit.lanes import Lane, ShardFacts, measured, synchronise
from evalkit.runtime import bitwise_numerics, strict_numerics
from evalkit.seeding import stream
from evalkit.shards import ShardLayout, ShardResult, ShardStore
from evalkit.sources.ahead import ReadAhead
from evalkit.spec import sha256_of

Progress = Callable[[int], None]
AfterShard = Callable[[Sequence["Extracted"]], None]
_KEY = 16


class Interrupted(EvalkitError):  # noqa: N818 - the user did it, it is no error
    """A signal asked the run to stop; every whole shard is kept."""

    exit_code = 130


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Job:
    """What to extract: rows ``0 .. layout.count - 1`` of every lane.

    ``source`` gives the images that the lanes' extractors see; None where probes make their own.
    ``needs_labels`` says that shards without the labels of their images are not enough. ``fresh`` forgets
    the shards of earlier runs. ``bitwise`` asks for the same bits on every run: one thread, and never
    another batch size than ``batch_size``.
    """

    lanes: tuple[Lane, ...]
    layout: ShardLayout
    batch_size: int
    device: torch.device
    source: ImageSource | None = None
    needs_labels: bool = False
    fresh: bool = False
    bitwise: bool = False

    @classmethod
    def of_probe(
        cls, probe: Probe, *, heads: Sequence[str], count: int, state: Path, device: torch.device,
        batch_size: int | None = None, fresh: bool = False, subject: str = "",
    ) -> Self:  # fmt: skip
        """Return the job of ``count`` rows of a probe, whose shards lie below ``state``.

        ``subject`` tells apart what the probe's own spec may not: the digest of the source that it looks at.
        """
        layout = ShardLayout(count)
        key = sha256_of([probe.spec.to_json(), subject])[: 2 * _KEY]
        store = ShardStore(state / f"{key}-{layout.shard_size}")
        return cls(
            lanes=(Lane.of_probe(probe, tuple(heads), store),),
            layout=layout,
            batch_size=batch_size or default_batch_size(device),
            device=device,
            fresh=fresh,
        )


@dataclass(slots=True)
class Extracted:
    """Every shard of one lane (in order, so far, while images still come), and how it went."""

    layout: ShardLayout
    shards: list[ShardResult] = field(default_factory=list)
    reused: int = 0
    warnings: list[str] = field(default_factory=list)

    def features(self, head: str) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` of one head in index order."""
        return np.concatenate([shard.features[head] for shard in self.shards])

    def labels(self) -> IndexArray | None:
        """Return the int64 ``[n]`` labels of the images, or None where they have none."""
        parts = [shard.facts.get("labels") for shard in self.shards]
        if any(part is None for part in parts):
            return None
        return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])

    def image_size(self) -> tuple[int, int] | None:
        """Return ``(height, width)`` where all images share one size."""
        sizes = {tuple(size) for shard in self.shards for size in shard.facts["sizes"]}
        return sizes.pop() if len(sizes) == 1 else None

    def blocks(self, *, contiguous: bool) -> tuple[IndexArray, ...]:
        """Return the indices of each jackknife block: of those that are whole, while images still come.

        Contiguous blocks are runs of shards, for images that are independent draws in index order; the
        others are a fixed random partition, for files, whose order often follows their classes.
        """
        if contiguous:
            return tuple(
                np.concatenate([self.layout.indices(shard) for shard in block])
                for block in self.layout.blocks()
                if block.stop <= len(self.shards)
            )
        order = stream(0, "block").permutation(self.layout.count)
        return tuple(np.sort(part) for part in np.array_split(order, len(self.layout.blocks())))

    def in_blocks(
        self, head: str, *, contiguous: bool, texts: NDArray[np.float32] | None = None
    ) -> FeatureSet:
        """Return the features of ``head`` cut into blocks, with labels where the images have them."""
        features, labels = self.features(head), self.labels()
        parts = self.blocks(contiguous=contiguous)
        return FeatureSet(
            tuple(features[part] for part in parts),
            labels=None if labels is None else tuple(labels[part] for part in parts),
            texts=None if texts is None else tuple(texts[part] for part in parts),
        )


def default_batch_size(device: torch.device) -> int:
    """Return the batch size of ``--batch-size auto``; a batch never crosses a shard."""
    return 64 if device.type == "cpu" else 512


def state_store(state: Path, source: ImageSource, extractor: Extractor, layout: ShardLayout) -> ShardStore:
    """Return where the shards of these images through this extractor lie: keyed by content, not by name."""
    images, network = source.spec.digest()[:_KEY], extractor.spec.digest()[:_KEY]
    return ShardStore(state / f"{images}-{network}-{layout.shard_size}")


def extract(
    job: Job, *, progress: Progress, stop: Callable[[], int], after_shard: AfterShard | None = None
) -> tuple[Extracted, ...]:
    """Compute every shard that is not there yet, in order, and return all of them, lane by lane.

    Args:
        job: what to extract.
        progress: called with the number of images done, batch by batch.
        stop: returns the number of a signal that arrived, or 0; asked after each batch.
        after_shard: shown what there is after each whole shard; may raise to end the pass there.

    Raises:
        Interrupted: ``stop`` said so; whole shards are kept.
        InvalidInputError: an image or a feature is not usable.
        TemporaryError: another process works on the same state, or the disk is full.
    """
    done = tuple(Extracted(job.layout) for _ in job.lanes)
    with ExitStack() as stack:
        # In one order everywhere, so that two runs that share folders cannot wait for each other.
        for store in sorted({lane.store for lane in job.lanes}, key=lambda store: store.folder):
            stack.enter_context(store.exclusive())
        stack.enter_context(bitwise_numerics() if job.bitwise else strict_numerics())
        if job.fresh:
            for lane in job.lanes:
                lane.store.clear()
        images = stack.enter_context(_images(job, job.source)) if job.source is not None else None
        pieces = _pieces(job, done)
        piece = next(pieces, None)
        while piece is not None:
            following = next(pieces, None)
            _add_shard(job, piece, done, images=images, following=following, progress=progress, stop=stop)
            if after_shard is not None:
                after_shard(done)
            piece = following
    return done


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
    for shard in range(job.layout.shards):
        piece = _Piece(shard, job.layout.indices(shard), {}, {})
        for number, lane in enumerate(job.lanes):
            result, warning = lane.store.read(shard, len(piece.index))
            done[number].warnings += [warning] if warning else []
            if result is not None and _is_whole(job, lane, result):
                piece.whole[number] = result
            else:
                # What was extracted before stays: asking for heads in turn never computes one twice.
                piece.wanted[number] = tuple(
                    dict.fromkeys([*lane.heads, *(result.features if result else ())])
                )
        yield piece


def _is_whole(job: Job, lane: Lane, result: ShardResult) -> bool:
    return set(lane.heads) <= set(result.features) and (not job.needs_labels or "labels" in result.facts)


def _add_shard(
    job: Job, piece: _Piece, done: Sequence[Extracted], *, images: ReadAhead | None, following: _Piece | None,
    progress: Progress, stop: Callable[[], int],
) -> None:  # fmt: skip
    """Add one shard to every lane: as its file has it, or computed in one pass over its images."""
    if piece.wanted:
        then = following.index[: job.batch_size] if following is not None and following.wanted else None
        computed = _compute(job, piece, images=images, then=then, progress=progress, stop=stop)
        for number, result in computed.items():
            job.lanes[number].store.write(piece.shard, result)
            piece.whole[number] = result
    else:
        progress(len(piece.index))
    for number, extracted in enumerate(done):
        extracted.shards.append(piece.whole[number])
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
