"""Speed of models in both scenarios, and quality against network evaluations and against seconds.

A measurement is an ordinary record: :func:`measure_speed` writes speeds and no scores; a point of a curve has
both, since it is an ordinary run of ``evalkit score`` at another number of sampler steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from evalkit.console import Console
from evalkit.errors import UsageError
from evalkit.evaluate import run
from evalkit.extraction import interruption
from evalkit.generators import GENERATOR_FACTS
from evalkit.provenance import environment
from evalkit.record import DataInfo, Inputs, Performance, ProtocolInfo, RunRecord, redact_command
from evalkit.request import ScoreRequest
from evalkit.runtime import resolve_device, strict_numerics
from evalkit.sources.generated import GeneratedSource
from evalkit.spec import sha256_of
from evalkit.speed_trials import TrialRules, offline, single_stream
from evalkit.subjects import Subject, open_generator
from evalkit.throughput import warm_up

Scenarios = Literal["both", "offline", "single-stream"]
_FINGERPRINT_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRequest:
    """What ``evalkit bench`` was asked for: how to sample is the same as for a score.

    Without ``batch_sizes`` the batch doubles as long as that pays.
    """

    score: ScoreRequest
    scenarios: Scenarios = "both"
    batch_sizes: tuple[int, ...] = ()
    rules: TrialRules = field(default_factory=TrialRules)

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: no model, or a batch size or a duration out of range.
        """
        self.score.check()
        if self.score.model is None:
            raise UsageError("bench needs a --model or a name: images that are there already have no speed")
        if any(size < 1 for size in self.batch_sizes):
            raise UsageError("--batch-sizes must be at least 1")
        if self.rules.min_seconds <= 0:
            raise UsageError(f"--min-seconds must be positive, not {self.rules.min_seconds}")


def measure_speed(request: SpeedRequest, *, console: Console) -> RunRecord:
    """Measure one model, write its record below ``request.score.out`` and return it.

    Raises:
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request.check()
    asked = request.score
    device = resolve_device(asked.device)
    subject = open_generator(
        asked.model or "",
        ckpt=asked.ckpt,
        options=replace(asked.sampling, device=str(device)),
        name=asked.name,
        count=1,
        seed=asked.seed,
    )
    if subject.generator is None:
        raise UsageError("bench needs a generator")
    dtype = subject.info.dtype or "float32"
    measured: list[Performance] = []
    with strict_numerics(), console.progress(f"timing {subject.info.id}", 2) as progress:
        warm = warm_up(GeneratedSource(subject.generator, 1), device)
        if request.scenarios != "single-stream":
            measured += offline(
                subject.generator,
                batch_sizes=request.batch_sizes,
                rules=request.rules,
                warm=warm,
                device=device,
                dtype=dtype,
            )
        progress(1)
        if request.scenarios != "offline":
            measured.append(
                single_stream(subject.generator, rules=request.rules, warm=warm, device=device, dtype=dtype)
            )
        progress(1)
    record = _record(request, subject, measured)
    record.write(asked.out / f"{record.run_id}.json")
    return record


def _record(request: SpeedRequest, subject: Subject, measured: list[Performance]) -> RunRecord:
    """Return a record with speeds and no scores; two compare where trials and image size are alike."""
    resolution = subject.generator.resolution if subject.generator else 0
    fields = {"trial": request.rules.to_json(), "resolution": resolution}
    return RunRecord(
        status="complete",
        model=subject.info,
        data=DataInfo(dataset="none"),
        sampling=replace(subject.sampling, nfe=measured[0].nfe) if subject.sampling else None,
        protocol=ProtocolInfo(
            name="speed", fields=fields, fingerprint=sha256_of(fields)[:_FINGERPRINT_LENGTH]
        ),
        performance=tuple(measured),
        inputs=Inputs(found=0, used=0),
        env=environment(),
        command=tuple(redact_command(list(request.score.command))),
    )


def curve(
    request: ScoreRequest,
    steps: tuple[int, ...],
    *,
    console: Console,
    stop: Callable[[], int] = lambda: 0,
) -> Iterator[RunRecord]:
    """Score one model at each number of sampler steps, in order.

    Raises:
        UsageError: the model's sampler takes no number of steps.
        EvalkitError: see :mod:`evalkit.errors`.
    """
    facts = GENERATOR_FACTS.get(request.model or "")
    if facts is None or all(sampler.default_steps is None for sampler in facts.samplers):
        raise UsageError(
            f"model {request.model!r} takes no number of steps: its curve is one point",
            hint="--curve goes with diffusion models",
        )
    for count in steps:
        name = f"{request.name or request.model}-{count}"
        sampling = replace(request.sampling, steps=count)
        yield run(replace(request, sampling=sampling, name=name), console=console, stop=stop)
        if number := stop():
            raise interruption(number)
