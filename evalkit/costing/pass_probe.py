"""Unit costs of a pass over images: a few batches through the same sources and networks as in a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from evalkit.errors import TemporaryError
from evalkit.jobs import Job
from evalkit.lanes import Measured, measured, synchronise
from evalkit.runtime import bitwise_numerics, strict_numerics
from evalkit.shards import ShardResult, ShardStore
from evalkit.sources.ahead import ReadAhead

FEWEST_BATCHES, MOST_BATCHES = 2, 24
Run = Callable[[int, int, int], Measured]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """What a pass costs.

    Attributes:
        images: that it has to compute; ``reused`` ones are there already.
        batch: of a run; ``probed_batch`` what was tried, smaller where a batch takes too long.
        read: seconds an image of drawing or decoding; ``extract`` of all networks.
        wall: seconds an image by the clock: reading ahead hides the lesser of the two.
        write: seconds an image of writing the shards.
        bytes_an_image: on disk.
    """

    images: int
    reused: int
    shards: int
    batch: int
    probed_batch: int
    read: float
    extract: float
    wall: float
    write: float
    bytes_an_image: int

    @property
    def seconds(self) -> float:
        """Predicted, by one worker."""
        return self.images * (self.wall + self.write)


def probe_pass(job: Job, *, budget: float) -> PassCost:
    """Try a few batches of ``job`` in about ``budget`` seconds; nothing is kept.

    Raises:
        EvalkitError: an image or a network is not usable, as in a run.
    """
    batch = min(job.batch_size, job.layout.shard_size)
    wanted = {number: lane.heads for number, lane in enumerate(job.lanes)}
    with ExitStack() as stack:
        stack.enter_context(bitwise_numerics() if job.bitwise else strict_numerics())
        source = job.source
        images = None
        if source is not None:
            finished = partial(synchronise, job.device)
            images = stack.enter_context(ReadAhead(source, pin=job.device.type == "cuda", finished=finished))

        def run(start: int, size: int, following: int) -> Measured:
            index = np.arange(start, start + size, dtype=np.int64)
            then = np.arange(start + size, start + size + following, dtype=np.int64)
            read = None if images is None else partial(images.read, index, then=then)
            return measured(job.lanes, wanted, index, read, job.device)

        size = _affordable(run, batch, budget)
        done, clock = _timed(run, size, job.layout.count, budget)
    last = done[-1]
    width = sum(rows.shape[1] for lane in last.rows.values() for rows in lane.values())
    reused = _reused(job)
    images_done = size * len(done)
    return PassCost(
        images=max(job.images - reused, 0),
        reused=reused,
        shards=len(job.layout.shards_of(job.part)),
        batch=batch,
        probed_batch=size,
        read=sum(one.read for one in done) / images_done,
        extract=sum(sum(one.extract.values()) for one in done) / images_done,
        wall=clock / images_done,
        write=_writing(job, last),
        bytes_an_image=4 * width,
    )


def _affordable(run: Run, batch: int, budget: float) -> int:
    """The largest batch of which a few fit into the budget; the first images also warm everything up."""
    run(0, 1, 0)
    size = 1
    while size < batch:
        larger = min(4 * size, batch)
        start = time.perf_counter()
        run(0, size, 0)
        if (time.perf_counter() - start) * larger / size > budget / (FEWEST_BATCHES + 2):
            return size
        size = larger
    run(0, size, 0)
    return size


def _timed(run: Run, size: int, count: int, budget: float) -> tuple[list[Measured], float]:
    """Run batches of ``size`` until the budget is spent; the first, not read ahead, is not counted."""
    starts = [number % max(count // size, 1) * size for number in range(MOST_BATCHES + 2)]
    ahead = [size if after == start + size else 0 for start, after in pairwise(starts)]
    run(starts[0], size, ahead[0])
    done: list[Measured] = []
    start = now = time.perf_counter()
    while len(done) < FEWEST_BATCHES or (now - start < budget and len(done) < MOST_BATCHES):
        number = len(done) + 1
        done.append(run(starts[number], size, ahead[number]))
        now = time.perf_counter()
    return done, now - start


def _reused(job: Job) -> int:
    """Images of the shards that every lane has on disk already."""
    if job.fresh:
        return 0
    own = set(job.layout.shards_of(job.part))
    for lane in job.lanes:
        names = (path.name.partition("-")[0] for path in lane.store.folder.glob("*.safetensors"))
        own &= {int(name) for name in names if name.isdecimal()}
    return sum(len(job.layout.indices(shard)) for shard in own)


def _writing(job: Job, last: Measured) -> float:
    """Seconds an image of writing one shard of the run's size where the run will write it."""
    count = job.layout.shard_size
    place = next(
        path for path in (job.lanes[0].store.folder, *job.lanes[0].store.folder.parents) if path.is_dir()
    )
    try:
        with tempfile.TemporaryDirectory(prefix=".evalkit-plan-", dir=place) as folder:
            start = time.perf_counter()
            for number, lane in last.rows.items():
                result = ShardResult({head: np.resize(x, (count, x.shape[1])) for head, x in lane.items()})
                ShardStore(Path(folder) / str(number)).write(0, result)
            return (time.perf_counter() - start) / count
    except (OSError, TemporaryError):
        return 0.0  # a run would say so; a plan need not write
