"""LPIPS and perceptual distance: how far apart two images are in the stages of a network.

    lpips = build_pair_measure("lpips-alex", weights={}, device="cpu")
    values = lpips(generated, reference, masks={"inside": mask})
    step = lpips.distance(floats, other_floats)  # float images in [-1, 1], never quantised

    distance = sum over stages of mean over pixels of sum_c w_c (f_c / |f| - g_c / |g|)^2

with the channel norm |f| at each pixel (plus 1e-10). LPIPS v0.1 (Zhang et al. 2018, eq. 1) has the
published weights w; the perceptual distance (PD) has w = 1, on any network's stages.

In a region, each stage's map is first brought to the image's size (bilinear, half-pixel centres, as
``lpips.LPIPS(spatial=True)`` does) and the mean is over the region's pixels. The value of the whole image
is the mean over each stage's own pixels, as published, so that regions do not add up to it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import InvalidInputError
from evalkit.perceptual.chunks import Masks, masked_mean
from evalkit.perceptual.facts import PairMeasureFacts
from evalkit.perceptual.heads import HEADS_SHA256, published_heads
from evalkit.perceptual.networks import StageNetwork, build_stage_network, in_unit_range
from evalkit.perceptual.passes import measure_stages
from evalkit.runtime import strict_numerics
from evalkit.spec import Scalar, Spec

_EPSILON: Final = 1e-10  # added to the norm by the release of LPIPS


@final
class StageDistance:
    """A weighted distance of unit-normalised stages; see the module's docstring.

    Args:
        name: of the value that it returns.
        network: gives the stages.
        minimum_size: least height and width of the images.
        heads: ``[c]`` weights for each stage; None weighs all channels 1.
        parameters: what the spec says beside the network's parameters.
    """

    def __init__(
        self,
        *,
        name: str,
        network: StageNetwork,
        minimum_size: int,
        heads: Sequence[Tensor] | None = None,
        parameters: Mapping[str, Scalar] | None = None,
    ) -> None:
        self._name = name
        self.network: StageNetwork = network
        self.minimum_size: int = minimum_size
        self._heads = None if heads is None else [head.to(network.device) for head in heads]
        self._parameters = dict(parameters or {})
        self.device: Final = network.device

    @property
    def published(self) -> bool:
        """Whether the weights are the ones that the name stands for."""
        return self.network.published

    @property
    def spec(self) -> Spec:
        """Name, network, its weights' digest, and the heads' digest and version."""
        return Spec.of(
            "pair-measure",
            self._name,
            sha256=self.network.sha256,
            normalised="channels",
            **self.network.parameters,
            **self._parameters,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """One value."""
        return (self._name,)

    def __call__(self, generated: Tensor, reference: Tensor, *, masks: Masks) -> Mapping[str, Tensor]:
        """Return float64 distances; see :class:`~evalkit.perceptual.PairMeasure`."""
        return measure_stages([self], generated, reference, masks=masks)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the unit-normalised stages of uint8 images, or of float32 images in [-1, 1]: all at once.

        Raises:
            UsageError: another dtype.
            InvalidInputError: not ``[n, 3, h, w]``, too small, or not finite.
        """
        with strict_numerics():
            return self._normalised(in_unit_range(images).to(self.device))

    def between(self, generated: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Return float64 ``[n]`` distances of two lots of :meth:`features`, on the device."""
        with strict_numerics():
            return _total(self._maps(generated, reference))

    def distance(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Return float64 ``[n]`` distances, on the device, of float32 images in [-1, 1] (or uint8).

        Nothing is quantised or clipped. All images go through the network at once.

        Raises:
            UsageError: another dtype.
            InvalidInputError: shapes differ, are not ``[n, 3, h, w]`` or too small, or not finite.
        """
        if generated.shape != reference.shape:
            raise InvalidInputError(
                f"images {list(generated.shape)} and {list(reference.shape)} must have one shape"
            )
        return self.between(self.features(generated), self.features(reference))

    def _normalised(self, images: Tensor) -> list[Tensor]:
        return _unit_normalised(self.network.stages(images))

    def _maps(self, generated: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Tensor]:
        """Weighted squared differences, ``[n, 1, h', w']`` for each stage."""
        maps = []
        for stage, (f, g) in enumerate(zip(generated, reference, strict=True)):
            squares = (f - g).square()
            if self._heads is not None:
                squares = squares * self._heads[stage].to(squares.dtype).view(-1, 1, 1)
            maps.append(squares.sum(1, keepdim=True))
        return maps

    def compare(self, stages: Sequence[Tensor], masks: Masks, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the distances from stages; see :class:`~evalkit.perceptual.passes.StageMeasure`."""
        halves = [stage.chunk(2) for stage in _unit_normalised(stages)]
        maps = self._maps([half[0] for half in halves], [half[1] for half in halves])
        values = {self._name: _total(maps)}
        if not masks:
            return values
        upsampled = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in maps]
        whole = _float64(torch.stack(upsampled)).sum(0)
        return values | {f"{self._name}/{region}": masked_mean(whole, mask) for region, mask in masks.items()}


def _unit_normalised(stages: Sequence[Tensor]) -> list[Tensor]:
    return [stage / (stage.square().sum(1, keepdim=True).sqrt() + _EPSILON) for stage in stages]


def _float64(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()


def _total(maps: Sequence[Tensor]) -> Tensor:
    """Sum over stages of the mean over pixels, float64 ``[n]``."""
    return torch.stack([_float64(part).mean((1, 2, 3)) for part in maps]).sum(0)


def build_lpips(
    facts: PairMeasureFacts, *, weights: Path | None, device: str, network: StageNetwork | None = None
) -> StageDistance:
    """Build ``lpips-alex``, ``lpips-vgg`` or ``lpips-squeeze``; ``weights`` replace the backbone's."""
    variant = facts.name.removeprefix("lpips-")
    return StageDistance(
        name=facts.name,
        network=network or build_stage_network(str(facts.network), weights=weights, device=device),
        minimum_size=facts.minimum_size,
        heads=published_heads(variant),
        parameters={"version": "0.1", "heads_sha256": HEADS_SHA256[variant]},
    )


def build_distance(
    facts: PairMeasureFacts, *, weights: Path | None, device: str, network: StageNetwork | None = None
) -> StageDistance:
    """Build a perceptual distance, ``pd-NETWORK``, on ``network`` where it is there already."""
    network = network or build_stage_network(str(facts.network), weights=weights, device=device)
    return StageDistance(name=facts.name, network=network, minimum_size=facts.minimum_size)
