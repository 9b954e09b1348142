"""What it costs to have a reference at hand: loaded from a file, or made from images that are tried here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from evalkit.costing.pass_probe import probe_pass
from evalkit.errors import NothingMeasuredError
from evalkit.extracted import Extracted
from evalkit.jobs import Job
from evalkit.opening import STATE_FOLDER, Opened
from evalkit.plan import DEFAULT_HELD_OUT, Network
from evalkit.reference_resolution import IMAGES_BANK, resolve_reference
from evalkit.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCost:
    """Seconds to have it, how many of its features the metrics compare with, and its shards on disk."""

    seconds: float
    bank: int
    detail: str
    disk_bytes: int = 0


class _FromImages(Exception):  # noqa: N818 - no error: a reference that is not there yet
    """The pass that would make the reference."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


def _postponed(job: Job, _title: str) -> Extracted:
    raise _FromImages(job)


def reference_costs(opened: Opened, *, budget: float) -> dict[Network, ReferenceCost]:
    """Return the cost of the reference of each network, held-out one included.

    Raises:
        EvalkitError: as in a run, where there is no such reference.
    """
    costs = {}
    held_out = any(planned.metric.needs_held_out for planned in opened.plan.metrics)
    for network in opened.plan.networks:
        if not opened.plan.reference_heads(network):
            continue
        name = opened.plan.reference_name(opened.request.reference, model=opened.request.model)
        costs[network] = _cost(opened, network, name, budget=budget)
        other = opened.request.held_out or DEFAULT_HELD_OUT.get(name)
        if held_out and other is not None:
            more = _cost(opened, network, other, budget=budget)
            costs[network] = replace(
                costs[network],
                seconds=costs[network].seconds + more.seconds,
                disk_bytes=costs[network].disk_bytes + more.disk_bytes,
            )
    return costs


def _cost(opened: Opened, network: Network, name: str, *, budget: float) -> ReferenceCost:
    start = time.perf_counter()
    try:
        reference = _resolved(opened, network, name)
    except _FromImages as made:
        cost = probe_pass(made.job, budget=budget)
        count = made.job.layout.count
        reused = f", {cost.reused:,} of them there already" if cost.reused else ""
        return ReferenceCost(
            seconds=cost.seconds,
            bank=min(count, IMAGES_BANK),
            detail=f"{count:,} images{reused}",
            disk_bytes=count * cost.bytes_an_image,
        )
    heads = opened.plan.bank_heads(network)
    widths = opened.extractors[network].heads
    bank = max((_kept(reference, head, widths[head]) for head in heads), default=0)
    return ReferenceCost(
        seconds=time.perf_counter() - start, bank=bank, detail=f"{reference.name}, {bank:,} features kept"
    )


def _kept(reference: Reference, head: str, width: int) -> int:
    try:
        return len(reference.head(head, dimension=width).bank)
    except NothingMeasuredError:
        return 0


def _resolved(opened: Opened, network: Network, name: str) -> Reference:
    request, plan = opened.request, opened.plan
    return resolve_reference(
        name,
        extractor=opened.extractors[network],
        heads=plan.reference_heads(network),
        class_heads=plan.class_heads(network),
        bank_heads=plan.bank_heads(network),
        image_options=request.image_options,
        state=request.out / STATE_FOLDER,
        device=opened.device,
        extract_images=_postponed,
    )
