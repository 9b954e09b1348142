"""Measures of how alike two images are: PSNR, SSIM, MS-SSIM, LPIPS, perceptual and style distance.

    measure = build_pair_measure("ssim", weights={}, device="cpu")
    values = measure(generated, reference, masks={"inside": mask})  # {"ssim": [n], "ssim/inside": [n]}

Every measure is one entry of :data:`PAIR_MEASURES`, known without torch; its code is imported when it is
built. Those that read a network are also an :class:`ImageDistance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from evalkit.perceptual.facts import PAIR_MEASURES, PairMeasureFacts
from evalkit.registry import import_object

if TYPE_CHECKING:
    from torch import Tensor

    from evalkit.perceptual.networks import StageNetwork
    from evalkit.spec import Spec

__all__ = [
    "PAIR_MEASURES",
    "ImageDistance",
    "PairMeasure",
    "PairMeasureFactory",
    "PairMeasureFacts",
    "StageMeasureFactory",
    "build_pair_measure",
    "build_pair_measures",
]


@runtime_checkable
class PairMeasure(Protocol):
    """A measure of image pairs; a value depends on its own pair alone."""

    @property
    def spec(self) -> Spec:
        """Kind ``pair-measure``, name, digest of the weights, and every parameter that moves a value."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What it returns, for example ``("ssim",)``."""
        ...

    def __call__(
        self, generated: Tensor, reference: Tensor, *, masks: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Compare pairs of uint8 ``[n, 3, h, w]`` images.

        Args:
            generated: images on any device.
            reference: as many, of the same size.
            masks: bool ``[n, 1, h, w]`` for each region, True inside.

        Returns:
            float64 ``[n]`` on the CPU for each name, and as ``f"{name}/{region}"`` for each region; NaN for
            a pair whose region holds no pixel that the measure reads.

        Raises:
            UsageError: images are not uint8 or masks not bool.
            InvalidInputError: shapes differ or are too small.
        """
        ...


@runtime_checkable
class ImageDistance(PairMeasure, Protocol):
    """A measure that compares the stages of a network, also of images that were never quantised."""

    @property
    def published(self) -> bool:
        """Whether the weights are the ones that the measure's name stands for."""
        ...

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Return what is compared, one tensor a stage, to be kept for :meth:`between`.

        ``images`` are uint8 in 0..255 or float32 in [-1, 1], ``[n, 3, h, w]``.
        """
        ...

    def between(self, generated: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Return float64 ``[n]`` distances of two lots of :meth:`features`."""
        ...

    def distance(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Return float64 ``[n]`` distances of float32 images in [-1, 1] (or uint8), not quantised."""
        ...


class PairMeasureFactory(Protocol):
    """Builds a measure from its facts."""

    def __call__(self, facts: PairMeasureFacts, *, weights: Path | None, device: str) -> PairMeasure:
        """Build with a weights file (None: the published one) and a device."""
        ...


class StageMeasureFactory(Protocol):
    """Builds a measure that reads a network, from its facts."""

    def __call__(
        self, facts: PairMeasureFacts, *, weights: Path | None, device: str, network: StageNetwork | None
    ) -> PairMeasure:
        """Build on ``network``, or where that is None with a weights file and a device."""
        ...


def build_pair_measures(
    names: Sequence[str], *, weights: Mapping[str, Path], device: str
) -> tuple[PairMeasure, ...]:
    """Build the measures registered as ``names``; those with the same weights hold one network object.

    Arguments and errors are those of :func:`build_pair_measure`.
    """
    from evalkit.perceptual.networks import build_stage_network  # noqa: PLC0415 - loads torch

    networks: dict[tuple[str, Path | None], StageNetwork] = {}
    built = []
    for facts in map(PAIR_MEASURES.__getitem__, names):
        if facts.network is None:
            built.append(build_pair_measure(facts.name, weights=weights, device=device))
            continue
        given = weights.get(facts.name, weights.get(facts.network))
        key = facts.network, given
        if key not in networks:
            networks[key] = build_stage_network(facts.network, weights=given, device=device)
        factory = cast("StageMeasureFactory", import_object(facts.factory))
        built.append(factory(facts, weights=given, device=device, network=networks[key]))
    return tuple(built)


def build_pair_measure(name: str, *, weights: Mapping[str, Path], device: str) -> PairMeasure:
    """Build the measure registered as ``name``.

    Args:
        name: a key of :data:`PAIR_MEASURES`.
        weights: weights files by the name of a measure (``lpips-alex``) or of its network (``alexnet``);
            those of other measures are left alone, and what is absent is the published file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UsageError: unknown name or device.
        CheckpointError: the weights file does not fit.
        OfflineError: published weights must be downloaded and cannot be now.
    """
    facts = PAIR_MEASURES[name]
    factory = cast("PairMeasureFactory", import_object(facts.factory))
    given = weights.get(name, weights.get(facts.network or ""))
    return factory(facts, weights=given, device=device)
