"""The section of provenance: what the record says of model, sampling, protocol and machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from evalkit.errors import EvalkitError
from evalkit.generators import GENERATOR_FACTS
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.pages.report_facts import Block, Command, Facts, Paragraph
from evalkit.portrait.sitter import Sitter
from evalkit.record import RunRecord
from evalkit.reporting.formatting import human_count

_NOTHING = (None, "", "none")


def provenance(sitter: Sitter) -> tuple[Block, ...]:
    """Return the facts of one record, the long lists folded."""
    record = sitter.record
    blocks: list[Block] = [
        Facts(title="Model", pairs=_present(_model(sitter))),
        Facts(title="Run", pairs=_present(_run(record))),
    ]
    if record.sampling:
        blocks.append(Facts(title="Sampling", pairs=_present(_sampling(record))))
    if record.command:
        blocks.append(Command(text=shlex.join(record.command)))
    training = _training(sitter)
    if training:
        blocks.append(Facts(title="Training, as its checkpoint tells", pairs=training, folded=True))
    fields = tuple(_flat(record.protocol.fields))
    blocks.append(Facts(title=f"Protocol {record.protocol.name}: every choice", pairs=fields, folded=True))
    environment = tuple((name, str(value)) for name, value in record.env.items() if value not in _NOTHING)
    blocks.append(Facts(title="Environment", pairs=environment, folded=True))
    if record.notes:
        blocks.append(Paragraph(text=record.notes, tone="dim"))
    return tuple(blocks)


def _model(sitter: Sitter) -> Iterator[tuple[str, object]]:
    model = sitter.record.model
    facts = GENERATOR_FACTS.get(sitter.subject.generator.spec.name) if sitter.subject.generator else None
    yield "id", model.id
    yield "family", model.family
    yield "what it is", facts.title if facts else None
    yield "format", model.format
    yield "sha256", model.sha256
    yield "revision", model.revision
    yield "parameters", human_count(model.n_params) if model.n_params else None
    yield "dtype", model.dtype


def _run(record: RunRecord) -> Iterator[tuple[str, object]]:
    data = record.data
    yield "run", record.run_id
    yield "started", record.created_utc
    yield "seconds", f"{record.duration_seconds:.1f}"
    yield (
        "images",
        f"{record.inputs.used:,} used of {record.inputs.found:,}, {len(record.inputs.rejected):,} rejected",
    )
    yield "data", f"{data.dataset}/{data.split}" if data.split else data.dataset
    yield (
        "reference",
        f"{data.n_ref:,} images, sha256 {data.reference_sha256}" if data.reference_sha256 else None,
    )
    yield "fingerprint", record.protocol.fingerprint


def _sampling(record: RunRecord) -> Iterator[tuple[str, object]]:
    sampling = record.sampling
    if sampling is None:
        return
    seeds = sampling.seeds
    yield "samples", f"{sampling.n:,}"
    yield "seeds", f"base {seeds.base}, {seeds.scheme}"
    for name in ("sampler", "steps", "nfe", "guidance", "truncation", "labels"):
        yield name, getattr(sampling, name)


def _present(pairs: Iterator[tuple[str, object]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in pairs if value is not None)


def _training(sitter: Sitter) -> tuple[tuple[str, str], ...]:
    """What a checkpoint of evalkit says of its training; others say nothing that can be relied on."""
    if sitter.record.model.format != "evalkit" or sitter.subject.generator is None:
        return ()
    facts = GENERATOR_FACTS.get(sitter.subject.generator.spec.name)
    path = sitter.request.ckpt or (facts.checkpoint if facts else None)
    try:
        training = read_checkpoint(path).training if path is not None else {}
    except EvalkitError:
        return ()
    return tuple((str(name).replace("_", " "), _value(value)) for name, value in training.items())


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Fields by dotted name; lists of metrics by the metric's own."""
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _flat(value[key], f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        for item in value:
            yield from _flat(
                {k: v for k, v in item.items() if k != "kind" and v not in ({}, None)},
                f"{name}[{item.get('name', '')}]",
            )
    else:
        yield name, _value(value)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return str(value)
