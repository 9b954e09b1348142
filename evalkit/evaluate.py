"""THE pipeline: subject -> shards of features -> scores -> record. Reads like the picture in the README."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from evalkit.console import Console
from evalkit.core import Extractor, Probe
from evalkit.extraction import (
    AfterShard,
    Extracted,
    Interrupted,
    Job,
    default_batch_size,
    extract,
    state_store,
)
from evalkit.extractors import build_extractor
from evalkit.lanes import Lane
from evalkit.measurement import Decided, Materials, Watch, measure, protocol_info
from evalkit.numerics.products import products_on
from evalkit.plan import DEFAULT_HELD_OUT, AtHand, Network, Plan, Planned, make_plan
from evalkit.probing import BuiltProbe, with_probes
from evalkit.provenance import environment
from evalkit.record import DataInfo, Inputs, RunRecord, Status, redact_command
from evalkit.reference_resolution import resolve_reference
from evalkit.references import Reference
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device
from evalkit.shards import ShardLayout
from evalkit.sources.fixed_blocks import BLOCK
from evalkit.subject_opening import open_subject, prompts_of, unblocked
from evalkit.subjects import Subject, is_labelled, number_of_classes
from evalkit.throughput import WarmUp, performance, warm_up

STATE_FOLDER = "state"


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What stays the same through a run."""

    request: ScoreRequest
    subject: Subject
    extractors: Mapping[Network, Extractor]
    device: torch.device
    console: Console
    stop: Callable[[], int]
    watch: Watch | None = None

    def extract(
        self, job: Job, title: str, *, after_shard: AfterShard | None = None
    ) -> tuple[Extracted, ...]:
        """Go through a job under a progress bar, and tell what was reused and mended."""
        with self.console.progress(title, job.layout.count) as progress:
            done = extract(job, progress=progress, stop=self.stop, after_shard=after_shard)
        for extracted in done:
            console_warnings(extracted, self.console)
        return done


def run(
    request: ScoreRequest,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    watch: Watch | None = None,
) -> RunRecord:
    """Score one subject and write its record below ``request.out``; resumes what an earlier run began.

    ``stop`` returns the number of a signal that arrived, or 0. ``watch`` may end the run early: its record is
    ``partial`` then, holds no scores, and its notes say why.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; on an interruption the record is written as ``partial``.
    """
    request.check()
    started = time.monotonic()
    if request.strict and request.batch_size is not None:
        console.note(f"--determinism strict computes batches of {BLOCK} images: --batch-size is not used")
    device = resolve_device(request.device)
    plan = make_plan(request.protocol, request=request, notify=console.note)
    subject = open_subject(request, plan, device=device, console=console)
    extractors = {network: _extractor(request, network, device) for network in plan.networks}
    job = _Run(request, subject, extractors, device, console, stop, watch)
    plan, probes = with_probes(plan, subject, request=request, device=device, notify=console.note)
    record = _started(job, plan, probes)
    path = request.out / f"{record.run_id}.json"
    record.write(path)
    try:
        with products_on(str(device)):
            record = _scored(job, plan, probes, record)
    except Decided as decided:
        record = replace(record, status="partial", notes=str(decided))
    except BaseException as error:
        status: Status = "partial" if isinstance(error, Interrupted | KeyboardInterrupt) else "error"
        replace(record, status=status, duration_seconds=time.monotonic() - started, notes=str(error)).write(
            path
        )
        raise
    record = replace(record, duration_seconds=round(time.monotonic() - started, 3))
    record.write(path)
    return record


def _scored(job: _Run, plan: Plan, probes: Mapping[Planned, BuiltProbe], record: RunRecord) -> RunRecord:
    """References, the one pass, the probes, the scores."""
    subject = job.subject
    plan, materials = _at_hand(job, plan)
    record = replace(
        record,
        data=_data(materials.references.get(plan.headline)),
        protocol=protocol_info(plan, subject, materials=materials, probes=probes),
    )
    if job.watch:
        job.watch.begin(record, subject, plan, materials)
    warm = warm_up(unblocked(subject), job.device) if subject.generator and plan.networks else None
    materials = replace(
        materials,
        lanes=_one_pass(job, plan, materials),
        probes={planned: _probe_pass(job, planned, probes[planned].probe) for planned in plan.probed},
    )
    backends, met = _what_ran(job)
    for text in met:
        job.console.note(text)
    return replace(
        record,
        status="complete",
        warnings=(*record.warnings, *met),
        protocol=protocol_info(plan, subject, materials=materials, probes=probes),
        results=measure(plan, materials, probes, notify=job.console.note),
        env={**record.env, "extractor_backend": backends},
        **_speed(job, plan, materials, warm),
    )


def _what_ran(job: _Run) -> tuple[str | None, tuple[str, ...]]:
    """Return what ran the networks (None where no shard was computed), and what there is to warn of."""
    engines = [engine for one in job.extractors.values() if (engine := getattr(one, "engine", None))]
    backends = dict.fromkeys(engine.backend for engine in engines if engine.backend)
    # What the images themselves met: pictures that a safety checker blacked out, for example.
    met: tuple[str, ...] = getattr(job.subject.generator, "warnings", ())
    return ", ".join(backends) or None, (*met, *(text for engine in engines for text in engine.warnings))


def _at_hand(job: _Run, plan: Plan) -> tuple[Plan, Materials]:
    """Return what can be measured, and everything it reads but the images of the subject."""
    subject = job.subject
    references = _references(job, plan, held_out=False)
    held_out = _references(job, plan, held_out=True)
    references |= {network: references[network].with_held_out(held) for network, held in held_out.items()}
    found = AtHand(
        images=len(subject.source),
        references=references,
        held_out=held_out,
        labelled=plan.needs_labels and is_labelled(subject),
        prompted=job.request.prompts is not None,
        classes=number_of_classes(subject),
    )
    plan = plan.feasible(found, notify=job.console.note)
    return plan, Materials(
        extractors=job.extractors,
        references=references,
        held_out=held_out,
        prompts=prompts_of(subject, request=job.request),
        class_names=subject.class_names,
        drawn=subject.generator is not None,
    )


def _one_pass(job: _Run, plan: Plan, materials: Materials) -> dict[Network, Extracted]:
    """Read every image once, through every network, under the eyes of the watch."""
    if not plan.networks:
        return {}
    source, request = job.subject.source, job.request
    layout, state = ShardLayout(len(source)), request.out / STATE_FOLDER
    lanes = tuple(
        Lane.of_extractor(extractor, plan.heads(network), state_store(state, source, extractor, layout))
        for network, extractor in job.extractors.items()
        if network in plan.networks
    )
    work = Job(
        source=source,
        lanes=lanes,
        layout=layout,
        batch_size=BLOCK if request.strict else request.batch_size or default_batch_size(job.device),
        device=job.device,
        needs_labels=plan.needs_labels,
        fresh=request.fresh,
        bitwise=request.strict,
    )
    used = [network for network in job.extractors if network in plan.networks]
    watch = job.watch

    def look(done: Sequence[Extracted]) -> None:
        if watch is not None:
            watch.look(replace(materials, lanes=dict(zip(used, done, strict=True))))

    return dict(zip(used, job.extract(work, _title(job.subject), after_shard=look), strict=True))


def _probe_pass(job: _Run, planned: Planned, probe: Probe) -> Extracted:
    request = job.request
    work = Job.of_probe(
        probe, heads=(planned.head,), count=len(job.subject.source), state=request.out / STATE_FOLDER,
        device=job.device, batch_size=BLOCK if request.strict else request.batch_size, fresh=request.fresh,
        subject=job.subject.source.spec.digest(),
    )  # fmt: skip
    work = replace(work, bitwise=request.strict)
    (extracted,) = job.extract(work, f"{planned.metric.name} of {job.subject.info.id}")
    return extracted


def console_warnings(extracted: Extracted, console: Console) -> None:
    """Tell what was reused and what was mended."""
    if extracted.reused:
        console.note(f"continued: {extracted.reused} of {extracted.layout.count} images were there already")
    for warning in extracted.warnings:
        console.note(warning)


def _extractor(request: ScoreRequest, network: Network, device: torch.device) -> Extractor:
    return build_extractor(
        network.extractor,
        weights=request.weights.get(network.extractor),
        preset=network.preset,
        device=str(device),
        precision=request.precision,
        backend=request.backend,
    )


def _references(job: _Run, plan: Plan, *, held_out: bool) -> dict[Network, Reference]:
    """Return the reference (or the held-out one) for every network that some metric compares with it."""
    request = job.request
    if held_out and not any(planned.metric.needs_held_out for planned in plan.metrics):
        return {}
    resolved = {}
    for network in plan.networks:
        heads = plan.reference_heads(network, held_out=held_out)
        if not heads:
            continue
        name: str | None = plan.reference_name(request.reference, model=request.model)
        if held_out:
            name = request.held_out or DEFAULT_HELD_OUT.get(str(name))
        if name is None:
            continue
        resolved[network] = resolve_reference(
            name,
            extractor=job.extractors[network],
            heads=heads,
            class_heads=() if held_out else plan.class_heads(network),
            bank_heads=plan.bank_heads(network),
            image_options=request.image_options,
            state=request.out / STATE_FOLDER,
            device=job.device,
            extract_images=lambda work, title: job.extract(work, title)[0],
        )
    return resolved


def _speed(job: _Run, plan: Plan, materials: Materials, warm: WarmUp | None) -> dict[str, Any]:
    """Throughput and evaluations counted, where a generator was sampled."""
    generator, sampling = job.subject.generator, job.subject.sampling
    if generator is None or warm is None:
        return {}
    dtype = job.subject.info.dtype or "float32"
    extracted = materials.lanes[plan.headline]
    speed = performance(extracted, generator=generator, warm=warm, device=job.device, dtype=dtype)
    evaluations = getattr(generator, "evaluations_per_image", None)
    return {
        "performance": (speed,),
        "sampling": replace(sampling, nfe=evaluations or None) if sampling else None,
    }


def _title(subject: Subject) -> str:
    return f"{'sampling' if subject.generator else 'reading'} {subject.info.id}"


def _data(reference: Reference | None) -> DataInfo:
    return DataInfo(
        dataset=reference.dataset if reference else "none",
        split=reference.split if reference else None,
        resolution=reference.resolution if reference else None,
        reference_sha256=reference.sha256 if reference else None,
        n_ref=reference.count if reference else 0,
    )


def _started(job: _Run, plan: Plan, probes: Mapping[Planned, BuiltProbe]) -> RunRecord:
    subject = job.subject
    nothing = Materials(extractors=job.extractors, drawn=subject.generator is not None)
    return RunRecord(
        status="started",
        model=subject.info,
        data=_data(None),
        sampling=subject.sampling,
        protocol=protocol_info(plan, subject, materials=nothing, probes=probes),
        inputs=Inputs(found=subject.found, used=len(subject.source), rejected=subject.rejected),
        env={**environment(), "determinism": "strict" if job.request.strict else "standard"},
        command=tuple(redact_command(list(job.request.command))),
    )
