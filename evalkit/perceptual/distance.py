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

Accepted trade-offs: no store of reference features lies behind the measure. Where several generated images in
a row have one reference, it goes through the network once for each chunk; a caller with one reference set and
many models keeps :meth:`StageDistance.features` of it. They are 10 (AlexNet) to 160 times (VGG16)
as many bytes as the pixels, too many to be worth a file for all but VGG16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import InvalidInputError
from evalkit.perceptual.chunks import Masks, masked_mean
from evalkit.perceptual.facts import PairMeasureFacts
from evalkit.perceptual.heads import HEADS_SHA256, published_heads
from evalkit.perceptual.networks import StageNetwork, build_stage_network, check_images, in_unit_range
from evalkit.perceptual.passes import measure_stages
from evalkit.runtime import strict_numerics
from evalkit.spec import Scalar, Spec
from evalkit.threads import in_threads, one_thread

Result = TypeVar("Result")
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
        """Return the unit-normalised stages of uint8 images, or of float32 images in [-1, 1].

        Those of 64 x 64 pixels take 2 MB with VGG16, .5 MB with SqueezeNet and .1 MB with AlexNet. Where one
        reference image is compared again and again, keeping them halves the work.

        Raises:
            UsageError: another dtype.
            InvalidInputError: not ``[n, 3, h, w]``, too small, or not finite.
        """
        with strict_numerics():
            parts = list(self._in_parts(self._features, images))
        with one_thread():
            return [torch.cat(stage) if len(stage) > 1 else stage[0] for stage in zip(*parts, strict=True)]

    def between(self, generated: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Return float64 ``[n]`` distances of two lots of :meth:`features`, on the device."""
        with strict_numerics(), one_thread():
            pairs = zip(generated, reference, strict=True)
            return _total([self._map(number, *pair) for number, pair in enumerate(pairs)])

    def distance(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Return float64 ``[n]`` distances, on the device, of float32 images in [-1, 1] (or uint8).

        Nothing is quantised or clipped. On an accelerator all images go through the network at once.

        Raises:
            UsageError: another dtype.
            InvalidInputError: shapes differ, are not ``[n, 3, h, w]`` or too small, or not finite.
        """
        if generated.shape != reference.shape:
            raise InvalidInputError(
                f"images {list(generated.shape)} and {list(reference.shape)} must have one shape"
            )
        with strict_numerics():
            return torch.cat(list(self._in_parts(self._distance, generated, reference)))

    def _in_parts(self, run: Callable[..., Result], *sides: Tensor) -> Iterator[Result]:
        """Yield ``run`` of the same few images of each side; on a CPU the parts run side by side."""
        for side in sides:
            check_images(side)
        count, _, height, width = sides[0].shape
        step = max(count, 1)
        if self.device.type == "cpu":  # equal shares of the threads, of as many images as pairs of two sides
            threads = torch.get_num_threads()
            rounds = -(-step // (2 * self.network.pairs_at_once(height, width) * threads))
            step = -(-step // (rounds * threads))

        def run_part(start: int) -> Result:
            with torch.inference_mode():  # a mode of the thread, so it is entered in each worker
                parts = (side[start : start + step].to(self.device) for side in sides)
                return run(*(in_unit_range(part) for part in parts))

        return in_threads(run_part, range(0, max(count, 1), step))

    def _features(self, images: Tensor) -> list[Tensor]:
        return [_unit_normalised(stage) for stage in self.network.stages(images)]

    def _distance(self, generated: Tensor, reference: Tensor) -> Tensor:
        pairs = zip(self._features(generated), self._features(reference), strict=True)
        return _total([self._map(number, *pair) for number, pair in enumerate(pairs)])

    def _maps(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Weighted squared differences of each stage, whose second half belongs to the reference images."""
        return [self._map(number, *_unit_normalised(stage).chunk(2)) for number, stage in enumerate(stages)]

    def _map(self, stage: int, generated: Tensor, reference: Tensor) -> Tensor:
        """Weighted squared differences of one stage, ``[n, 1, h', w']``."""
        squares = (generated - reference).square_()
        if self._heads is not None:
            squares.mul_(self._heads[stage].to(squares.dtype).view(-1, 1, 1))
        return squares.sum(1, keepdim=True)

    def compare(self, stages: Sequence[Tensor], masks: Masks, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the distances from stages; see :class:`~evalkit.perceptual.passes.StageMeasure`."""
        maps = self._maps(stages)
        values = {self._name: _total(maps)}
        if not masks:
            return values
        upsampled = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in maps]
        whole = _float64(torch.stack(upsampled)).sum(0)
        return values | {f"{self._name}/{region}": masked_mean(whole, mask) for region, mask in masks.items()}


def _unit_normalised(stage: Tensor) -> Tensor:
    return stage / stage.square().sum(1, keepdim=True).sqrt_().add_(_EPSILON)


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
