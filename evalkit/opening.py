"""What a run stands on before its first image: subject, networks, probes, references; and its passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from evalkit.console import Console
from evalkit.core import Extractor
from evalkit.events import PhaseBegan
from evalkit.extraction import AfterShard, Extracted, Job, default_batch_size, extract, patience, state_store
from evalkit.extractors import build_extractor
from evalkit.lanes import Lane
from evalkit.measurement import Materials, Watch
from evalkit.mirror import WHOLE
from evalkit.observation import Observed, observe
from evalkit.plan import DEFAULT_HELD_OUT, AtHand, Network, Plan, Planned, make_plan
from evalkit.probing import BuiltProbe, with_probes
from evalkit.progress import Phase
from evalkit.reference_resolution import resolve_reference
from evalkit.references import Reference
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device
from evalkit.shards import Part, ShardLayout
from evalkit.sources.fixed_blocks import BLOCK
from evalkit.spec import Scalar
from evalkit.subject_opening import open_subject, prompts_of, unblocked
from evalkit.subjects import Subject, is_labelled, number_of_classes
from evalkit.telling import telling
from evalkit.throughput import WarmUp, warm_up

STATE_FOLDER = "state"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opened:
    """What stays the same through a run.

    Attributes:
        plan: before it is known what the references can serve; :func:`at_hand` tells.
        labelled: whether every image has a class; False where no metric asks.
        prompts: one for each image.
        part: the shards to compute; all where None.
        observed: by those who computed the shards, where that is over: nothing is computed now.
        env: of those; of this process where None.
        extracted: called with each pass that was made, references included.
        fill: called once what is to be measured is known, before its first image: an executor has shards
            computed elsewhere there, and returns what stands now.
    """

    request: ScoreRequest
    plan: Plan
    subject: Subject
    extractors: Mapping[Network, Extractor]
    probes: Mapping[Planned, BuiltProbe]
    device: torch.device
    console: Console
    stop: Callable[[], int]
    labelled: bool = False
    prompts: tuple[str, ...] | None = None
    watch: Watch | None = None
    observed: Observed | None = None
    env: Mapping[str, Scalar] | None = None
    part: Part | None = None
    extracted: Callable[[Job, tuple[Extracted, ...]], None] = lambda _job, _done: None
    fill: Fill | None = None

    def extract(
        self, job: Job, title: str, *, after_shard: AfterShard | None = None
    ) -> tuple[Extracted, ...]:
        """Go through a job under a progress bar, and tell what was reused and mended."""
        job = replace(job, only_stored=self.observed is not None)
        images = job.images
        folders = [lane.store.folder for lane in job.lanes]
        part = WHOLE if job.part is None else job.part.key
        waiting = patience(self.stop) if job.patient else None
        fresh = job.fresh and not all(lane.store.is_cleared(job.part, job.launch) for lane in job.lanes)
        with (
            self.request.mirror.holding(folders, part=part, fresh=fresh, waiting=waiting) as pushed,
            self.console.progress(title, images) as progress,
        ):

            def send(done: Sequence[Extracted]) -> None:
                pushed()
                if after_shard is not None:
                    after_shard(done)

            look = telling(job, self.console, then=send)
            done = extract(job, progress=progress, stop=self.stop, after_shard=look)
        for lane in done:
            if lane.reused:
                self.console.note(f"continued: {lane.reused} of {images} images were there already")
            for warning in lane.warnings:
                self.console.note(warning)
        self.extracted(job, done)
        return done


Fill = Callable[[Opened, Plan], Opened]


def open_run(
    request: ScoreRequest,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    watch: Watch | None = None,
) -> Opened:
    """Open what ``request`` asks for; nothing is sampled yet.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request.check()
    if request.strict and request.batch_size is not None:
        console.note(f"--determinism strict computes batches of {BLOCK} images: --batch-size is not used")
    device = resolve_device(request.device)
    plan = make_plan(request.protocol, request=request, notify=console.note)
    subject = open_subject(request, plan, device=device, console=console)
    extractors = {network: _extractor(request, network, device) for network in plan.networks}
    plan, probes = with_probes(plan, subject, request=request, device=device, notify=console.note)
    return Opened(
        request=request,
        plan=plan,
        subject=subject,
        extractors=extractors,
        probes=probes,
        device=device,
        console=console,
        stop=stop,
        labelled=plan.needs_labels and is_labelled(subject),
        prompts=prompts_of(subject, request=request),
        watch=watch,
    )


def at_hand(opened: Opened) -> tuple[Plan, Materials]:
    """Return what can be measured, and everything it reads but the images of the subject."""
    subject, plan = opened.subject, opened.plan
    opened.console.tell(PhaseBegan(phase="reference"))
    references = _references(opened, held_out=False)
    held_out = _references(opened, held_out=True)
    references |= {network: references[network].with_held_out(held) for network, held in held_out.items()}
    found = AtHand(
        images=len(subject.source),
        references=references,
        held_out=held_out,
        labelled=opened.labelled,
        prompted=opened.prompts is not None,
        classes=number_of_classes(subject),
    )
    plan = plan.feasible(found, notify=opened.console.note)
    return plan, Materials(
        extractors=opened.extractors,
        references=references,
        held_out=held_out,
        prompts=opened.prompts,
        class_names=subject.class_names,
        drawn=subject.generator is not None,
    )


def one_pass(
    opened: Opened, plan: Plan, *, after_shard: Callable[[Mapping[Network, Extracted]], None] | None = None
) -> dict[Network, Extracted]:
    """Read every image once, through every network of ``plan``; ``after_shard`` sees what there is so far."""
    job = _images_job(opened, plan)
    if job is None:
        return {}
    used = _used(opened, plan)
    phase: Phase = "sampling" if opened.subject.generator else "reading"
    opened.console.tell(PhaseBegan(phase=phase))
    title = f"{phase} {opened.subject.info.id}"
    look: AfterShard | None = after_shard and (lambda done: after_shard(dict(zip(used, done, strict=True))))
    return dict(zip(used, opened.extract(job, title, after_shard=look), strict=True))


def probe_passes(opened: Opened, plan: Plan) -> dict[Planned, Extracted]:
    """Make the rows of every probed metric of ``plan``."""
    if plan.probed:
        opened.console.tell(PhaseBegan(phase="probing"))
    return {planned: _probe_pass(opened, planned) for planned in plan.probed}


def _probe_pass(opened: Opened, planned: Planned) -> Extracted:
    job = _probe_job(opened, planned)
    (extracted,) = opened.extract(job, f"{planned.metric.name} of {opened.subject.info.id}")
    return extracted


def pass_jobs(opened: Opened, plan: Plan) -> tuple[Job, ...]:
    """Return what :func:`one_pass` and then :func:`probe_passes` go through: all of the same indices."""
    images = _images_job(opened, plan)
    probes = tuple(_probe_job(opened, planned) for planned in plan.probed)
    return probes if images is None else (images, *probes)


def _used(opened: Opened, plan: Plan) -> list[Network]:
    return [network for network in opened.extractors if network in plan.networks]


def _images_job(opened: Opened, plan: Plan) -> Job | None:
    used = _used(opened, plan)
    if not used:
        return None
    source, request = opened.subject.source, opened.request
    layout, state = ShardLayout(len(source)), request.out / STATE_FOLDER
    lanes = []
    for network in used:
        extractor = opened.extractors[network]
        store = state_store(state, source, extractor, layout)
        lanes.append(Lane.of_extractor(extractor, plan.heads(network), store))
    job = Job(
        source=source,
        lanes=tuple(lanes),
        layout=layout,
        batch_size=request.batch_size or default_batch_size(opened.device),
        device=opened.device,
        needs_labels=plan.needs_labels,
        fresh=request.fresh,
        launch=request.launch,
        part=opened.part,
    )
    return job.strictly() if request.strict else job


def _probe_job(opened: Opened, planned: Planned) -> Job:
    request, subject = opened.request, opened.subject
    job = Job.of_probe(
        opened.probes[planned].probe, heads=(planned.head,), count=len(subject.source),
        state=request.out / STATE_FOLDER, device=opened.device,
        batch_size=request.batch_size, fresh=request.fresh,
        subject=subject.source.spec.digest(),
    )  # fmt: skip
    job = replace(job, launch=request.launch, part=opened.part)
    return job.strictly() if request.strict else job


def first_sample(opened: Opened, plan: Plan) -> WarmUp | None:
    """Sample one image outside the measurement, where there is one."""
    if opened.observed is not None:
        return opened.observed.warm_up
    drawn = opened.subject.generator is not None and plan.networks
    return warm_up(unblocked(opened.subject), opened.device) if drawn else None


def observed_in(opened: Opened, warm: WarmUp | None) -> Observed:
    """Return what there was to see in this process, or in those that computed the shards."""
    if opened.observed is not None:
        return opened.observed
    return observe(opened.subject.generator, opened.extractors.values(), device=opened.device, warm=warm)


def _extractor(request: ScoreRequest, network: Network, device: torch.device) -> Extractor:
    return build_extractor(
        network.extractor,
        weights=request.weights.get(network.extractor),
        preset=network.preset,
        device=str(device),
        precision=request.precision,
        backend=request.backend,
    )


def _references(opened: Opened, *, held_out: bool) -> dict[Network, Reference]:
    """Return the reference (or the held-out one) for every network that some metric compares with it."""
    request, plan = opened.request, opened.plan
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
            extractor=opened.extractors[network],
            heads=heads,
            class_heads=() if held_out else plan.class_heads(network),
            bank_heads=plan.bank_heads(network),
            image_options=request.image_options,
            state=request.out / STATE_FOLDER,
            device=opened.device,
            extract_images=lambda job, title: opened.extract(
                job.strictly() if request.strict else job, title
            )[0],
            waiting=patience(opened.stop),
        )
    return resolved
