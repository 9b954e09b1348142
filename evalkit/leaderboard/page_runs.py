"""Where each number of a board comes from: the facts of its run, those that all runs share told once."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evalkit.errors import InvalidInputError, UsageError
from evalkit.leaderboard.entries import check_url
from evalkit.leaderboard.facts import Entry
from evalkit.leaderboard.page_rows import PageRow
from evalkit.record import Performance, RunRecord
from evalkit.reporting.formatting import human_bytes, human_flops, human_rate
from evalkit.spec import canonical_json

Facts = Mapping[str, str]

_SEPARATOR = " · "
_SOURCE = "Source"
_HIDDEN_FIELDS = {"kind"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A grid of samples as a data: URI, with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is told of one row beside the table; ``link`` is empty unless the source is an https address."""

    row: PageRow
    facts: Facts
    link: str
    picture: Picture | None


def runs_of(rows: Sequence[PageRow]) -> tuple[Facts, tuple[Run, ...]]:
    """Return the facts that all rows share, and what is left to tell of each.

    Raises:
        InvalidInputError: a grid of samples is not a WebP picture.
    """
    facts = [entry_facts(row.entry) for row in rows]
    shared = {
        name: value
        for name, value in facts[0].items()
        if len(rows) > 1 and name != _SOURCE and all(other.get(name) == value for other in facts)
    }
    runs = tuple(
        Run(
            row=row,
            facts={name: value for name, value in own.items() if name not in shared},
            link=https_link(row.entry.source_url),
            picture=picture(row.entry),
        )
        for row, own in zip(rows, facts, strict=True)
    )
    return shared, runs


def entry_facts(entry: Entry) -> Facts:
    """Return every fact of an entry as text, by name; those that are unknown are left out."""
    record, model = entry.record, entry.record.model
    everything = {
        "Run": _SEPARATOR.join((record.run_id, record.created_utc)),
        "Status": "" if record.status == "complete" else record.status,
        "Trust": entry.trust,
        _SOURCE: entry.source_url,
        "Notes": entry.notes,
        "Notes of the run": record.notes,
        "Model": "" if model.id == entry.name else model.id,
        "Checkpoint": _joined(model.format, model.revision, model.dtype),
        "SHA-256": model.sha256 or "",
        "Data": _data(record),
        "Samples": _samples(record),
        "Sampler": _sampler(record),
        "Seeds": _seeds(record),
        "Images": _inputs(record),
        "Rejected": ", ".join(record.inputs.rejected),
        **{f"Speed ({p.scenario})": _speed(p) for p in record.performance},
        **{f"Measured ({p.scenario})": _conditions(p) for p in record.performance},
        "Environment": _SEPARATOR.join(f"{name} {record.env[name]}" for name in sorted(record.env)),
        "Command": shlex.join(record.command),
    }
    return {name: value for name, value in everything.items() if value}


def https_link(url: str) -> str:
    """Return ``url`` if a page may link to it; else nothing: nobody checks a board made by hand."""
    try:
        check_url(url)
    except UsageError:
        return ""
    return url


def picture(entry: Entry) -> Picture | None:
    """Return an entry's grid of samples, ready for the page; None where it has none.

    Raises:
        InvalidInputError: its bytes are not a WebP picture.
    """
    if entry.grid is None:
        return None
    from PIL import Image  # noqa: PLC0415 - boards without pictures need no decoder

    try:
        with Image.open(io.BytesIO(entry.grid), formats=["WEBP"]) as image:
            width, height = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInputError(
            f"the samples of {entry.name} are not a WebP picture", hint="make them again and add them anew"
        ) from error
    uri = f"data:image/webp;base64,{base64.b64encode(entry.grid).decode()}"
    return Picture(uri=uri, width=width, height=height)


def protocol_fields(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the choices of a protocol as (name, value), nested ones by dotted name."""
    return list(_flat(fields))


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in value:
            if key not in _HIDDEN_FIELDS and value[key] is not None:
                yield from _flat(value[key], f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        for item in value:
            parts = [f"{key.removeprefix('params.')} {text}" for key, text in _flat(item) if key != "name"]
            yield f"{name} {item.get('name', '')}".strip(), ", ".join(parts)
    else:
        yield name, value if isinstance(value, str) else canonical_json(value)


def _joined(*parts: object) -> str:
    return _SEPARATOR.join(str(part) for part in parts if part not in {None, ""})


def _data(record: RunRecord) -> str:
    data = record.data
    where = f"{data.dataset}/{data.split}" if data.split else data.dataset
    return _joined(
        where,
        f"{data.resolution} px" if data.resolution else None,
        f"reference of {data.n_ref:,} images" if data.n_ref else None,
        f"SHA-256 {data.reference_sha256}" if data.reference_sha256 else None,
    )


def _samples(record: RunRecord) -> str:
    if (sampling := record.sampling) is None:
        return ""
    return _joined(f"{sampling.n:,} images", f"labels {sampling.labels}" if sampling.labels else None)


def _sampler(record: RunRecord) -> str:
    if (sampling := record.sampling) is None:
        return ""
    named = {
        "steps": sampling.steps,
        "NFE": sampling.nfe,
        "guidance": sampling.guidance,
        "truncation": sampling.truncation,
    }
    told = [f"{name} {value}" for name, value in named.items() if value is not None]
    return _joined(sampling.sampler, *told)


def _seeds(record: RunRecord) -> str:
    if record.sampling is None:
        return ""
    seeds = record.sampling.seeds
    return _joined(f"base {seeds.base}", seeds.scheme, f"first {seeds.first}", f"last {seeds.last}")


def _inputs(record: RunRecord) -> str:
    inputs = record.inputs
    return f"{inputs.used:,} used of {inputs.found:,}, {len(inputs.rejected):,} rejected"


def _speed(p: Performance) -> str:
    milliseconds = {"p50": p.latency_p50_ms, "p90": p.latency_p90_ms, "p99": p.latency_p99_ms}
    times = [f"{name} {human_rate(value)}" for name, value in milliseconds.items() if value is not None]
    return _joined(
        f"{human_rate(p.throughput)} images/s",
        f"{', '.join(times)} ms" if times else None,
        None if p.warmup_seconds is None else f"warm-up {human_rate(p.warmup_seconds)} s",
        None if p.flops_per_image is None else f"{human_flops(p.flops_per_image)} an image",
        None if p.peak_memory_bytes is None else f"peak {human_bytes(p.peak_memory_bytes)}",
        None if p.energy_per_image_joule is None else f"{human_rate(p.energy_per_image_joule)} J an image",
    )


def _conditions(p: Performance) -> str:
    return _joined(f"{p.images:,} images", f"batch {p.batch_size}", p.device, p.dtype)
