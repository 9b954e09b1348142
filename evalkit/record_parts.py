"""The parts of a run record: plain frozen facts, checked when they are made. No torch.

Counts, sizes, times and errors are never negative; digests are hexadecimal SHA-256; names are identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, is_dataclass
from typing import Any, Literal, Self

from evalkit.errors import InvalidInputError, UsageError
from evalkit.spec import Better, Interval, Score

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_identifier(text: str, *, what: str = "model id") -> str:
    """Return ``text`` if it can stand in CSV, HTML and paths as it is.

    Raises:
        UsageError: it does not match ``^[A-Za-z0-9][A-Za-z0-9._/+:@-]{0,199}$``.
    """
    if _IDENTIFIER.fullmatch(text):
        return text
    hint = "start with a letter or digit; then letters, digits and . _ / + : @ - only; at most 200 characters"
    raise UsageError(f"{what} {text[:80]!r} is not an identifier", hint=hint)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Leave-one-block-out values of a metric and the images in each block, in block order."""

    count: int = 0
    loo: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        refuse_negative(self)
        require(self.count == len(self.loo), f"{self.count} blocks but {len(self.loo)} leave-one-out values")
        require(len(self.sizes) in {0, self.count}, f"{self.count} blocks but {len(self.sizes)} block sizes")


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One number with its error bar; ``metric`` is the printed label, ``variant`` what it read or how.

    The head, or the metric's own name of its variant: ``ppl2_wend``, ``inside``, ``cifar10-top5``.
    """

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
        refuse_negative(self, signed=("value", "bias_corrected"))
        if self.ci is not None:
            require(self.ci.low <= self.ci.high, f"the interval [{self.ci.low}, {self.ci.high}] is reversed")
            require(0 < self.ci.level < 1, f"the level of an interval is not {self.ci.level}")

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
    warmup_seconds: float | None
    extraction_throughput: float | None = None

    def __post_init__(self) -> None:
        refuse_negative(self)


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
        refuse_negative(self)
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
        refuse_negative(self)
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
    truncation: float | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        refuse_negative(self, signed=("guidance",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """How many images were found and used, and which were rejected (``name: reason``)."""

    found: int
    used: int
    rejected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_negative(self)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def require(condition: bool, message: str) -> None:
    """Raise :class:`InvalidInputError` unless ``condition``."""
    if not condition:
        raise InvalidInputError(message)


def _require_sha256(value: str | None) -> None:
    require(
        value is None or _SHA256.fullmatch(value) is not None, f"{value!r} is not a SHA-256 in hexadecimal"
    )


def refuse_negative(part: object, *, signed: tuple[str, ...] = ()) -> None:
    """Raise where a numeric field of ``part`` is below zero, but for those that are ``signed``."""
    for name in part.__dataclass_fields__ if is_dataclass(part) else ():
        value = getattr(part, name)
        if name not in signed and isinstance(value, int | float) and value < 0:
            raise InvalidInputError(f"{name} is {value}: it cannot be negative")
