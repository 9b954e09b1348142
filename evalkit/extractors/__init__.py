"""Extractors: fixed networks that map images to named feature vectors.

    extractor = build_extractor("efficientnet-lite0", device="auto")
    features = extractor(images, ["pooled"])["pooled"]  # float32 [n, 1280]

What each one offers is known without torch in :mod:`evalkit.extractors.facts`; a network is imported when
it is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack

from evalkit.errors import UsageError
from evalkit.extractors.facts import FACTS, OPEN_CLIP_PREFIX, Backend, ExtractorFacts, Preset
from evalkit.protocol import Precision
from evalkit.registry import Registry

if TYPE_CHECKING:
    from evalkit.core import Extractor

__all__ = [
    "EXTRACTORS",
    "FACTS",
    "ExtractorFactory",
    "ExtractorFacts",
    "NetworkOptions",
    "Preset",
    "build_extractor",
]


class NetworkOptions(TypedDict):
    """How a network is prepared and run; see :func:`build_extractor`."""

    preset: str | None
    device: str
    backend: Backend
    precision: Precision


class ExtractorFactory(Protocol):
    """Builds an extractor; raises UsageError for an unknown preset or device."""

    def __call__(self, *, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
        """Build with a weights file (None: the published one)."""
        ...


# The names that open_clip and timm give to the published networks.
OPENAI_ARCHITECTURES = {
    "clip-vit-b-32": "ViT-B-32",
    "clip-vit-b-16": "ViT-B-16",
    "clip-vit-l-14": "ViT-L-14",
    "clip-vit-l-14-336": "ViT-L-14-336",
}
DINOV2_ARCHITECTURES = {"dinov2": "vit_large_patch14_dinov2", "dinov2-s": "vit_small_patch14_dinov2"}

EXTRACTORS: Registry[ExtractorFactory] = Registry("extractor")


@EXTRACTORS.register("efficientnet-lite0")
def _efficientnet_lite0(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
    from evalkit.extractors.efficientnet_lite import EfficientNetLite0  # noqa: PLC0415 - heavy import

    return EfficientNetLite0(weights=weights, **options)


@EXTRACTORS.register("inception-v3")
def _inception_v3(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
    from evalkit.extractors.inception import InceptionV3  # noqa: PLC0415 - heavy import

    return InceptionV3(weights=weights, **options)


@EXTRACTORS.register("vgg16")
def _vgg16(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
    from evalkit.extractors.vgg import VGG16  # noqa: PLC0415 - heavy import

    return VGG16(weights=weights, **options)


def _register_openai_clip(name: str, architecture: str) -> None:
    @EXTRACTORS.register(name)
    def build(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
        from evalkit.extractors.clip import OpenClip  # noqa: PLC0415 - heavy import

        return OpenClip(FACTS[name], architecture, quick_gelu=True, weights=weights, **options)


for _name, _architecture in OPENAI_ARCHITECTURES.items():
    _register_openai_clip(_name, _architecture)


def _register_dinov2(name: str, architecture: str) -> None:
    @EXTRACTORS.register(name)
    def build(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
        from evalkit.extractors.dinov2 import DinoV2  # noqa: PLC0415 - heavy import

        return DinoV2(FACTS[name], architecture, weights=weights, **options)


for _name, _architecture in DINOV2_ARCHITECTURES.items():
    _register_dinov2(_name, _architecture)


@EXTRACTORS.register("pixels")
def _pixels(*, weights: Path | None, **options: Unpack[NetworkOptions]) -> Extractor:
    from evalkit.extractors.pixels import Pixels  # noqa: PLC0415 - heavy import

    if options["precision"] != "exact" or options["backend"] not in {"auto", "torch"}:
        raise UsageError("extractor 'pixels' has no network to run faster")
    return Pixels(weights=weights, preset=options["preset"], device=options["device"])


def build_extractor(
    name: str,
    *,
    weights: Path | None = None,
    preset: str | None = None,
    device: str = "cpu",
    backend: Backend = "auto",
    precision: Precision = "exact",
) -> Extractor:
    """Build the extractor registered as ``name``.

    Args:
        name: a key of :data:`EXTRACTORS`, or ``open-clip:ARCH[:TAG]``.
        weights: a weights file instead of the published one.
        preset: how images are prepared (see :class:`Preset`); None is the extractor's default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend: what runs the network; never part of its spec (see :mod:`evalkit.extractors.engine`).
        precision: ``fast`` runs the network in bfloat16 and TF32, on CUDA alone; its spec says so.

    Raises:
        UsageError: unknown name, preset, device or backend, weights for an extractor that has none, or a
            backend or precision that it does not have there.
        CheckpointError: the weights file does not fit.
        OfflineError: published weights must be downloaded and cannot be now.
    """
    options: NetworkOptions = {
        "preset": preset, "device": device, "backend": backend, "precision": precision
    }  # fmt: skip
    if name.startswith(OPEN_CLIP_PREFIX):
        from evalkit.extractors.open_clip_names import build_open_clip  # noqa: PLC0415 - heavy import

        return build_open_clip(name, weights=weights, **options)
    return EXTRACTORS[name](weights=weights, **options)
