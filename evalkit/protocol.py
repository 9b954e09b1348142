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
from typing import Any, Literal

from evalkit.registry import Registry
from evalkit.spec import Scalar, Spec, canonical_json, sha256_of

Precision = Literal["exact", "fast"]

FINGERPRINT_VERSION = 1
LABEL_RULE = "balanced by index"
DTYPE_POLICY = "float32 features, TF32 and autocast off, float64 statistics"
FAST_POLICY = "bfloat16 and TF32 networks, float64 statistics"
FAST_SUFFIX = ":fast"
"""Ends the names of a protocol and of its metrics where the networks ran with ``--precision fast``."""


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """A metric to compute: its registered name, the head it reads, and its parameters.

    Attributes:
        extractor: registered extractor; empty for the protocol's own.
        preset: how that extractor prepares images; None is its default.
        label: printed name where the published one is not made of its parts (``cmmd``).
    """

    metric: str
    head: str
    params: tuple[tuple[str, Scalar], ...] = ()
    extractor: str = ""
    preset: str | None = None
    label: str = ""


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


@dataclass(frozen=True, slots=True)
class MeasuredMetric:
    """One metric as it was really computed; ``inputs`` names what it read beside the protocol's own.

    ``inputs`` holds the specs and digests of another extractor, another reference, a held-out reference,
    a list of prompts or a probe; empty for a metric that reads what the whole protocol reads.
    """

    spec: Spec
    head: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the metric as plain JSON data."""
        return {**self.spec.to_json(), "head": self.head, **dict(self.inputs)}


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """What was really used; :meth:`fields` is the identity and :meth:`fingerprint` its digest."""

    name: str
    extractor: Spec
    metrics: tuple[MeasuredMetric, ...]
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
            "metrics": [metric.to_json() for metric in sorted(self.metrics, key=_order)],
            "num_images": self.num_images,
            "image_size": list(self.image_size) if self.image_size else None,
            "rejected_images": self.rejected_images,
            "reference": {"sha256": self.reference_sha256, "count": self.reference_count},
            "seed_scheme": self.seed_scheme,
            "labels": LABEL_RULE,
            "dtype_policy": FAST_POLICY if is_fast(self.extractor) else DTYPE_POLICY,
            **dict(self.extra),
        }

    def fingerprint(self) -> str:
        """Return the SHA-256 of :meth:`fields` as canonical JSON."""
        return sha256_of(self.fields())


def is_fast(extractor: Spec) -> bool:
    """Return whether an extractor trades digits for speed; its spec, and so every fingerprint, says so."""
    return dict(extractor.params).get("precision") == "fast"


def _order(metric: MeasuredMetric) -> tuple[str, str, str]:
    """A fixed order, so that the order in which metrics were asked for does not matter."""
    return metric.spec.name, metric.head, canonical_json([metric.spec.params, dict(metric.inputs)])


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
