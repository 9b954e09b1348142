"""What trackers get of a record: flat parameters, metrics under names that all of them take, and tags.

``kd:efficientnet-lite0`` becomes ``kd_efficientnet-lite0/value``, ``…/se``, ``…/ci_low``, ``…/ci_high`` and
``…/bias_corrected``; a speed ``speed_offline/throughput``, in the units of the record. A name never has
another one as its folder, which trackers that store files or nested tables could not hold. No torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from evalkit.record import MetricResult, Performance, RunRecord
from evalkit.reporting.variants import shown_variants
from evalkit.spec import Scalar

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_NOT_MEASURED = frozenset({"scenario", "batch_size", "images", "device", "dtype", "parameters"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record, flat.

    Attributes:
        name: the model's id, for people.
        params: what was judged and how; values that are not known are left out.
        metrics: finite numbers by name.
        tags: where it came from.
    """

    run_id: str
    name: str
    created_utc: str
    params: Mapping[str, str | int | float | bool]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def entry_of(record: RunRecord) -> Entry:
    """Return what trackers get of ``record``."""
    return Entry(
        run_id=record.run_id,
        name=record.model.id,
        created_utc=record.created_utc,
        params={name: value for name, value in _params(record) if value is not None},
        metrics=dict(_metrics(record)),
        tags={name: str(value) for name, value in _tags(record) if value is not None},
    )


def safe_name(text: str) -> str:
    """Return ``text`` with what file names, URLs and trackers do not all take as ``_``."""
    return _UNSAFE.sub("_", text)


def _params(record: RunRecord) -> Iterator[tuple[str, Scalar]]:
    model, data, sampling = record.model, record.data, record.sampling
    yield from (
        ("model", model.id),
        ("family", model.family),
        ("model_sha256", model.sha256),
        ("model_revision", model.revision),
        ("parameters", model.n_params),
        ("dtype", model.dtype),
        ("dataset", data.dataset),
        ("split", data.split),
        ("resolution", data.resolution),
        ("reference_sha256", data.reference_sha256),
        ("n_ref", data.n_ref),
        ("n_gen", record.inputs.used),
        ("protocol", record.protocol.name),
        ("fingerprint", record.protocol.fingerprint),
    )
    if sampling is not None:
        yield from (
            ("sampler", sampling.sampler),
            ("steps", sampling.steps),
            ("nfe", sampling.nfe),
            ("guidance", sampling.guidance),
            ("truncation", sampling.truncation),
            ("seed", sampling.seeds.base),
        )
    if record.performance:
        yield "device", record.performance[0].device
        yield "batch_size", record.performance[0].batch_size


def _tags(record: RunRecord) -> Iterator[tuple[str, Scalar]]:
    yield "run_id", record.run_id
    yield "status", record.status
    yield "created_utc", record.created_utc
    yield "commit", record.env.get("commit")
    yield "evalkit", record.env.get("evalkit")
    yield "torch", record.env.get("torch")


def _metrics(record: RunRecord) -> Iterator[tuple[str, float]]:
    names = _names(record)
    for result, name in zip(record.results, names, strict=True):
        interval = result.ci
        parts = {
            "value": result.value,
            "se": result.se,
            "ci_low": interval.low if interval else None,
            "ci_high": interval.high if interval else None,
            "bias_corrected": result.bias_corrected,
        }
        yield from ((f"{name}/{part}", float(value)) for part, value in parts.items() if value is not None)
    for speed in record.performance:
        yield from _speeds(speed)
    yield "run/duration_seconds", float(record.duration_seconds)


def _names(record: RunRecord) -> list[str]:
    """Name each result by its label; with its variant where that is not implied or two would collide."""
    names = [_name(result, record) for result in record.results]
    counts = Counter(names)
    full = [
        f"{name}_{safe_name(result.variant)}" if counts[name] > 1 and result.variant else name
        for name, result in zip(names, record.results, strict=True)
    ]
    seen: Counter[str] = Counter()
    for position, name in enumerate(full):
        seen[name] += 1
        if seen[name] > 1:
            full[position] = f"{name}_{seen[name]}"
    return full


def _name(result: MetricResult, record: RunRecord) -> str:
    # Looked at alone: what else was measured in the same run must not rename a curve.
    told = shown_variants(replace(record, results=(result,)))
    return safe_name(f"{result.metric}_{result.variant}" if told else result.metric)


def _speeds(speed: Performance) -> Iterator[tuple[str, float]]:
    group = f"speed_{safe_name(speed.scenario)}"
    for field in fields(speed):
        value = getattr(speed, field.name)
        if field.name not in _NOT_MEASURED and value is not None:
            yield f"{group}/{field.name}", float(value)
