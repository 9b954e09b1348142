"""THE pipeline: subject -> shards of features -> scores -> record. Reads like the picture in the README."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from evalkit import numerics
from evalkit.console import Console
from evalkit.core import Extractor, FeatureSet
from evalkit.errors import UsageError
from evalkit.extraction import Extracted, Interrupted, Job, default_batch_size, extract, state_store
from evalkit.extractors import build_extractor
from evalkit.metrics import compute_all
from evalkit.plan import Plan, make_plan
from evalkit.protocol import EvalProtocol
from evalkit.provenance import environment
from evalkit.record import (
    DataInfo,
    Inputs,
    MetricResult,
    Performance,
    ProtocolInfo,
    RunRecord,
    Status,
    redact_command,
)
from evalkit.reference_resolution import resolve_reference
from evalkit.references import Reference
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device
from evalkit.seeding import SEED_SCHEME, stream
from evalkit.shards import ShardLayout
from evalkit.subjects import Subject, open_generator, open_images
from evalkit.throughput import WarmUp, performance, warm_up

STATE_FOLDER = "state"


def run(request: ScoreRequest, *, console: Console, stop: Callable[[], int] = lambda: 0) -> RunRecord:
    """Score one subject and write its record below ``request.out``; resumes what an earlier run began.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; on an interruption the record is written as ``partial``.
    """
    request.check()
    started = time.monotonic()
    device = resolve_device(request.device)
    plan = make_plan(request.protocol, request=request, notify=console.note)
    subject = _open_subject(request, plan, device=device, console=console)
    extractor = build_extractor(
        plan.preset.extractor,
        weights=request.weights.get(plan.preset.extractor),
        preset=plan.preset.extractor_preset,
        device=str(device),
    )
    layout = ShardLayout(len(subject.source))
    record = _started(request, plan, subject, extractor=extractor)
    path = request.out / f"{record.run_id}.json"
    record.write(path)
    try:
        reference = _reference(request, plan, extractor, device=device, console=console, stop=stop)
        plan = plan.feasible(images=layout.count, reference=reference, notify=console.note)
        record = replace(record, data=_data(reference))
        job = _job(request, subject, plan, extractor=extractor, layout=layout, device=device)
        warm = warm_up(subject.source, device) if subject.generator else None
        with console.progress(_title(subject), layout.count) as progress:
            extracted = extract(job, progress=progress, stop=stop)
        console_warnings(extracted, console)
        record = _finished(
            record, plan, subject, extracted=extracted, extractor=extractor, reference=reference, warm=warm,
            device=device,
        )  # fmt: skip
    except BaseException as error:
        status: Status = "partial" if isinstance(error, Interrupted | KeyboardInterrupt) else "error"
        replace(record, status=status, duration_seconds=time.monotonic() - started, notes=str(error)).write(
            path
        )
        raise
    record = replace(record, status="complete", duration_seconds=round(time.monotonic() - started, 3))
    record.write(path)
    return record


def console_warnings(extracted: Extracted, console: Console) -> None:
    """Tell what was reused and what was mended."""
    if extracted.reused:
        console.note(f"continued: {extracted.reused} of {extracted.layout.count} images were there already")
    for warning in extracted.warnings:
        console.note(warning)


def _open_subject(request: ScoreRequest, plan: Plan, *, device: torch.device, console: Console) -> Subject:
    if request.model is not None:
        return open_generator(
            request.model,
            ckpt=request.ckpt,
            options=replace(request.sampling, device=str(device)),
            name=request.name,
            count=request.num_samples or plan.preset.num_images,
            seed=request.seed,
        )
    if request.images is None:
        raise UsageError("no subject")
    return open_images(
        request.images,
        options=request.image_options,
        name=request.name,
        count=request.num_samples,
        default_count=plan.preset.num_images,
        seed=request.seed,
        notify=console.note,
    )


def _reference(
    request: ScoreRequest, plan: Plan, extractor: Extractor, *, device: torch.device, console: Console,
    stop: Callable[[], int],
) -> Reference | None:  # fmt: skip
    if not plan.needs_reference:
        return None

    def extract_images(job: Job, title: str) -> Extracted:
        with console.progress(title, job.layout.count) as progress:
            return extract(job, progress=progress, stop=stop)

    return resolve_reference(
        plan.reference_name(request.reference, model=request.model),
        extractor=extractor,
        heads=plan.reference_heads,
        image_options=request.image_options,
        state=request.out / STATE_FOLDER,
        device=device,
        extract_images=extract_images,
    )


def _job(
    request: ScoreRequest, subject: Subject, plan: Plan, *, extractor: Extractor, layout: ShardLayout,
    device: torch.device,
) -> Job:  # fmt: skip
    store = state_store(request.out / STATE_FOLDER, subject.source, extractor, layout)
    return Job(
        source=subject.source,
        extractor=extractor,
        heads=plan.heads,
        layout=layout,
        store=store,
        batch_size=request.batch_size or default_batch_size(device),
        device=device,
        fresh=request.fresh,
    )


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


def _started(request: ScoreRequest, plan: Plan, subject: Subject, *, extractor: Extractor) -> RunRecord:
    protocol = _protocol(plan, subject, extractor=extractor, reference=None, image_size=None)
    return RunRecord(
        status="started",
        model=subject.info,
        data=_data(None),
        sampling=subject.sampling,
        protocol=protocol,
        inputs=Inputs(found=subject.found, used=len(subject.source), rejected=subject.rejected),
        env=environment(),
        command=tuple(redact_command(list(request.command))),
    )


def _blocks(extracted: Extracted, head: str, *, role: str, drawn: bool) -> FeatureSet:
    """Independent draws are cut as they come; files at random, but logits keep their order for the splits."""
    keep_order = drawn or role == "logits"
    return extracted.in_contiguous_blocks(head) if keep_order else extracted.in_shuffled_blocks(head)


def _protocol(
    plan: Plan,
    subject: Subject,
    *,
    extractor: Extractor,
    reference: Reference | None,
    image_size: tuple[int, int] | None,
) -> ProtocolInfo:
    protocol = EvalProtocol(
        name=plan.preset.name,
        extractor=extractor.spec,
        metrics=tuple((metric.spec, head) for metric, head in plan.metrics),
        num_images=len(subject.source),
        image_size=image_size,
        reference_sha256=reference.sha256 if reference else None,
        reference_count=reference.count if reference else 0,
        numerics_version=numerics.NUMERICS_VERSION,
        seed_scheme=SEED_SCHEME,
        rejected_images=len(subject.rejected),
    )
    return ProtocolInfo(name=protocol.name, fields=protocol.fields(), fingerprint=protocol.fingerprint())


def _finished(
    record: RunRecord, plan: Plan, subject: Subject, *, extracted: Extracted, extractor: Extractor,
    reference: Reference | None, warm: WarmUp | None, device: torch.device,
) -> RunRecord:  # fmt: skip
    features = {
        (head, role): _blocks(extracted, head, role=role, drawn=subject.generator is not None)
        for head, role in {(head, metric.head) for metric, head in plan.metrics}
    }
    scores = compute_all(
        [
            (
                metric,
                features[head, metric.head],
                reference.head(head, dimension=extractor.heads[head])
                if reference and metric.needs_reference
                else None,
            )
            for metric, head in plan.metrics
        ],
        rng=lambda: np.random.Generator(np.random.Philox(stream(0, "metric").integers(2**63))),
    )  # fmt: skip
    results = tuple(
        MetricResult.from_score(score, metric=plan.label(metric, head, extractor), variant=head)
        for (metric, head), score in zip(plan.metrics, scores, strict=True)
    )
    measured: tuple[Performance, ...] = ()
    sampling = subject.sampling
    if subject.generator and warm:
        dtype = subject.info.dtype or "float32"
        speed = performance(extracted, generator=subject.generator, warm=warm, device=device, dtype=dtype)
        measured = (speed,)
        evaluations = getattr(subject.generator, "evaluations_per_image", None)
        sampling = replace(sampling, nfe=evaluations or None) if sampling else None
    return replace(
        record,
        protocol=_protocol(
            plan, subject, extractor=extractor, reference=reference, image_size=extracted.image_size()
        ),
        results=results,
        performance=measured,
        sampling=sampling,
    )
