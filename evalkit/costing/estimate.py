"""From a request to what it will cost: everything is opened as in a run, and tried on a few images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from evalkit.console import Console
from evalkit.core import Metric
from evalkit.costing.laws import LAWS, Size
from evalkit.costing.numerics_probe import GroupCost, group_costs
from evalkit.costing.pass_probe import PassCost, probe_pass
from evalkit.costing.reference_probe import ReferenceCost, reference_costs
from evalkit.numerics.products import apart, products_on
from evalkit.opening import Opened, first_sample, open_run, pass_jobs
from evalkit.plan import Network, Plan
from evalkit.request import ScoreRequest
from evalkit.shards import ShardLayout
from evalkit.throughput import peak_memory

DEFAULT_BUDGET = 6.0
"""Seconds that the images are tried for."""
_FLOAT32 = 4
_ROW_COPIES = 2  # of what a probe makes: all of its rows, and the columns that are read
_RECORD_BYTES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Seconds of one step; ``shared`` says that workers divide them among each other."""

    step: str
    seconds: float
    shared: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will cost.

    Attributes:
        images: to judge, of which ``reused`` are there already; ``shards`` of ``shard_size`` images.
        lines: step by step, by one worker.
        seconds: of the whole command with ``workers`` workers; ``worker_seconds`` all of them together.
        memory_bytes: expected peak of the process that scores; ``disk_bytes`` of the shards.
        notes: what the figures leave out.
    """

    schema: Literal["evalkit.plan/1"] = "evalkit.plan/1"
    subject: str
    protocol: str
    device: str
    images: int
    reused: int
    shards: int
    shard_size: int
    batch: int
    workers: int
    lines: tuple[Line, ...]
    seconds: float
    worker_seconds: float
    memory_bytes: int
    disk_bytes: int
    notes: tuple[str, ...]


def estimate_run(
    request: ScoreRequest,
    *,
    console: Console,
    workers: int = 1,
    budget: float = DEFAULT_BUDGET,
    age: Callable[[], float] = lambda: 0.0,
) -> Estimate:
    """Return what ``request`` will cost, having tried it for a few times ``budget`` seconds.

    Args:
        request: as for a run; nothing is written but one shard that is removed again.
        console: told what a run would be told while it opens.
        workers: processes that divide the images, each with a machine or device like this one.
        budget: seconds to try each pass over images for.
        age: seconds since the process began, for what the start of a program costs.

    Raises:
        EvalkitError: what a run would raise before its first shard.
    """
    began = age()
    start = time.perf_counter()
    opened = open_run(request, console=console)
    lines = [Line(step="start", seconds=began, detail="interpreter and libraries")]
    lines.append(Line(step="open", seconds=time.perf_counter() - start, detail="model and networks"))
    references = reference_costs(opened, budget=budget)
    lines += [Line(step="reference", seconds=one.seconds, detail=one.detail) for one in references.values()]
    lines += _warm_up(opened)
    passes = [probe_pass(job, budget=budget) for job in pass_jobs(opened, opened.plan)]
    lines += [
        line for cost in passes for line in _pass_lines(cost, drawn=opened.subject.generator is not None)
    ]
    base = peak_memory(opened.device)
    with products_on(str(opened.device)):
        groups = list(_numerics(opened, references))
    lines += [_group_line(group) for group in groups]
    kept = sum(one.disk_bytes for one in references.values())
    return _summed(opened, lines, passes, groups, workers=workers, base=base, kept=kept)


def _warm_up(opened: Opened) -> list[Line]:
    start = time.perf_counter()
    if first_sample(opened, opened.plan) is None:
        return []
    return [Line(step="warm-up", seconds=time.perf_counter() - start, detail="one image, and its operations")]


def _pass_lines(cost: PassCost, *, drawn: bool) -> Iterator[Line]:
    """Where the time of a pass goes; what reading ahead hides is taken off the reading."""
    smaller = f", tried at {cost.probed_batch}" if cost.probed_batch < cost.batch else ""
    batch = f"in batches of {cost.batch}{smaller}"
    reading = max(cost.wall - cost.extract, 0.0)
    rate = f"{1 / reading:,.1f} images/s" if reading > 0 else "hidden by the networks"
    step = "sampling" if drawn else "reading"
    yield Line(step=step, seconds=cost.images * reading, shared=True, detail=f"{rate} {batch}")
    networks = cost.wall - reading
    rate = f"{1 / networks:,.1f} images/s" if networks > 0 else ""
    yield Line(step="networks", seconds=cost.images * networks, shared=True, detail=rate)
    yield Line(
        step="writing",
        seconds=cost.images * cost.write,
        shared=True,
        detail=f"{cost.shards} shards, {cost.bytes_an_image:,} bytes an image",
    )


def _numerics(opened: Opened, references: dict[Network, ReferenceCost]) -> Iterator[GroupCost]:
    count = len(opened.subject.source)
    blocks = len(ShardLayout(count).blocks())
    cores = torch.get_num_threads() if apart() else 1
    for (network, head), metrics in _by_head(opened.plan).items():
        found = references.get(network)
        size = Size(
            n=count,
            m=found.bank if found else 0,
            d=opened.extractors[network].heads[head],
            blocks=blocks,
            cores=cores,
        )
        yield from group_costs(metrics, size)


def _by_head(plan: Plan) -> dict[tuple[Network, str], list[Metric]]:
    together: dict[tuple[Network, str], list[Metric]] = {}
    for planned in plan.metrics:
        if planned.network is not None and planned.metric.name in LAWS:
            together.setdefault((planned.network, planned.head), []).append(planned.metric)
    return together


def _group_line(group: GroupCost) -> Line:
    size = group.size
    what = f"n = {size.n:,}, m = {size.m:,}, d = {size.d:,}" if size.m else f"n = {size.n:,}, d = {size.d:,}"
    rate = f"; {group.rate / 1e9:,.2f} G multiply-adds/s" if group.rate else "; not tried"
    return Line(step=group.group, seconds=group.seconds or 0.0, detail=what + rate)


def _summed(
    opened: Opened,
    lines: Sequence[Line],
    passes: Sequence[PassCost],
    groups: Sequence[GroupCost],
    *,
    workers: int,
    base: int,
    kept: int,
) -> Estimate:
    count = len(opened.subject.source)
    layout = ShardLayout(count)
    busy = min(workers, layout.shards)
    # The slowest worker has the most shards; whole shards are what is dealt.
    share = -(-layout.shards // busy) / layout.shards
    own = sum(line.seconds for line in lines if not line.shared)
    shared = sum(line.seconds for line in lines if line.shared)
    opening = sum(line.seconds for line in lines if line.step in {"start", "open", "reference", "warm-up"})
    an_image = sum(cost.bytes_an_image for cost in passes)
    return Estimate(
        subject=opened.subject.info.id,
        protocol=opened.plan.preset.name,
        device=str(opened.device),
        images=count,
        reused=min((cost.reused for cost in passes), default=0),
        shards=layout.shards,
        shard_size=layout.shard_size,
        batch=passes[0].batch if passes else 0,
        workers=workers,
        lines=tuple(replace(line, seconds=round(line.seconds, 3)) for line in lines),
        seconds=round(own + shared * share, 1),
        worker_seconds=round(own + shared + (busy - 1) * opening, 1),
        memory_bytes=base + _held(opened, passes) + max((group.memory_bytes for group in groups), default=0),
        disk_bytes=count * an_image + kept + _RECORD_BYTES,
        notes=tuple(_notes(opened, groups, workers=workers, shards=layout.shards)),
    )


def _held(opened: Opened, passes: Sequence[PassCost]) -> int:
    """Bytes of what is in memory all at once: of a head one copy, however many metrics read it."""
    probes = passes[len(passes) - len(opened.plan.probed) :]
    an_image = _ROW_COPIES * sum(cost.bytes_an_image for cost in probes) + sum(
        _FLOAT32 * opened.extractors[network].heads[head]
        for (network, head), metrics in _by_head(opened.plan).items()
        if any(LAWS[metric.name].holds for metric in metrics)
    )
    return len(opened.subject.source) * an_image


def _notes(opened: Opened, groups: Sequence[GroupCost], *, workers: int, shards: int) -> Iterator[str]:
    for group in groups:
        if group.seconds is None:
            yield f"not estimated: the numerics of {', '.join(group.metrics)}"
    if workers > shards:
        yield f"{workers} workers for {shards} shards: {workers - shards} of them have nothing to do"
    if workers > 1:
        yield "each worker is supposed to have a machine or a device like this one to itself"
    if opened.device.type == "cuda":
        yield "the memory is that of the device while it was tried, and of the host for the rest"
