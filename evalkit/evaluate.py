"""THE pipeline: subject -> shards of features -> scores -> record. Reads like the picture in the README."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from evalkit.console import Console
from evalkit.errors import BusyError, TemporaryError
from evalkit.events import PhaseBegan
from evalkit.extraction import Extracted, Interrupted
from evalkit.following import following
from evalkit.leftovers import clear_leftovers
from evalkit.measurement import Decided, Materials, Watch, measure, protocol_info
from evalkit.numerics.products import products_on
from evalkit.observation import Observed
from evalkit.opening import Fill, Opened, at_hand, first_sample, observed_in, one_pass, open_run, probe_passes
from evalkit.plan import Network, Plan, Planned
from evalkit.progress import FOLDER as PROGRESS_FOLDER
from evalkit.provenance import environment
from evalkit.record import DataInfo, Inputs, RunRecord, Status, redact_command
from evalkit.redaction import redact_text
from evalkit.references import Reference
from evalkit.request import ScoreRequest
from evalkit.runtime import bitwise_numerics
from evalkit.telling import finished, identified
from evalkit.throughput import performance


def run(
    request: ScoreRequest,
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
    watch: Watch | None = None,
    fill: Fill | None = None,
) -> RunRecord:
    """Score one subject and write its record below ``request.out``; resumes what an earlier run began.

    ``stop`` returns the number of a signal that arrived, or 0. ``watch`` may end the run early: its record is
    ``partial`` then, holds no scores, and its notes say why. ``fill`` has its shards computed elsewhere.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`; on an interruption the record is written as ``partial``.
    """
    started = time.monotonic()
    with following(request, console) as follower:
        opened = open_run(request, console=follower, stop=stop, watch=watch)
        return score(replace(opened, fill=fill), started=started)


def score(opened: Opened, *, started: float) -> RunRecord:
    """Score what is open; ``started`` is the monotonic clock's time when the run began.

    Raises:
        EvalkitError: as :func:`run`.
    """
    with following(opened.request, opened.console) as follower:
        return _followed(replace(opened, console=follower), follower.run, started=started)


def _followed(opened: Opened, run_id: str, *, started: float) -> RunRecord:
    """Score what is open under the id that its progress has."""
    record = begun = _started(opened, run_id)
    path = opened.request.out / f"{record.run_id}.json"
    record.write(path)
    opened.console.tell(identified(record, path))
    try:
        with products_on(str(opened.device), bitwise=opened.request.strict):
            record = _scored(opened, record)
    except Decided as decided:
        record = replace(record, status="partial", notes=str(decided))
    except BusyError:
        path.unlink(missing_ok=True)  # the record is that of the run at work
        raise
    except BaseException as error:
        status: Status = "partial" if isinstance(error, Interrupted | KeyboardInterrupt) else "error"
        replace(
            record, status=status, duration_seconds=time.monotonic() - started, notes=redact_text(str(error))
        ).write(path)
        raise
    record = replace(record, duration_seconds=round(time.monotonic() - started, 3))
    record.write(path)
    clear_leftovers(opened.request.out, begun, folders=(PROGRESS_FOLDER,))
    opened.console.tell(finished(record, path))
    return record


def _scored(opened: Opened, record: RunRecord) -> RunRecord:
    """References, the one pass, the probes, the scores."""
    subject, watch, notify = opened.subject, opened.watch, opened.console.note
    plan, materials = at_hand(opened)
    record = replace(
        record,
        data=_data(materials.references.get(plan.headline)),
        protocol=protocol_info(plan, subject, materials=materials, probes=opened.probes),
    )
    if watch:
        watch.begin(record, subject, plan, materials)
    if opened.fill:
        opened = opened.fill(opened, plan)

    def look(lanes: Mapping[Network, Extracted]) -> None:
        if watch:
            watch.look(replace(materials, lanes=lanes))

    warm = first_sample(opened, plan)
    lanes = one_pass(opened, plan, after_shard=look)
    measured = replace(materials, lanes=lanes, probes=_probed(opened, plan, begun=bool(lanes)))
    observed = observed_in(opened, warm)
    for text in observed.warnings:
        notify(text)
    opened.console.tell(PhaseBegan(phase="scoring"))
    with bitwise_numerics() if opened.request.strict else nullcontext():
        results = measure(plan, measured, opened.probes, notify=notify)
    return replace(
        record,
        status="complete",
        warnings=(*record.warnings, *observed.warnings),
        protocol=protocol_info(plan, subject, materials=measured, probes=opened.probes),
        results=results,
        env={**record.env, "extractor_backend": ", ".join(observed.backends) or None},
        **_speed(opened, plan, measured, observed),
    )


def _probed(opened: Opened, plan: Plan, *, begun: bool) -> dict[Planned, Extracted]:
    """Make the probes' rows; a folder that somebody else has is no refused start where images are done."""
    try:
        return probe_passes(opened, plan)
    except BusyError as error:
        if not begun:
            raise
        raise TemporaryError(error.message, hint=error.hint) from error


def _speed(opened: Opened, plan: Plan, materials: Materials, observed: Observed) -> dict[str, Any]:
    """Throughput and evaluations counted, where a generator was sampled."""
    generator, sampling = opened.subject.generator, opened.subject.sampling
    if generator is None or observed.warm_up is None:
        return {}
    speed = performance(
        materials.lanes[plan.headline],
        generator=generator,
        warm=observed.warm_up,
        device=opened.device,
        dtype=opened.subject.info.dtype or "float32",
    )
    return {
        "performance": (replace(speed, peak_memory_bytes=observed.peak_memory_bytes),),
        "sampling": replace(sampling, nfe=observed.nfe) if sampling else None,
    }


def _data(reference: Reference | None) -> DataInfo:
    return DataInfo(
        dataset=reference.dataset if reference else "none",
        split=reference.split if reference else None,
        resolution=reference.resolution if reference else None,
        reference_sha256=reference.sha256 if reference else None,
        n_ref=reference.count if reference else 0,
    )


def _started(opened: Opened, run_id: str) -> RunRecord:
    subject, request = opened.subject, opened.request
    nothing = Materials(extractors=opened.extractors, drawn=subject.generator is not None)
    return RunRecord(
        run_id=run_id,
        status="started",
        model=subject.info,
        data=_data(None),
        sampling=subject.sampling,
        protocol=protocol_info(opened.plan, subject, materials=nothing, probes=opened.probes),
        inputs=Inputs(found=subject.found, used=len(subject.source), rejected=subject.rejected),
        env={**(opened.env or environment()), "determinism": "strict" if request.strict else "standard"},
        command=tuple(redact_command(list(request.command))),
    )
