"""From a protocol's name and the user's flags to metrics, heads and labels."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from evalkit.core import Extractor, Metric
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError, UsageError
from evalkit.extractors import FACTS
from evalkit.generators import GENERATOR_FACTS
from evalkit.metrics import METRICS
from evalkit.protocol import PROTOCOLS, Preset, metric_label
from evalkit.redaction import redact_command
from evalkit.references import Reference, at_hand

DEFAULT_REFERENCES = {"efficientnet-lite0": "cifar10-jpeg-train", "inception-v3": "cifar10"}
"""What the bundled models are measured against unless told otherwise; nothing else has a default."""


class PlanRequest(Protocol):
    """The part of a request that a plan reads."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics; empty for all of the protocol."""
        ...

    @property
    def reference(self) -> str | None:
        """Name or path of the reference."""
        ...

    @property
    def weights(self) -> Mapping[str, Path]:
        """Weights files by extractor."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """The command line."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The minimal work for the metrics asked for: each network runs once however many metrics read it.

    Attributes:
        preset: the protocol.
        metrics: each metric with the head it reads, headline first.
        explicit: the user named the metrics, so that none may be left out.
    """

    preset: Preset
    metrics: tuple[tuple[Metric, str], ...]
    explicit: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads to extract, each once."""
        return tuple(dict.fromkeys(head for _, head in self.metrics))

    @property
    def reference_heads(self) -> tuple[str, ...]:
        """Heads of the reference that some metric reads."""
        return tuple(dict.fromkeys(head for metric, head in self.metrics if metric.needs_reference))

    @property
    def needs_reference(self) -> bool:
        """Whether any metric compares with real images."""
        return bool(self.reference_heads)

    def reference_name(self, asked: str | None, *, model: str | None) -> str:
        """Return the reference to use.

        Raises:
            UsageError: none was named, and the subject is not a bundled model.
        """
        if asked is not None:
            return asked
        default = DEFAULT_REFERENCES.get(self.preset.extractor)
        if model in GENERATOR_FACTS and default is not None:
            return default
        raise UsageError(
            "a reference is needed: what are these images to be compared with?",
            hint="--reference NAME (see `evalkit list references`) or --reference FOLDER of real images",
        )

    def feasible(self, *, images: int, reference: Reference | None, notify: Callable[[str], None]) -> Plan:
        """Return the plan without what these images and this reference cannot give.

        Raises:
            InvalidInputError: too few images for a metric that was named, or for all of them.
            NothingMeasuredError: the reference lacks what such a metric reads.
        """
        facts = FACTS[self.preset.extractor]
        kept: list[tuple[Metric, str]] = []
        problem: EvalkitError | None = None
        for metric, head in self.metrics:
            try:
                _check_feasible(
                    metric, head, dimension=facts.dimensions(head), images=images, reference=reference
                )
            except (InvalidInputError, NothingMeasuredError) as error:
                if self.explicit:
                    raise
                problem = error
                notify(f"left out {metric.name}: {error.message}")
            else:
                kept.append((metric, head))
        if not kept and problem is not None:
            raise problem
        return replace(self, metrics=tuple(kept))

    def label(self, metric: Metric, head: str, extractor: Extractor) -> str:
        """Return the printed name of a metric; see :func:`~evalkit.protocol.metric_label`."""
        return metric_label(
            metric=metric.name,
            head=head,
            extractor=self.preset.extractor,
            preset=self.preset.extractor_preset,
            sha256=extractor.spec.sha256 or "",
            published=extractor.published,
        )


def _check_feasible(
    metric: Metric, head: str, *, dimension: int, images: int, reference: Reference | None
) -> None:
    fewest = metric.minimum_images
    if images < fewest:
        raise InvalidInputError(f"{metric.name} needs at least {fewest} images, there are {images}")
    if not metric.needs_reference or reference is None:
        return
    statistics = reference.head(head, dimension=dimension)
    kept = len(statistics.bank) if metric.needs_bank else fewest
    if kept < fewest:
        raise InvalidInputError(
            f"{metric.name} needs at least {fewest} reference features, {reference.name!r} keeps {kept}"
        )


def make_plan(protocol: str, *, request: PlanRequest, notify: Callable[[str], None]) -> Plan:
    """Resolve ``protocol`` (``auto`` decides by what is at hand, and says so) and the metrics.

    Raises:
        UsageError: an unknown protocol, metric, head or extractor.
    """
    preset = _auto(request, notify) if protocol == "auto" else PROTOCOLS[protocol]
    for name in request.weights:
        if name not in FACTS:
            FACTS[name]  # raises with a did-you-mean
        if name != preset.extractor:
            raise UsageError(
                f"--weights {name}=… is not used: protocol {preset.name!r} reads {preset.extractor}",
                hint="add --protocol standard" if name == "inception-v3" else None,
            )
    facts = FACTS[preset.extractor]
    metrics = []
    for chosen in preset.select(request.metrics):
        facts.dimensions(chosen.head)
        metrics.append((METRICS[chosen.metric](**dict(chosen.params)), chosen.head))
    return Plan(preset=preset, metrics=tuple(metrics), explicit=bool(request.metrics))


def _auto(request: PlanRequest, notify: Callable[[str], None]) -> Preset:
    standard, embedded = PROTOCOLS["standard"], PROTOCOLS["embedded"]
    reference = request.reference or DEFAULT_REFERENCES["inception-v3"]
    weights_here = "inception-v3" in request.weights or _inception_at_hand()
    resizer = FACTS["inception-v3"].preset(standard.extractor_preset)[1].resizer
    if weights_here and at_hand(reference, extractor="inception-v3", resizer=resizer):
        notify("protocol: standard (InceptionV3 weights and the reference are at hand)")
        return standard
    missing = "the InceptionV3 weights" if not weights_here else f"InceptionV3 statistics of {reference!r}"
    notify(
        f"protocol: EMBEDDED (EfficientNet-Lite0 features). These scores are not FID and do not compare with "
        f"published ones: {missing} are not on this machine. The standard protocol fetches what it needs:\n"
        f"    {standard_command(request)}"
    )
    return embedded


def standard_command(request: PlanRequest) -> str:
    """Return the command that measures the same subject under ``standard``."""
    words = list(redact_command(list(request.command))) or ["evalkit", "score"]
    for flag in ("--protocol", "--reference"):
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    # A name that ships with evalkit holds no InceptionV3 statistics; images on disk can be measured by any.
    on_disk = request.reference is not None and Path(request.reference).exists()
    reference = request.reference if on_disk else DEFAULT_REFERENCES["inception-v3"]
    return shlex.join([*words, "--protocol", "standard", "--reference", str(reference)])


def _inception_at_hand() -> bool:
    from evalkit.extractors.inception_weights import cached_weights  # noqa: PLC0415 - only when asked

    return cached_weights() is not None
