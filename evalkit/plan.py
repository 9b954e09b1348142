"""From a protocol's name and the user's flags to metrics, heads and labels."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Protocol, get_args, get_type_hints

from evalkit.core import Extractor, Metric
from evalkit.errors import EvalkitError, InvalidInputError, NothingMeasuredError, UsageError
from evalkit.extractors import FACTS
from evalkit.generators import GENERATOR_FACTS
from evalkit.metrics import METRICS
from evalkit.perceptual.facts import PAIR_MEASURES
from evalkit.protocol import FAST_SUFFIX, PROTOCOLS, MetricRequest, Preset, is_fast
from evalkit.redaction import redact_command
from evalkit.references import Reference, at_hand
from evalkit.registry import did_you_mean
from evalkit.selection import metric_label, select, select_everything
from evalkit.spec import Scalar

DEFAULT_REFERENCES = {"efficientnet-lite0": "cifar10-jpeg-train", "inception-v3": "cifar10"}
"""What the bundled models are measured against unless told otherwise; nothing else has a default."""
EVERYTHING = "all"
"""The word after ``--metrics`` for every metric that the protocol's network and the subject can serve."""
OFFLINE_DISTANCE = "pd-efficientnet-lite0"
"""The distance of a path length that needs no download."""
DEFAULT_HELD_OUT = {"cifar10-jpeg-train": "cifar10-jpeg-test", "cifar10": "cifar10-test"}
"""Held-out references that go with a reference unless another is named."""
PROBE_WEIGHTS = frozenset(
    name for facts in map(PAIR_MEASURES.__getitem__, PAIR_MEASURES) for name in (facts.name, facts.network)
)
"""Weights that probes read: they are given like those of an extractor."""


class PlanRequest(Protocol):
    """The part of a request that a plan reads."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics; empty for all of the protocol."""
        ...

    @property
    def model(self) -> str | None:
        """Name of the model that is sampled, if any."""
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
    def params(self) -> Mapping[str, Mapping[str, Scalar]]:
        """Parameters by metric name."""
        ...

    @property
    def held_out(self) -> str | None:
        """Name or path of the held-out reference."""
        ...

    @property
    def prompts(self) -> Path | None:
        """File of prompts."""
        ...

    @property
    def attributes(self) -> str | None:
        """Attribute classifiers."""
        ...

    @property
    def report_at(self) -> int | None:
        """Number of images at which the Fréchet distance is predicted."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """The command line."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """An extractor and how it prepares images (None: its default)."""

    extractor: str
    preset: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A metric, and the head of the network that it reads; no network where a probe makes its rows.

    Attributes:
        label: printed name where it is not made of its parts.
        via: the distance that a probe measures with, where one was named.
    """

    metric: Metric
    head: str
    network: Network | None
    label: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AtHand:
    """What a run found before it samples: counts, references by network, and what the subject can give."""

    images: int
    references: Mapping[Network, Reference]
    held_out: Mapping[Network, Reference] = field(default_factory=dict)
    labelled: bool = False
    prompted: bool = False
    classes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The minimal work for the metrics asked for: each network runs once however many metrics read it.

    Attributes:
        preset: the protocol.
        metrics: each metric with what it reads, headline first.
        explicit: the user named the metrics, so that none may be left out.
        everything: whatever can be measured was asked for.
    """

    preset: Preset
    metrics: tuple[Planned, ...]
    explicit: bool = False
    everything: bool = False

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks to run, each once; the first is the headline's."""
        return tuple(dict.fromkeys(planned.network for planned in self.metrics if planned.network))

    @property
    def headline(self) -> Network:
        """The network that the protocol names, or else the first by name of those asked for."""
        own = Network(self.preset.extractor, self.preset.extractor_preset)
        if own in self.networks or not self.networks:
            return own
        # By name, so that the order in which metrics were asked for does not move the fingerprint.
        return min(self.networks, key=lambda network: (network.extractor, network.preset or ""))

    def of(self, network: Network) -> tuple[Planned, ...]:
        """Metrics that read a network."""
        return tuple(planned for planned in self.metrics if planned.network == network)

    def heads(self, network: Network) -> tuple[str, ...]:
        """Heads to extract, each once."""
        return tuple(dict.fromkeys(planned.head for planned in self.of(network)))

    def reference_heads(self, network: Network, *, held_out: bool = False) -> tuple[str, ...]:
        """Heads of the reference (or of the held-out one) that some metric reads."""
        readers = [p for p in self.of(network) if p.metric.needs_reference]
        return tuple(dict.fromkeys(p.head for p in readers if p.metric.needs_held_out or not held_out))

    def class_heads(self, network: Network) -> tuple[str, ...]:
        """Heads of the reference whose moments by class some metric reads."""
        return tuple(dict.fromkeys(p.head for p in self.of(network) if p.metric.needs_groups))

    def bank_heads(self, network: Network) -> tuple[str, ...]:
        """Heads of the reference whose features some metric reads one by one."""
        return tuple(dict.fromkeys(p.head for p in self.of(network) if p.metric.needs_bank))

    @property
    def probed(self) -> tuple[Planned, ...]:
        """Metrics whose rows a probe makes."""
        return tuple(planned for planned in self.metrics if planned.network is None)

    @property
    def needs_labels(self) -> bool:
        """Whether some metric reads the labels of the generated images."""
        return any(planned.metric.needs_labels for planned in self.metrics)

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

    def feasible(self, found: AtHand, *, notify: Callable[[str], None]) -> Plan:
        """Return the plan without what these images and references cannot give.

        Raises:
            InvalidInputError: too few images for a metric that was named, or for all of them.
            NothingMeasuredError: the reference lacks what such a metric reads.
            UsageError: the subject has no labels or prompts that such a metric reads.
        """
        kept: list[Planned] = []
        problem: EvalkitError | None = None
        for planned in self.metrics:
            try:
                _check_feasible(planned, found)
            except (InvalidInputError, NothingMeasuredError, UsageError) as error:
                if self.explicit:
                    raise
                problem = error
                notify(f"left out {planned.metric.name}: {error.message}")
            else:
                kept.append(planned)
        if not kept and problem is not None:
            raise problem
        return replace(self, metrics=tuple(kept))

    def label(self, planned: Planned, extractor: Extractor) -> str:
        """Return the printed name of a metric; see :func:`~evalkit.selection.metric_label`."""
        variant = FAST_SUFFIX if is_fast(extractor.spec) else ""
        if planned.label:
            digest = (extractor.spec.sha256 or "")[:8]
            weights = "" if extractor.published else f":{extractor.spec.name}@{digest}"
            return planned.label + weights + variant
        network = planned.network or self.headline
        name = metric_label(
            metric=planned.metric.name,
            head=planned.head,
            extractor=network.extractor,
            preset=network.preset,
            sha256=extractor.spec.sha256 or "",
            published=extractor.published,
        )
        return name + variant


def _check_feasible(planned: Planned, found: AtHand) -> None:
    metric = planned.metric
    if metric.needs_labels and not found.labelled:
        raise UsageError(
            f"{metric.name} needs the class of each image",
            hint="a class-conditional model, or files in one sub-folder for each class",
        )
    network = planned.network
    dimension = FACTS[network.extractor].dimensions(planned.head) if network else 0
    if metric.needs_labels and metric.head == "logits" and found.classes not in {None, dimension}:
        raise UsageError(
            f"{metric.name} compares {found.classes} classes with {dimension} logits of other ones",
            hint="--metrics cifar10-accuracy, or --param accuracy.classifier=FILE for classes of your own",
        )
    if metric.needs_prompts and network and not FACTS[network.extractor].encodes_text:
        raise UsageError(
            f"{metric.name} needs a network that reads text, and {network.extractor} does not",
            hint=f"ask for {metric.name}:clip-vit-b-32",
        )
    if metric.needs_prompts and not found.prompted:
        raise UsageError(
            f"{metric.name} needs a prompt for each image", hint="--prompts FILE, one line an image"
        )
    fewest = metric.minimum_for(dimension)
    if found.images < fewest:
        raise InvalidInputError(f"{metric.name} needs at least {fewest} images, there are {found.images}")
    if network is None:
        return
    if metric.needs_reference and network in found.references:
        _check_reference(planned, found.references[network], dimension)
    if metric.needs_held_out:
        held = found.held_out.get(network)
        if held is None:
            raise NothingMeasuredError(
                f"{metric.name} needs real images that the model was not trained on", hint="--held-out NAME"
            )
        _check_reference(planned, held, dimension)


def _check_reference(planned: Planned, reference: Reference, dimension: int) -> None:
    metric, fewest = planned.metric, planned.metric.minimum_images
    statistics = reference.head(planned.head, dimension=dimension)
    kept = len(statistics.bank) if metric.needs_bank else fewest
    if kept < fewest:
        raise InvalidInputError(
            f"{metric.name} needs at least {fewest} reference features, {reference.name!r} keeps {kept}"
        )
    if metric.needs_groups:
        _ = statistics.groups  # raises where the reference has none


def make_plan(protocol: str, *, request: PlanRequest, notify: Callable[[str], None]) -> Plan:
    """Resolve ``protocol`` (``auto`` decides by what is at hand, and says so) and the metrics.

    Raises:
        UsageError: an unknown protocol, metric, parameter, head or extractor.
    """
    preset, note = _auto(request) if protocol == "auto" else (PROTOCOLS[protocol], "")
    roles = _roles(preset, request.params)
    everything = request.metrics == (EVERYTHING,)
    if EVERYTHING in request.metrics and not everything:
        raise UsageError(f"--metrics {EVERYTHING} stands alone", hint="every metric at hand is among them")
    chosen = (
        select_everything(
            preset,
            roles=roles,
            params=request.params,
            probed=OFFLINE_DISTANCE,
            separable=request.attributes is not None,
        )
        if everything
        else select(preset, request.metrics, roles=_with_pairs(roles), params=request.params)
    )
    metrics = tuple(_planned(preset, wanted, request) for wanted in chosen)
    explicit = bool(request.metrics) and not everything
    plan = Plan(preset=preset, metrics=metrics, explicit=explicit, everything=everything)
    if note and any(network.extractor == preset.extractor for network in plan.networks):
        notify(note)
    _check_weights(plan, request)
    if not everything:
        _check_flags(plan, request)
    return plan


def _with_pairs(roles: Mapping[str, str]) -> Mapping[str, str]:
    """Pair metrics are known, so that asking for one is told where to go."""
    return {**dict.fromkeys(METRICS, "pair"), **roles}


def _roles(preset: Preset, params: Mapping[str, Mapping[str, Scalar]]) -> dict[str, str]:
    """Role of the head that each metric of ``score`` reads, with the protocol's and the user's parameters."""
    # Together: a parameter alone may mean nothing, such as a size of subsets without their number.
    given = {request.metric: dict(request.params) for request in preset.metrics}
    return {
        name: _built(name, {**given.get(name, {}), **params.get(name, {})}).head
        for name in METRICS
        if METRICS[name].reads != "pairs"
    }


def _built(name: str, params: Mapping[str, Scalar]) -> Metric:
    kind = METRICS[name]
    hints = get_type_hints(kind)
    known: list[str] = [field_.name for field_ in fields(kind)] if is_dataclass(kind) else []
    for key, value in params.items():
        if key not in known:
            raise UsageError(f"metric {name!r} has no parameter {key!r}", hint=did_you_mean(key, known))
        allowed = get_args(hints[key]) or (hints[key],)
        if not any(_is_a(value, kind_) for kind_ in allowed):
            words = " or ".join(getattr(kind_, "__name__", repr(kind_)) for kind_ in allowed)
            raise UsageError(f"parameter {key!r} of metric {name!r} is {words}, not {value!r}")
    return kind(**params)


def _is_a(value: Scalar, kind: object) -> bool:
    if not isinstance(kind, type):  # a value of a Literal
        return value == kind
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def _planned(preset: Preset, wanted: MetricRequest, request: PlanRequest) -> Planned:
    kind = METRICS[wanted.metric]
    if kind.reads == "pairs":
        raise UsageError(
            f"{wanted.metric!r} compares pairs of images", hint="evalkit pairs GENERATED REFERENCE"
        )
    params = dict(wanted.params)
    if request.report_at is not None and wanted.metric == "fd":
        params["report_at"] = request.report_at
    metric = _built(wanted.metric, params)
    if kind.reads != "images":
        return Planned(metric, metric.head, None, wanted.label, wanted.extractor)
    network = Network(wanted.extractor or preset.extractor, wanted.preset)
    if not wanted.extractor:
        network = replace(network, preset=preset.extractor_preset)
    FACTS[network.extractor].dimensions(wanted.head)
    return Planned(metric, wanted.head, network, wanted.label)


def _check_flags(plan: Plan, request: PlanRequest) -> None:
    """Refuse what was asked for and nothing reads."""
    metrics = [planned.metric for planned in plan.metrics]
    unused = {
        "--attributes": request.attributes is not None and not any(m.reads == "latents" for m in metrics),
        "--held-out": request.held_out is not None and not any(m.needs_held_out for m in metrics),
        "--prompts": request.prompts is not None
        and request.model is None
        and not any(m.needs_prompts for m in metrics),
        "--report-at": request.report_at is not None and not any(m.name == "fd" for m in metrics),
    }
    for flag, is_unused in unused.items():
        if is_unused:
            names = ", ".join(dict.fromkeys(metric.name for metric in metrics))
            raise UsageError(f"{flag} is not used: none of {names} reads it", hint="see docs/metrics.md")


def _check_weights(plan: Plan, request: PlanRequest) -> None:
    used = {network.extractor for network in plan.networks}
    if request.attributes is not None:
        used.add(extractor_of_attributes(request.attributes))
    for name in request.weights:
        if name in PROBE_WEIGHTS and plan.probed:
            continue
        if name not in FACTS:
            FACTS[name]  # raises with a did-you-mean
        if name not in used:
            raise UsageError(
                f"--weights {name}=… is not used: the metrics read {', '.join(sorted(used)) or 'no network'}",
                hint="add --protocol standard" if name == "inception-v3" else None,
            )


def extractor_of_attributes(attributes: str) -> str:
    """Return the extractor that ``FILE@extractor/head`` names, or nothing."""
    return attributes.rpartition("@")[2].partition("/")[0] if "@" in attributes else ""


def _auto(request: PlanRequest) -> tuple[Preset, str]:
    """Return the protocol that everything needed is at hand for, and what to tell of the choice."""
    standard, embedded = PROTOCOLS["standard"], PROTOCOLS["embedded"]
    reference = request.reference or DEFAULT_REFERENCES["inception-v3"]
    weights_here = "inception-v3" in request.weights or _inception_at_hand()
    resizer = FACTS["inception-v3"].preset(standard.extractor_preset)[1].resizer
    if weights_here and at_hand(reference, extractor="inception-v3", resizer=resizer):
        return standard, "protocol: standard (InceptionV3 weights and the reference are at hand)"
    missing = "the InceptionV3 weights" if not weights_here else f"InceptionV3 statistics of {reference!r}"
    return embedded, (
        f"protocol: EMBEDDED (EfficientNet-Lite0 features). These scores are not FID and do not compare with "
        f"published ones: {missing} are not on this machine. The standard protocol fetches what it needs:\n"
        f"    {standard_command(request)}"
    )


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
