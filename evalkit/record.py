"""One immutable JSON file a run, schema ``evalkit.run/1``: what was judged, how, and what came out. No torch.

    record = RunRecord.read(Path("runs/ddpm/record.json"))
    fid = next(result for result in record.results if result.metric == "fid")
    print(fid.value, fid.se)

``status`` is ``started`` when a run begins; :meth:`RunRecord.write` replaces the file atomically when it ends.
Everything needed to compare two runs (blocks, sizes, fingerprint) is inside; nothing is ever NaN.
"""

from __future__ import annotations

import errno
import importlib.resources
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from evalkit import strict_json
from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.redaction import redact_command
from evalkit.spec import Better, Interval, Scalar, Score

__all__ = [
    "SCHEMA", "Blocks", "DataInfo", "Inputs", "MetricResult", "ModelInfo", "Performance", "ProtocolInfo",
    "RunRecord", "SamplingInfo", "Seeds", "Status", "check_identifier", "new_run_id", "redact_command", "schema",
    "utc_now", "write_atomically",
]  # fmt: skip

SCHEMA = "evalkit.run/1"
Status = Literal["started", "complete", "partial", "error"]

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def check_identifier(text: str, *, what: str = "model id") -> str:
    """Return ``text`` if it can stand in CSV, HTML and paths as it is.

    Raises:
        UsageError: it does not match ``^[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,199}$``.
    """
    if _IDENTIFIER.fullmatch(text):
        return text
    hint = "start with a letter or digit; then letters, digits and . _ / + : @ - only; at most 200 characters"
    raise UsageError(f"{what} {text[:80]!r} is not an identifier", hint=hint)


def new_run_id() -> str:
    """Return a new run id; ids sort in the order of their UTC time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"


def utc_now() -> str:
    """Return the time now as a record writes it, for example ``2026-01-31T12:00:00Z``."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Blocks:
    """Leave-one-block-out values of a metric and the images in each block, in block order."""

    count: int = 0
    loo: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _refuse_negative(self)
        _require(self.count == len(self.loo), f"{self.count} blocks but {len(self.loo)} leave-one-out values")
        _require(len(self.sizes) in {0, self.count}, f"{self.count} blocks but {len(self.sizes)} block sizes")


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One number with its error bar; ``metric`` is the printed label, ``variant`` the head where there are more."""

    metric: str
    variant: str
    value: float
    _: KW_ONLY
    unit: str = ""
    direction: Better
    se: float | None = None
    ci: Interval | None = None
    n_gen: int
    n_ref: int = 0
    blocks: Blocks = field(default_factory=Blocks)
    bias_corrected: float | None = None
    warnings: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_identifier(self.metric, what="metric")
        if self.variant:
            check_identifier(self.variant, what="variant")
        _refuse_negative(self, signed=("value", "bias_corrected"))
        if self.ci is not None:
            _require(self.ci.low <= self.ci.high, f"the interval [{self.ci.low}, {self.ci.high}] is reversed")
            _require(0 < self.ci.level < 1, f"the level of an interval is not {self.ci.level}")

    @classmethod
    def from_score(cls, score: Score, *, metric: str, variant: str, unit: str = "") -> Self:
        """Name a score: ``metric`` is the printed label (``fid``, ``fd:efficientnet-lite0``)."""
        return cls(
            metric=metric,
            variant=variant,
            value=float(score.value),
            unit=unit,
            direction=score.better,
            se=_float(score.stderr),
            ci=score.ci,
            n_gen=int(score.n),
            n_ref=int(score.n_reference),
            blocks=Blocks(
                len(score.blocks), tuple(map(float, score.blocks)), tuple(map(int, score.block_sizes))
            ),
            bias_corrected=_float(score.bias_corrected),
            warnings=tuple(score.warnings),
            details={name: float(number) for name, number in score.details.items()},
        )


@dataclass(frozen=True, slots=True)
class ProtocolInfo:
    """Every choice that can move a number, and their digest: records compare only within one fingerprint."""

    name: str
    fields: Mapping[str, Any]
    fingerprint: str

    def __post_init__(self) -> None:
        check_identifier(self.name, what="protocol")
        check_identifier(self.fingerprint, what="fingerprint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """One throughput measurement: images/s and ms, NFE an image, FLOPs (2 a multiply-add), bytes, joules."""

    scenario: Literal["offline", "single-stream"]
    throughput: float
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None = None
    nfe: int | None = None
    parameters: int | None = None
    flops_per_image: float | None = None
    peak_memory_bytes: int | None = None
    energy_per_image_joule: float | None = None
    batch_size: int
    images: int
    device: str
    dtype: str
    warmup_seconds: float
    extraction_throughput: float | None = None

    def __post_init__(self) -> None:
        _refuse_negative(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is judged: a checkpoint (or a folder of images) and the family it belongs to."""

    id: str
    family: str
    format: str
    sha256: str | None = None
    revision: str | None = None
    n_params: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        check_identifier(self.id)
        check_identifier(self.family, what="family")
        _refuse_negative(self)
        _require_sha256(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """What it is judged against; ``n_ref`` is 0 where no metric needs a reference."""

    dataset: str
    split: str | None = None
    resolution: int | None = None
    reference_sha256: str | None = None
    n_ref: int = 0

    def __post_init__(self) -> None:
        _refuse_negative(self)
        _require_sha256(self.reference_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Which seeds were drawn: two models sampled with the same seeds have a paired error bar."""

    base: int
    scheme: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingInfo:
    """How the images were drawn; ``labels`` names the rule or the digest of the label list."""

    n: int
    seeds: Seeds
    sampler: str | None = None
    steps: int | None = None
    nfe: int | None = None
    guidance: float | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        _refuse_negative(self, signed=("guidance",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """How many images were found and used, and which were rejected (``name: reason``)."""

    found: int
    used: int
    rejected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse_negative(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of one run. ``command`` must have gone through :func:`redact_command`."""

    schema: Literal["evalkit.run/1"] = "evalkit.run/1"
    run_id: str = field(default_factory=new_run_id)
    status: Status
    created_utc: str = field(default_factory=utc_now)
    duration_seconds: float = 0.0
    model: ModelInfo
    data: DataInfo
    sampling: SamplingInfo | None = None
    protocol: ProtocolInfo
    results: tuple[MetricResult, ...] = ()
    performance: tuple[Performance, ...] = field(default=(), metadata={"key": "perf"})
    inputs: Inputs
    env: Mapping[str, Scalar] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    notes: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_identifier(self.run_id, what="run id")
        _refuse_negative(self)
        _require_utc(self.created_utc)
        names = [(result.metric, result.variant) for result in self.results]
        _require(len(set(names)) == len(names), "a metric appears twice in results")

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON data, keys in a fixed order."""
        data = strict_json.encode(self)
        assert isinstance(data, dict)  # noqa: S101 - tells the type checker; encode maps a dataclass to a dict
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Rebuild a record from JSON data.

        Raises:
            InvalidInputError: another schema, an unknown or missing key, or a value that is not allowed.
        """
        found = data.get("schema") if isinstance(data, Mapping) else None
        if found != SCHEMA:
            hint = "written by another release of evalkit?" if found else "this is not a record of evalkit"
            raise InvalidInputError(f"schema is {found!r}, not {SCHEMA!r}", hint=hint)
        return strict_json.decode(data, cls)

    def write(self, path: Path) -> None:
        """Write the record to ``path`` atomically: readers see the old file or the new one, never half."""
        write_atomically(path, strict_json.dumps(self.to_json()))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record; an error names the file."""
        try:
            return cls.from_json(strict_json.loads(path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path}: not UTF-8 text") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error.message}", hint=error.hint) from error


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` by a temporary file beside it, fsync and rename.

    Raises:
        TemporaryError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TemporaryError(f"cannot write {path}: {error.strerror}", hint="free some space") from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record."""
    file = importlib.resources.files("evalkit").joinpath("schemas", "run-1.schema.json")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)


def _require_sha256(value: str | None) -> None:
    _require(
        value is None or _SHA256.fullmatch(value) is not None, f"{value!r} is not a SHA-256 in hexadecimal"
    )


def _require_utc(value: str) -> None:
    try:
        valid = _UTC.fullmatch(value) is not None and datetime.fromisoformat(value) is not None
    except ValueError:
        valid = False
    _require(valid, f"created_utc {value!r} is not a UTC time such as 2026-01-31T12:00:00Z")


def _refuse_negative(thing: Any, *, signed: tuple[str, ...] = ()) -> None:
    """Counts, sizes, times and errors of a dataclass are never below zero."""
    for name in (item.name for item in fields(thing)):
        value = getattr(thing, name)
        if name not in signed and isinstance(value, int | float) and value < 0:
            raise InvalidInputError(f"{name} is {value}: it cannot be negative")
