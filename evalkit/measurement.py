"""From the shards of a run to its scores, and to the protocol that says how each of them was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evalkit import numerics
from evalkit.core import Extractor, FeatureSet, Metric, Probe, ReferenceFeatures
from evalkit.errors import InvalidInputError, UsageError
from evalkit.extraction import Extracted
from evalkit.metrics import compute_all
from evalkit.plan import Network, Plan, Planned
from evalkit.probing import BuiltProbe
from evalkit.protocol import FAST_SUFFIX, EvalProtocol, MeasuredMetric, is_fast
from evalkit.record import MetricResult, ProtocolInfo, RunRecord
from evalkit.references import Reference
from evalkit.seeding import SEED_SCHEME, stream
from evalkit.spec import Spec, sha256_of
from evalkit.subjects import Subject


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Materials:
    """Everything that the metrics of a run read.

    Attributes:
        lanes: the features of each network; ``probes`` the rows of each probed metric.
        references: real images by network, with the held-out ones beside them; ``held_out`` these alone.
        prompts: one for each image.
        class_names: of the labels of the generated images, where they tell.
        drawn: the images are independent draws in index order, and not files.
    """

    extractors: Mapping[Network, Extractor]
    drawn: bool
    lanes: Mapping[Network, Extracted] = field(default_factory=dict)
    probes: Mapping[Planned, Extracted] = field(default_factory=dict)
    references: Mapping[Network, Reference] = field(default_factory=dict)
    held_out: Mapping[Network, Reference] = field(default_factory=dict)
    prompts: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None


class Decided(Exception):  # noqa: N818 - no error: a run has answered what it was asked before its end
    """What a :class:`Watch` raises when it has seen enough; every whole shard is kept."""


class Watch(Protocol):
    """Follows a run while its images come, and may end it before the last; see :mod:`evalkit.anytime`."""

    def begin(self, record: RunRecord, subject: Subject, plan: Plan, materials: Materials) -> None:
        """See what will be measured before anything is sampled; ``record`` has no scores yet."""
        ...

    def look(self, materials: Materials) -> None:
        """See what there is after each whole shard.

        Raises:
            Decided: no more images are needed.
        """
        ...


def by_class_names(features: FeatureSet, ours: tuple[str, ...] | None, theirs: tuple[str, ...]) -> FeatureSet:
    """Return ``features`` with labels that count ``theirs`` rather than ``ours``; unchanged where unnamed.

    Raises:
        InvalidInputError: one of our classes is none of theirs.
    """
    if not ours or not theirs or ours == theirs or features.labels is None:
        return features
    unknown = [name for name in ours if name not in theirs]
    if unknown:
        raise InvalidInputError(
            f"class {unknown[0]!r} of the images is none of: {', '.join(theirs[:10])}",
            hint="name the folders of classes as the reference or the classifier does",
        )
    number = np.asarray([theirs.index(name) for name in ours], dtype=np.int64)
    return replace(features, labels=tuple(number[labels] for labels in features.labels))


def measure(
    plan: Plan, materials: Materials, probes: Mapping[Planned, BuiltProbe], *, notify: Callable[[str], None]
) -> tuple[MetricResult, ...]:
    """Compute every metric of ``plan``, doing once what several of them share.

    Where everything at hand was asked for, what the images cannot give is left out with a note.
    """
    generated = _GeneratedSides(materials)
    references = _ReferenceSides(materials)
    scores = compute_all(
        [(planned.metric, generated.of(planned), references.of(planned)) for planned in plan.metrics],
        left_out=(lambda metric, error: notify(f"left out {metric.name}: {error.message}"))
        if plan.everything
        else None,
        rng=lambda: np.random.Generator(np.random.Philox(stream(0, "metric").integers(2**63))),
    )
    return tuple(
        MetricResult.from_score(
            replace(score, warnings=(*score.warnings, *generated.warnings(planned))),
            metric=_label(plan, planned, materials, probes),
            variant=planned.metric.variant or planned.head,
        )
        for planned, score in zip(plan.metrics, scores, strict=True)
        if score is not None
    )


def _label(plan: Plan, planned: Planned, materials: Materials, probes: Mapping[Planned, BuiltProbe]) -> str:
    if planned.network is None:
        return probes[planned].label
    return plan.label(planned, materials.extractors[planned.network])


class _GeneratedSides:
    """Feature sets by what they hold; metrics that read the same get the same object, and so share work."""

    def __init__(self, materials: Materials) -> None:
        self._materials = materials
        self._made: dict[tuple[object, ...], FeatureSet] = {}
        self._cut: dict[tuple[Network, str], int] = {}

    def of(self, planned: Planned) -> FeatureSet:
        """Return the features that a metric reads, in its jackknife blocks."""
        materials, metric, head = self._materials, planned.metric, planned.head
        if planned.network is None:
            return materials.probes[planned].in_blocks(head, contiguous=True)
        # Independent draws are cut as they come; files at random, but logits keep their order for the splits.
        contiguous = materials.drawn or metric.head == "logits"
        prefix = _prefix(metric) if metric.needs_prompts else None
        names = self._class_names(planned) if metric.needs_labels else ()
        key = (planned.network, head, contiguous, prefix, names)
        if key not in self._made:
            texts = None if prefix is None else self._texts(planned.network, prefix)
            lane = materials.lanes[planned.network]
            made = lane.in_blocks(head, contiguous=contiguous, texts=texts)
            self._made[key] = by_class_names(made, materials.class_names, names)
        return self._made[key]

    def _class_names(self, planned: Planned) -> tuple[str, ...]:
        """Names of the labels that a metric compares with; empty where only their numbers are known."""
        references = self._materials.references
        if planned.network and planned.metric.needs_groups and planned.network in references:
            return references[planned.network].about.class_names
        return planned.metric.class_names

    def _texts(self, network: Network, prefix: str) -> NDArray[np.float32]:
        extractor = self._materials.extractors[network]
        encode = getattr(extractor, "encode_text", None)
        if encode is None:
            raise UsageError(
                f"{extractor.spec.name} reads no text", hint="a CLIP extractor does: clip-score:clip-vit-b-32"
            )
        texts = [prefix + prompt for prompt in self._materials.prompts or ()]
        self._cut[network, prefix] = len(extractor.truncated(texts)) if hasattr(extractor, "truncated") else 0
        features: NDArray[np.float32] = encode(texts)
        return features

    def warnings(self, planned: Planned) -> tuple[str, ...]:
        """Tell of prompts longer than the text encoder reads."""
        if not planned.metric.needs_prompts or planned.network is None:
            return ()
        cut = self._cut.get((planned.network, _prefix(planned.metric)), 0)
        return (f"{cut} prompts are longer than the text encoder reads, and were cut",) if cut else ()


def _prefix(metric: Metric) -> str:
    return str(dict(metric.spec.params).get("prefix") or "")


class _ReferenceSides:
    """References by head; metrics that read the same get the same object."""

    def __init__(self, materials: Materials) -> None:
        self._materials = materials
        self._made: dict[tuple[Network, str], ReferenceFeatures] = {}

    def of(self, planned: Planned) -> ReferenceFeatures | None:
        """Return what a metric compares with."""
        network, materials = planned.network, self._materials
        if network is None or not planned.metric.needs_reference:
            return None
        key = (network, planned.head)
        if key not in self._made:
            dimension = materials.extractors[network].heads[planned.head]
            self._made[key] = materials.references[network].head(planned.head, dimension=dimension)
        return self._made[key]


def protocol_info(
    plan: Plan, subject: Subject, *, materials: Materials, probes: Mapping[Planned, BuiltProbe]
) -> ProtocolInfo:
    """Return every choice that can move a number, and their digest."""
    headline = plan.headline
    reference = materials.references.get(headline)
    lane = materials.lanes.get(headline)
    primary = _primary(plan, materials.extractors, [built.probe for built in probes.values()])
    protocol = EvalProtocol(
        name=plan.preset.name + (FAST_SUFFIX if is_fast(primary) else ""),
        extractor=primary,
        metrics=tuple(
            MeasuredMetric(planned.metric.spec, planned.head, _inputs(plan, planned, materials, probes))
            for planned in plan.metrics
        ),
        num_images=len(subject.source),
        image_size=lane.image_size() if lane else None,
        reference_sha256=reference.sha256 if reference else None,
        reference_count=reference.count if reference else 0,
        numerics_version=numerics.NUMERICS_VERSION,
        seed_scheme=SEED_SCHEME,
        rejected_images=len(subject.rejected),
    )
    return ProtocolInfo(name=protocol.name, fields=protocol.fields(), fingerprint=protocol.fingerprint())


def _primary(plan: Plan, extractors: Mapping[Network, Extractor], probes: Sequence[Probe]) -> Spec:
    return extractors[plan.headline].spec if plan.networks else probes[0].spec


def _inputs(
    plan: Plan, planned: Planned, materials: Materials, probes: Mapping[Planned, BuiltProbe]
) -> dict[str, Any]:
    """What a metric reads that the whole protocol does not."""
    network, metric = planned.network, planned.metric
    if network is None:
        return {"probe": probes[planned].to_json()}
    inputs: dict[str, Any] = {}
    if network != plan.headline:
        inputs["extractor"] = materials.extractors[network].spec.to_json()
        if metric.needs_reference and network in materials.references:
            inputs["reference"] = materials.references[network].sha256
    if metric.needs_held_out and network in materials.held_out:
        inputs["held_out"] = materials.held_out[network].sha256
    if metric.needs_prompts and materials.prompts is not None:
        inputs["prompts"] = sha256_of(list(materials.prompts))
    return inputs
