"""What a part says about its run, as plain data: enough to score it without its model and its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from evalkit.core import Extractor, Generator, Metric
from evalkit.errors import InvalidInputError
from evalkit.metrics import METRICS
from evalkit.opening import Opened
from evalkit.plan import Network, Plan, Planned
from evalkit.probing import BuiltProbe
from evalkit.protocol import PROTOCOLS
from evalkit.spec import Scalar, Spec


@dataclass(frozen=True, slots=True)
class SpecFacts:
    """A :class:`~evalkit.spec.Spec`."""

    kind: str
    name: str
    params: Mapping[str, Scalar]
    sha256: str | None

    @classmethod
    def of(cls, spec: Spec) -> SpecFacts:
        """Return the facts of ``spec``."""
        return cls(spec.kind, spec.name, dict(spec.params), spec.sha256)

    @property
    def spec(self) -> Spec:
        """The spec itself."""
        return Spec(self.kind, self.name, tuple(sorted(self.params.items())), self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """A network that measured, and how it was asked for."""

    extractor: str
    preset: str | None
    spec: SpecFacts
    heads: Mapping[str, int]
    published: bool

    @classmethod
    def of(cls, network: Network, extractor: Extractor) -> NetworkFacts:
        """Return the facts of ``extractor``."""
        return cls(
            extractor=network.extractor,
            preset=network.preset,
            spec=SpecFacts.of(extractor.spec),
            heads=dict(extractor.heads),
            published=extractor.published,
        )

    @property
    def network(self) -> Network:
        """How it was asked for."""
        return Network(self.extractor, self.preset)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """A probe, what it measured with, and the printed name of its metric."""

    spec: SpecFacts
    heads: Mapping[str, int]
    network: SpecFacts
    label: str

    @classmethod
    def of(cls, built: BuiltProbe) -> ProbeFacts:
        """Return the facts of a probe."""
        probe = built.probe
        return cls(
            spec=SpecFacts.of(probe.spec),
            heads=dict(probe.heads),
            network=SpecFacts.of(built.network),
            label=built.label,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """A planned metric; ``network`` is the position of its network, None where it has a ``probe``."""

    metric: str
    params: Mapping[str, Scalar]
    head: str
    network: int | None
    label: str
    via: str
    probe: ProbeFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What is measured, under which protocol."""

    protocol: str
    explicit: bool
    everything: bool
    networks: tuple[NetworkFacts, ...]
    metrics: tuple[MetricFacts, ...]

    @classmethod
    def of(cls, plan: Plan, opened: Opened) -> PlanFacts:
        """Return the facts of a plan whose networks and probes are open."""
        networks = plan.networks
        return cls(
            protocol=plan.preset.name,
            explicit=plan.explicit,
            everything=plan.everything,
            networks=tuple(NetworkFacts.of(network, opened.extractors[network]) for network in networks),
            metrics=tuple(
                MetricFacts(
                    metric=planned.metric.name,
                    params=_params(planned.metric),
                    head=planned.head,
                    network=None if planned.network is None else networks.index(planned.network),
                    label=planned.label,
                    via=planned.via,
                    probe=None if planned.network else ProbeFacts.of(opened.probes[planned]),
                )
                for planned in plan.metrics
            ),
        )

    def plan(self) -> tuple[Plan, Mapping[Planned, ProbeFacts]]:
        """Return the plan, and what is known of the probes of its metrics.

        Raises:
            InvalidInputError: this release has no such protocol or metric, or a network is not there.
        """
        probes: dict[Planned, ProbeFacts] = {}
        kept = []
        for facts in self.metrics:
            planned = self._planned(facts)
            kept.append(planned)
            if facts.probe is not None:
                probes[planned] = facts.probe
        if self.protocol not in PROTOCOLS:
            raise InvalidInputError(f"there is no protocol {self.protocol!r}", hint=_RELEASE)
        plan = Plan(
            preset=PROTOCOLS[self.protocol],
            metrics=tuple(kept),
            explicit=self.explicit,
            everything=self.everything,
        )
        return plan, probes

    def _planned(self, facts: MetricFacts) -> Planned:
        if (facts.network is None) == (facts.probe is None):
            raise InvalidInputError(f"metric {facts.metric!r} reads either a network or a probe", hint=_AGAIN)
        if facts.network is not None and not 0 <= facts.network < len(self.networks):
            raise InvalidInputError(f"metric {facts.metric!r} reads a network that is not there", hint=_AGAIN)
        network = None if facts.network is None else self.networks[facts.network].network
        if facts.metric not in METRICS:
            raise InvalidInputError(f"there is no metric {facts.metric!r}", hint=_RELEASE)
        try:
            metric = METRICS[facts.metric](**facts.params)
        except TypeError as error:
            raise InvalidInputError(f"metric {facts.metric!r}: {error}", hint=_RELEASE) from error
        return Planned(metric, facts.head, network, facts.label, facts.via)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFacts:
    """A generator that was sampled."""

    spec: SpecFacts
    family: str
    num_classes: int
    parameter_count: int | None

    @classmethod
    def of(cls, generator: Generator) -> GeneratorFacts:
        """Return the facts of ``generator``."""
        return cls(
            spec=SpecFacts.of(generator.spec),
            family=generator.family,
            num_classes=generator.num_classes,
            parameter_count=getattr(generator, "parameter_count", None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFacts:
    """What is judged, beside what the record says of it; ``generator`` is None for files of images."""

    generator: GeneratorFacts | None
    class_names: tuple[str, ...] | None
    labelled: bool
    prompts: tuple[str, ...] | None

    @classmethod
    def of(cls, opened: Opened) -> SubjectFacts:
        """Return the facts of the subject of a run."""
        generator = opened.subject.generator
        return cls(
            generator=None if generator is None else GeneratorFacts.of(generator),
            class_names=opened.subject.class_names,
            labelled=opened.labelled,
            prompts=opened.prompts,
        )


_AGAIN = "the manifest was changed by hand: run the part again"
_RELEASE = "was it written by another release of evalkit?"


def _params(metric: Metric) -> dict[str, Scalar]:
    """Return every argument that the metric was made with: more than its spec, which holds what moves it."""
    return (
        {field.name: getattr(metric, field.name) for field in fields(metric)} if is_dataclass(metric) else {}
    )
