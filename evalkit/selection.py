"""From what a user types after ``--metrics`` to metric requests, and from those to printed names. No torch.

``fd``, ``fd@pooled`` (another head), ``fd:dinov2`` (another extractor), ``fd:dinov2/edm2`` (with the
preparation of another tool), or a published name: ``cmmd``, ``clip-fid``, ``sfid``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalkit.errors import UsageError
from evalkit.extractors.facts import FACTS
from evalkit.protocol import MetricRequest, Preset
from evalkit.registry import did_you_mean
from evalkit.spec import Scalar

INCEPTION = "inception-v3"
FEATURE_ROLES = frozenset({"features", "logits", "spatial"})
"""Roles that heads of extractors play; rows of any other role are made by a probe, or of pairs."""
_INCEPTION_NAMES = {"fid": "fd", "kid": "kd", "mifid": "mifd", "intra-fid": "intra-fd"}
"""Names that are promised only to the real InceptionV3 at its published head."""

NAMED: Mapping[str, MetricRequest] = {
    "clip-score-hessel": MetricRequest(
        "clip-score", "image", extractor="clip-vit-b-32", label="clip-score:hessel"
    ),
    "clip-score-torchmetrics": MetricRequest(
        "clip-score",
        "image",
        (("clamp", "mean"), ("prefix", ""), ("scale", 100.0)),
        "clip-vit-l-14",
        label="clip-score:torchmetrics",
    ),
    "clip-t": MetricRequest(
        "clip-score",
        "image",
        (("clamp", "none"), ("prefix", ""), ("scale", 1.0)),
        "clip-vit-l-14",
        label="clip-t",
    ),
    "precision-vgg16": MetricRequest("precision", "fc2", extractor="vgg16"),
    "recall-vgg16": MetricRequest("recall", "fc2", extractor="vgg16"),
    "sfid": MetricRequest("fd", "spatial", extractor=INCEPTION, preset="adm"),
    "clip-fid": MetricRequest("fd", "image", extractor="clip-vit-b-32", preset="openai", label="clip-fid"),
    "fd-clip": MetricRequest("fd", "image", extractor="clip-vit-l-14"),
    "fd-dinov2": MetricRequest("fd", "cls", extractor="dinov2"),
    "cifar10-accuracy": MetricRequest(
        "accuracy", "pooled", (("classifier", "cifar10"),), "efficientnet-lite0", label="accuracy:cifar10"
    ),
    "cmmd": MetricRequest("cmmd", "image", extractor="clip-vit-l-14-336", preset="cmmd", label="cmmd"),
}
"""Published names that stand for a metric on an extractor of its own."""


def select(
    preset: Preset,
    names: tuple[str, ...],
    *,
    roles: Mapping[str, str],
    params: Mapping[str, Mapping[str, Scalar]],
) -> tuple[MetricRequest, ...]:
    """Return the requests for ``names``, the protocol's own where empty.

    Args:
        preset: the protocol.
        names: what the user typed, one entry a metric.
        roles: role of the head that each registered metric reads.
        params: parameters by metric name, as ``--param kd.subsets=10`` gives them.

    Raises:
        UsageError: an unknown metric, extractor, preset or head, or parameters of a metric not asked for.
    """
    chosen = [_parse(preset, name, roles) for name in names] if names else list(preset.metrics)
    return _with_params(chosen, params)


def select_everything(
    preset: Preset,
    *,
    roles: Mapping[str, str],
    params: Mapping[str, Mapping[str, Scalar]],
    probed: str,
    separable: bool,
) -> tuple[MetricRequest, ...]:
    """Return the protocol's metrics, then every other one that its network or a probe can serve.

    Args:
        preset: the protocol.
        roles: role of the head that each registered metric reads.
        params: parameters by metric name.
        probed: the distance that path lengths measure with.
        separable: whether there are attribute classifiers.

    Raises:
        UsageError: parameters of a metric that is not among them.
    """
    served = {role for role, _ in FACTS[preset.extractor].roles}
    named = {request.metric: request for request in NAMED.values() if request.extractor == preset.extractor}
    others = []
    for name in sorted(set(roles) - {request.metric for request in preset.metrics}):
        if name in named and name not in params:
            others.append(named[name])
        elif roles[name] in served:
            others.append(MetricRequest(name, _own_head(preset, name, roles)))
        elif roles[name] == "distance":
            others.append(MetricRequest(name, "distance", extractor=probed))
        elif separable:
            others.append(MetricRequest(name, roles[name]))
    return _with_params([*preset.metrics, *others], params)


def _with_params(
    chosen: Sequence[MetricRequest], params: Mapping[str, Mapping[str, Scalar]]
) -> tuple[MetricRequest, ...]:
    for metric in params:
        if metric not in {request.metric for request in chosen}:
            raise UsageError(f"--param {metric}.… is not used: {metric!r} is not among the metrics")
    changed = (
        replace(
            request, params=tuple(sorted({**dict(request.params), **params.get(request.metric, {})}.items()))
        )
        for request in chosen
    )
    return tuple(dict.fromkeys(changed))


def _parse(preset: Preset, text: str, roles: Mapping[str, str]) -> MetricRequest:
    name, at, head = text.partition("@")
    name, colon, network = name.partition(":")
    if (at and not head) or (colon and not network):
        raise UsageError(f"metric {text!r} ends too early", hint="METRIC, METRIC@HEAD or METRIC:EXTRACTOR")
    if not network and name in NAMED:
        named = NAMED[name]
        return replace(named, head=head or named.head)
    metric = _canonical(preset, name, network, roles)
    if roles[metric] not in FEATURE_ROLES:  # a probe makes its rows; what follows the colon is its distance
        return MetricRequest(metric, head or roles[metric], extractor=network)
    if network:
        extractor, _, prepared = network.partition("/")
        facts = FACTS[extractor]
        facts.preset(prepared or None)
        own = (extractor, prepared or None) == (preset.extractor, preset.extractor_preset)
        request = MetricRequest(
            metric, "", params=_params(preset, metric),
            extractor="" if own else extractor, preset=None if own else prepared or None,
        )  # fmt: skip
        default = _own_head(preset, metric, roles) if own else facts.head_for(roles[metric])
        return replace(request, head=head or default)
    return MetricRequest(metric, head or _own_head(preset, metric, roles), _params(preset, metric))


def _canonical(preset: Preset, name: str, network: str, roles: Mapping[str, str]) -> str:
    extractor = network.partition("/")[0] or preset.extractor
    if name in _INCEPTION_NAMES:
        if extractor == INCEPTION:
            return _INCEPTION_NAMES[name]
        raise UsageError(
            f"{name!r} is the name only with the real InceptionV3; protocol {preset.name!r} uses {extractor}",
            hint=f"ask for {_INCEPTION_NAMES[name]!r}, or add --protocol standard",
        )
    if name not in roles:
        raise UsageError(f"unknown metric {name!r}", hint=did_you_mean(name, {*roles, *NAMED}))
    return name


def _params(preset: Preset, metric: str) -> tuple[tuple[str, Scalar], ...]:
    return next((request.params for request in preset.metrics if request.metric == metric), ())


def _own_head(preset: Preset, metric: str, roles: Mapping[str, str]) -> str:
    """The head that the protocol uses for this metric or its role, or the extractor's."""
    for request in preset.metrics:
        if request.metric == metric and not request.extractor:
            return request.head
    role = roles[metric]
    for request in preset.metrics:
        if roles.get(request.metric) == role and not request.extractor:
            return request.head
    return FACTS[preset.extractor].head_for(role)


def metric_label(
    *, metric: str, head: str, extractor: str, preset: str | None, sha256: str, published: bool
) -> str:
    """Return the printed name: ``fid`` only with the published InceptionV3 at its own head and resize.

    Any other extractor, weights, preset or head says so: ``fd:efficientnet-lite0``,
    ``fd:inception-v3@1a2b3c4d``, ``fid:clean-fid``, ``fd:inception-v3/192``.
    """
    if extractor != INCEPTION or not published:
        suffix = extractor if published else f"{extractor}@{sha256[:8]}"
        return f"{metric}:{suffix}"
    tool = "" if preset in {None, "fid", "adm"} else f":{preset}"
    if (metric, head) == ("fd", "spatial"):
        return f"sfid{tool}"
    usual = {"is": "logits_unbiased"}.get(metric, "2048")
    if head != usual:
        return f"{metric}:inception-v3/{head}"
    published_names = {own: name for name, own in _INCEPTION_NAMES.items()}
    return {**published_names, "fd-infinity": "fid-infinity"}.get(metric, metric) + tool
