"""The probes that a plan needs, built for its generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from evalkit.core import Generator, LatentGenerator, Metric, Probe
from evalkit.errors import OfflineError, UsageError
from evalkit.metrics.path_length import PerceptualPathLength
from evalkit.perceptual import ImageDistance, build_pair_measure
from evalkit.plan import OFFLINE_DISTANCE, Plan, Planned, extractor_of_attributes
from evalkit.probes import load_attributes, path_probe, separability_probe
from evalkit.probes.latents import require_latents
from evalkit.request import ScoreRequest
from evalkit.spec import Spec
from evalkit.subjects import Subject

PUBLISHED_DISTANCE = "lpips-vgg"


@dataclass(frozen=True, slots=True, eq=False)
class BuiltProbe:
    """A probe, and what it measures with.

    Attributes:
        network: spec of the distance or of the attribute classifiers, with the digest of its weights.
        label: printed name of the metric.
    """

    probe: Probe
    network: Spec
    label: str

    def to_json(self) -> dict[str, Any]:
        """Return how the rows are made, as JSON data: the model and its seed are the subject, not this."""
        spec = self.probe.spec
        params = {name: value for name, value in spec.params if name != "seed"}
        return {"kind": spec.kind, "name": spec.name, "params": params, "network": self.network.to_json()}


def with_probes(
    plan: Plan,
    subject: Subject,
    *,
    request: ScoreRequest,
    device: torch.device,
    notify: Callable[[str], None],
) -> tuple[Plan, Mapping[Planned, BuiltProbe]]:
    """Return the plan with the parameters that its probes settle, and a probe for each probed metric.

    Raises:
        UsageError: a metric was named that the subject cannot give, for example without a latent space.
        OfflineError: the distance's weights must be downloaded and cannot be now.
    """
    kept: list[Planned] = []
    probes: dict[Planned, BuiltProbe] = {}
    for planned in plan.metrics:
        if planned.network is not None:
            kept.append(planned)
            continue
        try:
            metric, built = _build(
                planned, subject, request=request, device=device, plan_is_explicit=plan.explicit
            )
        except (UsageError, OfflineError) as error:
            if plan.explicit:
                raise
            notify(f"left out {planned.metric.name}: {error.message}")
            continue
        settled = replace(planned, metric=metric)
        kept.append(settled)
        probes[settled] = built
    return replace(plan, metrics=tuple(kept)), probes


def _build(
    planned: Planned, subject: Subject, *, request: ScoreRequest, device: torch.device, plan_is_explicit: bool
) -> tuple[Metric, BuiltProbe]:
    if subject.generator is None:
        raise UsageError(
            f"{planned.metric.name} walks through a model's latent space; images have none",
            hint="--model NAME",
        )
    if not plan_is_explicit and isinstance(planned.metric, PerceptualPathLength):
        planned = replace(planned, metric=_in_a_space_at_hand(planned.metric, subject.generator))
    make = _paths if planned.metric.reads == "paths" else _latents
    return make(planned, subject.generator, request=request, device=device)


def _paths(
    planned: Planned, generator: Generator, *, request: ScoreRequest, device: torch.device
) -> tuple[Metric, BuiltProbe]:
    name = planned.via or PUBLISHED_DISTANCE
    metric = planned.metric
    if not isinstance(metric, PerceptualPathLength):
        raise UsageError(f"{metric.name} is no path length")
    _check_space(metric, generator)  # before half a gigabyte of weights is asked for
    try:
        distance = build_pair_measure(name, weights=request.weights, device=str(device))
    except OfflineError as error:
        raise OfflineError(
            error.message, hint=f"{error.hint}; or ask for {planned.metric.name}:{OFFLINE_DISTANCE}"
        ) from error
    if not isinstance(distance, ImageDistance):
        raise UsageError(f"{name} cannot compare images that were never quantised", hint="LPIPS and PD can")
    probe = path_probe(
        generator,
        seed=request.seed,
        distance=distance,
        space=metric.space,
        sampling=metric.sampling,
        epsilon=metric.epsilon,
        crop=metric.crop,
        interpolation=metric.interpolation,
    )
    digest = "" if distance.published else f"@{(distance.spec.sha256 or '')[:8]}"
    suffix = "" if name == PUBLISHED_DISTANCE and not digest else f":{name}{digest}"
    return planned.metric, BuiltProbe(probe, distance.spec, f"{planned.metric.name}{suffix}")


def _check_space(metric: PerceptualPathLength, generator: Generator) -> None:
    try:
        require_latents(generator, spaces=(metric.space,), metric="the perceptual path length")
    except UsageError as error:
        spaces = getattr(generator, "spaces", ())
        hint = f"--param {metric.name}.space={spaces[0]}" if spaces else error.hint
        raise UsageError(error.message, hint=hint) from error


def _in_a_space_at_hand(metric: PerceptualPathLength, generator: Generator) -> PerceptualPathLength:
    """Where everything was asked for, a generator without w is measured in z."""
    spaces = generator.spaces if isinstance(generator, LatentGenerator) else ()
    return metric if not spaces or metric.space in spaces else replace(metric, space=spaces[0])


def _latents(
    planned: Planned, generator: Generator, *, request: ScoreRequest, device: torch.device
) -> tuple[Metric, BuiltProbe]:
    if request.attributes is None:
        raise UsageError(
            f"{planned.metric.name} needs attribute classifiers",
            hint="--attributes pkg.mod:make, or a file of tensors",
        )
    attributes = load_attributes(
        request.attributes,
        names=request.attribute_names,
        device=str(device),
        weights=request.weights.get(extractor_of_attributes(request.attributes)),
    )
    probe = separability_probe(generator, seed=request.seed, attributes=attributes)
    metric = planned.metric
    metric = type(metric)(**{**dict(metric.spec.params), "attributes": len(attributes.names)})
    return metric, BuiltProbe(probe, attributes.spec, metric.name)
