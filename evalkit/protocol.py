"""Protocols: every choice that can move a number, and the fingerprint over all of them. No torch.

A :class:`Preset` is what a user asks for by name; an :class:`EvalProtocol` is what was really used. Two
scores compare only within one fingerprint.

Accepted trade-offs: the fingerprint holds how images are *measured*, and the rule by which evalkit draws
seeds and labels; what the images *are* (checkpoint, sampler, steps, quantisation of the network's output)
is the subject, recorded beside it. So a folder of somebody's samples ranks with evalkit's own generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalkit.errors import UsageError
from evalkit.registry import Registry, did_you_mean
from evalkit.spec import Scalar, Spec, sha256_of

FINGERPRINT_VERSION = 1
LABEL_RULE = "balanced by index"
DTYPE_POLICY = "float32 features, TF32 and autocast off, float64 statistics"


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """A metric to compute: its registered name, the head it reads, and its parameters."""

    metric: str
    head: str
    params: tuple[tuple[str, Scalar], ...] = ()


@dataclass(frozen=True, slots=True)
class Preset:
    """A named protocol.

    Attributes:
        extractor: registered extractor; ``extractor_preset`` how it prepares images (None: its default).
        num_images: generated images it asks for.
        metrics: what is computed when the user names no metrics, headline first.
    """

    name: str
    title: str
    extractor: str
    num_images: int
    metrics: tuple[MetricRequest, ...]
    extractor_preset: str | None = None

    def select(self, names: tuple[str, ...]) -> tuple[MetricRequest, ...]:
        """Return the requests for ``names`` (``fd``, or ``fd@pooled`` for another head), all where empty.

        Raises:
            UsageError: a name is not one of the protocol's metrics.
        """
        if not names:
            return self.metrics
        known = {request.metric: request for request in self.metrics}
        chosen = []
        for name in names:
            metric, _, head = name.partition("@")
            metric = self._canonical(metric, known)
            request = known[metric]
            chosen.append(MetricRequest(metric, head or request.head, request.params))
        return tuple(dict.fromkeys(chosen))

    def _canonical(self, metric: str, known: Mapping[str, MetricRequest]) -> str:
        inception_name = {"fid": "fd", "kid": "kd"}.get(metric, "")
        if inception_name in known:
            if self.extractor == "inception-v3":
                return inception_name
            raise UsageError(
                f"{metric!r} is the name only with the real InceptionV3; protocol {self.name!r} uses "
                f"{self.extractor}",
                hint=f"ask for {inception_name!r}, or add --protocol standard",
            )
        if metric not in known:
            raise UsageError(
                f"protocol {self.name!r} has no metric {metric!r}", hint=did_you_mean(metric, known)
            )
        return metric


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """What was really used; :meth:`fields` is the identity and :meth:`fingerprint` its digest."""

    name: str
    extractor: Spec
    metrics: tuple[tuple[Spec, str], ...]
    num_images: int
    image_size: tuple[int, int] | None
    reference_sha256: str | None
    reference_count: int
    numerics_version: str
    seed_scheme: str
    rejected_images: int = 0
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """Return everything that can move a number, as JSON data; the preset's name is not part of it."""
        return {
            "fingerprint_version": FINGERPRINT_VERSION,
            "numerics_version": self.numerics_version,
            "extractor": self.extractor.to_json(),
            "metrics": [{**spec.to_json(), "head": head} for spec, head in sorted_metrics(self.metrics)],
            "num_images": self.num_images,
            "image_size": list(self.image_size) if self.image_size else None,
            "rejected_images": self.rejected_images,
            "reference": {"sha256": self.reference_sha256, "count": self.reference_count},
            "seed_scheme": self.seed_scheme,
            "labels": LABEL_RULE,
            "dtype_policy": DTYPE_POLICY,
            **dict(self.extra),
        }

    def fingerprint(self) -> str:
        """Return the SHA-256 of :meth:`fields` as canonical JSON."""
        return sha256_of(self.fields())


def sorted_metrics(metrics: tuple[tuple[Spec, str], ...]) -> list[tuple[Spec, str]]:
    """Return metrics in a fixed order, so that the order in which they were asked for does not matter."""
    return sorted(metrics, key=lambda pair: (pair[0].name, pair[1], pair[0].params))


def metric_label(
    *, metric: str, head: str, extractor: str, preset: str | None, sha256: str, published: bool
) -> str:
    """Return the printed name: ``fid`` only with the published InceptionV3 at its own head and resize.

    Any other extractor, weights, preset or head says so: ``fd:efficientnet-lite0``,
    ``fd:inception-v3@1a2b3c4d``, ``fid:clean-fid``, ``fd:inception-v3/192``.
    """
    if extractor != "inception-v3" or not published:
        suffix = extractor if published else f"{extractor}@{sha256[:8]}"
        return f"{metric}:{suffix}"
    tool = "" if preset in {None, "fid", "adm"} else f":{preset}"
    if (metric, head) == ("fd", "spatial"):
        return f"sfid{tool}"
    usual = {"is": "logits_unbiased"}.get(metric, "2048")
    if head != usual:
        return f"{metric}:inception-v3/{head}"
    return {"fd": "fid", "kd": "kid"}.get(metric, metric) + tool


PROTOCOLS: Registry[Preset] = Registry("protocol")


def _inception(name: str, title: str, *, metrics: tuple[MetricRequest, ...], preset: str) -> Preset:
    return Preset(
        name=name,
        title=title,
        extractor="inception-v3",
        extractor_preset=preset,
        num_images=50_000,
        metrics=metrics,
    )


def _neighbours(head: str, *names: str, **params: Scalar) -> tuple[MetricRequest, ...]:
    return tuple(MetricRequest(name, head, tuple(sorted(params.items()))) for name in names)


# Files often lie in the order of their classes, which would empty the splits of meaning; 2020 is the
# published seed of torch-fidelity. The ADM evaluator does not shuffle.
_SHUFFLED = (("shuffle_seed", 2020),)
_ALL_NEIGHBOURS = ("precision", "recall", "density", "coverage")
_FID = MetricRequest("fd", "2048")
_KID = MetricRequest("kd", "2048", (("subset_size", 1000), ("subsets", 100)))

for _preset in (
    _inception(
        "standard",
        "FID as published: InceptionV3, TF1 resize, 50 000 images; KID, IS, precision and recall",
        preset="fid",
        metrics=(
            _FID,
            _KID,
            MetricRequest("is", "logits_unbiased", _SHUFFLED),
            *_neighbours("2048", *_ALL_NEIGHBOURS),
        ),
    ),
    Preset(
        name="embedded",
        title="offline default: EfficientNet-Lite0 features that ship with evalkit, 1 024 images",
        extractor="efficientnet-lite0",
        num_images=1024,
        metrics=(
            MetricRequest("fd", "block"),
            MetricRequest("kd", "block"),
            MetricRequest("is", "logits", _SHUFFLED),
            *_neighbours("block", *_ALL_NEIGHBOURS),
        ),
    ),
    Preset(
        name="pixels",
        title="no network: averaged pixels, 256 images; to try a pipeline in seconds, never to judge a model",
        extractor="pixels",
        num_images=256,
        metrics=(
            MetricRequest("fd", "thumbnail"),
            MetricRequest("kd", "thumbnail"),
            MetricRequest("is", "logits", _SHUFFLED),
            *_neighbours("thumbnail", *_ALL_NEIGHBOURS),
        ),
    ),
    _inception(
        "pytorch-fid",
        "the numbers of pytorch-fid: its resize and scaling",
        preset="pytorch-fid",
        metrics=(_FID,),
    ),
    _inception(
        "clean-fid",
        "the numbers of clean-fid: Pillow bicubic resize in float",
        preset="clean-fid",
        metrics=(_FID, _KID),
    ),
    _inception(
        "adm",
        "the ADM evaluator: FID, sFID, IS in chunks of 5 000, precision and recall",
        preset="adm",
        metrics=(
            _FID,
            MetricRequest("fd", "spatial"),
            MetricRequest("is", "logits_unbiased", (("chunk_size", 5000),)),
            *_neighbours("2048", "precision", "recall"),
        ),
    ),
):
    PROTOCOLS.register(_preset.name)(_preset)
