"""A model whose report is drawn: its images, their features, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.core import Extractor, IndexArray
from evalkit.errors import EvalkitError, InvalidInputError
from evalkit.extractors import FACTS, build_extractor
from evalkit.metrics.linear_classifier import load_classifier
from evalkit.plan import Network, Plan, make_plan
from evalkit.portrait.reopening import check_same
from evalkit.portrait.request import Run
from evalkit.portrait.work import Work
from evalkit.record import RunRecord
from evalkit.reference_resolution import resolve_reference
from evalkit.references import Reference
from evalkit.references.heads import HeadStatistics
from evalkit.request import ScoreRequest
from evalkit.subject_opening import open_subject
from evalkit.subjects import Subject


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sitter:
    """One model with everything that is looked at.

    Attributes:
        name: unique among those shown.
        head: whose features are looked at, float32 ``[n, d]`` in index order in ``features``.
        labels: int64 ``[n]`` of the images, None where they have none; ``class_names`` of the labels 0..k-1.
        statistics: what the reference knows of the head; None where it is not at hand, for ``missing``.
    """

    name: str
    run: Run
    subject: Subject
    plan: Plan
    extractor: Extractor
    head: str
    features: NDArray[np.float32]
    labels: IndexArray | None
    class_names: tuple[str, ...]
    statistics: HeadStatistics | None
    reference: str
    missing: str = ""

    @property
    def record(self) -> RunRecord:
        """What was measured."""
        return self.run.record

    @property
    def request(self) -> ScoreRequest:
        """How the images are made."""
        return self.run.score

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.features)

    @property
    def bank(self) -> NDArray[np.float32] | None:
        """Features of single real images that the reference keeps, float32 ``[m, d]``."""
        return self.statistics.bank if self.statistics is not None and self.statistics.has_bank else None

    def class_name(self, label: int) -> str:
        """The name of a class, or its number."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"


def open_sitter(run: Run, name: str, work: Work) -> Sitter:
    """Return the model of a record, checked to be the one that was scored.

    Raises:
        InvalidInputError: another checkpoint, other images, another way of sampling, or other features.
        EvalkitError: see :mod:`evalkit.errors`.
    """
    request, record = run.score, run.record
    plan = make_plan(request.protocol, request=request, notify=lambda _text: None)
    subject = open_subject(request, plan, device=work.device, console=work.console)
    check_same(subject, record)
    network = plan.headline
    extractor = build_extractor(
        network.extractor,
        weights=request.weights.get(network.extractor),
        preset=network.preset,
        device=str(work.device),
    )
    _check_extractor(extractor, record)
    head = features_head(plan, network)
    extracted = work.extract(
        subject.source,
        extractor,
        head,
        state=run.state,
        title=f"{'sampling' if subject.generator else 'reading'} {record.model.id}",
        batch_size=request.batch_size,
        strict=request.strict,
    )
    reference, missing = _reference(run, plan, extractor, head, work)
    return Sitter(
        name=name,
        run=run,
        subject=subject,
        plan=plan,
        extractor=extractor,
        head=head,
        features=extracted.features(head),
        labels=extracted.labels(),
        class_names=_class_names(subject, reference),
        statistics=reference.head(head) if reference else None,
        reference=reference.name if reference else "",
        missing=missing,
    )


def features_head(plan: Plan, network: Network) -> str:
    """The head that the Fréchet or kernel distance reads, else the network's own for features."""
    metrics = [planned for planned in plan.of(network) if planned.metric.head == "features"]
    first = [planned.head for planned in metrics if planned.metric.name in {"fd", "kd"}]
    others = [planned.head for planned in metrics]
    return next(iter([*first, *others]), None) or FACTS[network.extractor].head_for("features")


def _check_extractor(extractor: Extractor, record: RunRecord) -> None:
    then: Mapping[str, Any] = record.protocol.fields["extractor"]
    now = extractor.spec.to_json()
    if now != then:
        raise InvalidInputError(
            f"the features of {record.model.id} were made by {then.get('name')} with other weights, or "
            f"another way of reading, than {now['name']} has here",
            hint="the report needs the network of the score: --weights of its command, and the same release",
        )


def _reference(
    run: Run, plan: Plan, extractor: Extractor, head: str, work: Work
) -> tuple[Reference | None, str]:
    """The reference of the score; where it is not at hand, why. A report goes without it."""
    wanted = run.record.data.reference_sha256
    if wanted is None:
        return None, "no metric of the record compares with real images"
    try:
        reference = resolve_reference(
            plan.reference_name(run.score.reference, model=run.score.model),
            extractor=extractor,
            heads=(head,),
            bank_heads=(head,),
            image_options=run.score.image_options,
            state=run.state,
            device=work.device,
            extract_images=work.run,
        )
        _ = reference.head(head)
    except EvalkitError as error:
        if error.exit_code in {130, 143}:
            raise
        return None, f"the reference of the score is not at hand: {error.message}"
    if reference.sha256 != wanted:
        return None, f"the reference {reference.name!r} is not the one of the score any more"
    return reference, ""


def _class_names(subject: Subject, reference: Reference | None) -> tuple[str, ...]:
    """Names of the classes: the images' own, the reference's, or those of CIFAR-10 where it is that."""
    classes = subject.generator.num_classes if subject.generator else 0
    if subject.class_names:
        return subject.class_names
    if reference is None or not classes:
        return ()
    named = reference.about.class_names
    if len(named) == classes:
        return tuple(named)
    return (
        load_classifier("cifar10").classes
        if classes == 10 and reference.dataset.startswith("cifar10")
        else ()
    )
