"""From a record to the request that scores the same images again, and the check that they are the same.

A record's command holds everything that was asked for, and the record itself what came of it: the number of
images, seeds, sampler and steps. Where there is no such command (a run started from Python), the record alone
tells how a bundled model was sampled.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.generators import GENERATOR_FACTS, SamplingOptions
from evalkit.generators.loading import is_native
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.subjects import Subject

_SHORT = 12


def restored(
    record: RunRecord, asked: ScoreRequest | None, *, ckpt: Path | None, model: str | None, device: str
) -> ScoreRequest:
    """Return the request that makes the images of ``record`` again.

    Args:
        record: of a complete run.
        asked: what the record's command asked for, where it can be read; its code is never run (``model`` and
            ``attributes`` of the form ``pkg.mod:obj`` are left out).
        ckpt: checkpoint, wherever it lies now; None for that of ``asked``.
        model: model to build; None for that of ``asked`` or of the record.
        device: where to compute.

    Raises:
        NothingMeasuredError: the run is not complete, or has no images.
        UsageError: the model is somebody's own code, or cannot be told from the record; or its checkpoint
            is not where it was.
    """
    check_showable(record)
    request = asked or ScoreRequest()
    named = model or _trusted(request.model, record) or (None if request.images else _from_id(record))
    found = request.images
    if named is None and found is None:
        raise UsageError(
            f"the record of {record.model.id} does not tell which model made its images",
            hint="--model NAME [--ckpt FILE]",
        )
    sampling = _sampling(record, request.sampling, named)
    seeds = record.sampling.seeds if record.sampling else None
    return replace(
        request,
        model=named,
        ckpt=ckpt or (_found(request.ckpt, record) if named else None),
        name=record.model.id,
        protocol=record.protocol.name,
        attributes=None,
        attribute_names=(),
        num_samples=record.inputs.used,
        seed=seeds.base if seeds else request.seed,
        sampling=sampling,
        device=device,
        strict=record.env.get("determinism") == "strict",
        fresh=False,
    )


def check_showable(record: RunRecord) -> None:
    """Refuse a record that has no images to show.

    Raises:
        NothingMeasuredError: it is not complete, or about speed or pairs.
    """
    again = shlex.join(record.command) if record.command else "evalkit score"
    if record.status != "complete":
        raise NothingMeasuredError(
            f"the record of {record.model.id} is {record.status}, not complete",
            hint=f"the same command continues it: {again}",
        )
    if "extractor" not in record.protocol.fields or not record.inputs.used:
        raise NothingMeasuredError(
            f"the record of {record.model.id} ({record.protocol.name}) holds no scores of a set of images",
            hint="reports are about records of `evalkit score`",
        )


def check_same(subject: Subject, record: RunRecord) -> None:
    """Check that ``subject`` gives the images that were scored.

    Raises:
        InvalidInputError: another checkpoint, other images, or another way of sampling.
    """
    kind = "checkpoint" if subject.generator else "set of images"
    if subject.info.sha256 != record.model.sha256:
        raise InvalidInputError(
            f"this is not the {kind} that was scored as {record.model.id}: its sha256 is "
            f"{_digest(subject.info.sha256)}, the record has {_digest(record.model.sha256)}",
            hint="name the one that was scored: --ckpt FILE" if subject.generator else None,
        )
    now, then = subject.sampling, record.sampling
    pairs: list[tuple[str, object, object]] = [("revision", subject.info.revision, record.model.revision)]
    pairs += [("number of images", len(subject.source), record.inputs.used)]
    if now is not None and then is not None:
        names = ("seeds", "sampler", "steps", "guidance", "truncation", "labels")
        pairs += [(name, getattr(now, name), getattr(then, name)) for name in names]
    differing = [f"{name} {one} against {other}" for name, one, other in pairs if one != other]
    if differing:
        raise InvalidInputError(
            f"{record.model.id} would not be sampled as it was scored: {'; '.join(differing)}",
            hint="was it scored by another release of evalkit?",
        )


def _found(ckpt: Path | None, record: RunRecord) -> Path | None:
    """The checkpoint of a command, which may have been typed on another machine."""
    if ckpt is None or ckpt.exists() or str(ckpt).startswith("hub:"):
        return ckpt
    raise UsageError(
        f"the checkpoint of {record.model.id} is not at {ckpt}, where it was scored from",
        hint=f"--ckpt FILE names it wherever it lies now; its sha256 is {_digest(record.model.sha256)}",
    )


def _trusted(model: str | None, record: RunRecord) -> str | None:
    """The model of a command; a record may come from anybody, and never decides which code runs here."""
    if model is None or is_native(model):
        return model
    raise UsageError(
        f"the record of {record.model.id} names code, {model!r}, which runs only where you name it too",
        hint=f"--model {model}, if you trust it",
    )


def _from_id(record: RunRecord) -> str | None:
    """The bundled model that a record's id begins with: ``ddpm``, ``ddpm@weights``."""
    if ":" in record.model.id:
        _trusted(record.model.id, record)
    name = record.model.id.partition("@")[0]
    facts = GENERATOR_FACTS.get(name)
    return name if facts is not None and facts.family == record.model.family else None


def _sampling(record: RunRecord, asked: SamplingOptions, model: str | None) -> SamplingOptions:
    """What the record says wins over the command, which may have left it to the defaults of then."""
    then = record.sampling
    if then is None or model is None or not is_native(model):
        return asked
    facts = GENERATOR_FACTS.get(model)
    known: dict[str, Any] = {
        "sampler": then.sampler,
        "steps": then.steps,
        "guidance": then.guidance if facts and facts.takes_guidance else None,
        "truncation": then.truncation if facts and facts.takes_truncation else None,
        "dtype": record.model.dtype,
    }
    return replace(asked, **{name: value for name, value in known.items() if value is not None})


def _digest(sha256: str | None) -> str:
    return f"{sha256[:_SHORT]}…" if sha256 else "unknown"
