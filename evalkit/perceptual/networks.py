"""Networks whose stages are compared: a backbone at the images' own size, or the embedded extractor.

    network = build_stage_network("vgg16", weights=None, device="cpu")
    maps = network.stages(images)  # float32 [n, c, h', w'], shallowest first

Images enter as float32 in [-1, 1] (or as uint8, which is brought there). The ImageNet mean and standard
deviation on that scale are LPIPS's shift and scale: 2 * .485 - 1 = -.030, 2 * .229 = .458.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, final

import torch
from torch import Tensor

from evalkit.asset_catalogue import ASSETS
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, UsageError
from evalkit.extractors.backbones import TOPOLOGIES, Backbone, backbone_file, read_backbone
from evalkit.extractors.efficientnet_lite import EfficientNetLite0
from evalkit.runtime import resolve_device
from evalkit.spec import Scalar

# Zhang et al. 2018, release 0.1: ImageNet's mean and standard deviation for images in [-1, 1].
SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
_HALF_RANGE: Final = 127.5
# A pass over few small images spends its time on bringing the weights into the order that the processor's
# convolutions want; one over many large ones, on memory.
_PASS_PIXELS: Final = 2**15
_LEAST_PAIRS, _MOST_PAIRS = 2, 8
# Of AlexNet, whose stages are small beside its weights.
_MOST_ALEXNET_PAIRS = 16


class StageNetwork(Protocol):
    """A network that shows its stages."""

    device: torch.device

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""
        ...

    @property
    def published(self) -> bool:
        """Whether the weights are those that its name stands for."""
        ...

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """Everything else that moves a stage."""
        ...

    def pairs_at_once(self, height: int, width: int) -> int:
        """Return how many pairs of this size one thread of a CPU takes through it together."""
        ...

    def stages(self, images: Tensor) -> list[Tensor]:
        """Map float32 ``[n, 3, h, w]`` images in [-1, 1] on its device to maps ``[n, c, h', w']``."""
        ...


def check_images(images: Tensor) -> None:
    """Refuse what :func:`in_unit_range` cannot map, but for the values.

    Raises:
        UsageError: neither uint8 nor float32 nor float64.
        InvalidInputError: not ``[n, 3, h, w]``.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InvalidInputError(f"images must be [n, 3, h, w], not {list(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise UsageError(f"images must be uint8 in 0..255 or float32 in [-1, 1], not {images.dtype}")


def in_unit_range(images: Tensor) -> Tensor:
    """Return images as floats in [-1, 1]: uint8 is mapped by x / 127.5 - 1, floats are left as they are.

    Raises:
        UsageError: neither uint8 nor float32 nor float64.
        InvalidInputError: not ``[n, 3, h, w]``, or a float is NaN or infinite.
    """
    check_images(images)
    if images.dtype == torch.uint8:
        return images.float() / _HALF_RANGE - 1
    if not bool(torch.isfinite(images).all()):
        raise InvalidInputError("images hold NaN or infinity", hint="does the generator overflow?")
    return images


@final
class BackboneStages:
    """AlexNet, VGG16 or SqueezeNet 1.1 with ImageNet weights, at the images' own size.

    Args:
        name: a key of ``TOPOLOGIES``.
        weights: a state dict of torchvision's layout; None gets the published file.
        device: where it runs.
        dtype: float32, or float64 for checks of accuracy.
    """

    def __init__(
        self, name: str, *, weights: Path | None, device: str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.device: torch.device = resolve_device(device)
        self._name, self._dtype = name, dtype
        path = backbone_file(name, weights)
        state = read_backbone(TOPOLOGIES[name], path)
        self._sha256 = file_sha256(path)
        # AlexNet has a hundred times as many weights as pixels of 64 x 64; bits stay as they are, or nearly.
        self._network = Backbone(
            TOPOLOGIES[name], state, device=self.device, dtype=dtype, packed=name == "alexnet"
        )
        # On a CPU SqueezeNet is 2.6 times as fast with channels last. AlexNet's 11 x 11 kernels lose by it;
        # VGG16 would gain a tenth, but those kernels add up 4608 products with five times the rounding.
        last = self.device.type == "cpu" and dtype == torch.float32 and name == "squeezenet1_1"
        self._memory_format = torch.channels_last if last else torch.contiguous_format
        self._shift, self._scale = (
            torch.tensor(values, dtype=dtype, device=self.device).view(3, 1, 1) for values in (SHIFT, SCALE)
        )

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return self._sha256

    @property
    def published(self) -> bool:
        """Whether the weights are torchvision's."""
        return self._sha256 == ASSETS[self._name].asset.sha256

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """Network, stages and dtype; there is no resizing."""
        names = ",".join(TOPOLOGIES[self._name].stage_names)
        dtype = str(self._dtype).removeprefix("torch.")
        return {"network": self._name, "stages": names, "resizer": "none", "dtype": dtype}

    def pairs_at_once(self, height: int, width: int) -> int:
        """Return 8 pairs of 64 x 64 pixels, and 2 of 128 x 128 or more; of AlexNet twice as many."""
        if self._name == "alexnet":
            return min(max(2 * _PASS_PIXELS // (height * width), _LEAST_PAIRS), _MOST_ALEXNET_PAIRS)
        return min(max(_PASS_PIXELS // (height * width), _LEAST_PAIRS), _MOST_PAIRS)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Map images in [-1, 1] to the outputs of the stages, each at least 0."""
        normalised = (images.to(self._dtype) - self._shift) / self._scale
        return self._network.stages(normalised.contiguous(memory_format=self._memory_format))


@final
class LiteStages:
    """The embedded EfficientNet-Lite0 with its own resizer; it needs no download.

    Args:
        weights: a state dict of its layout; None reads the bundled one.
        device: where it runs.
    """

    def __init__(self, *, weights: Path | None, device: str) -> None:
        self._extractor = EfficientNetLite0(weights=weights, device=device)
        self.device: torch.device = self._extractor.device

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return self._extractor.weights_sha256

    @property
    def published(self) -> bool:
        """Whether the weights are the released ones."""
        return self._extractor.published

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """The extractor's parameters; the stages are the last block at each resolution."""
        spec = self._extractor.spec
        return {**dict(spec.params), "network": spec.name, "stages": "blocks 0,2,4,10,15", "dtype": "float32"}

    def pairs_at_once(self, height: int, width: int) -> int:  # noqa: ARG002 - it resizes them
        """Return 2: it sees every image at 224 x 224 pixels."""
        return _LEAST_PAIRS

    def stages(self, images: Tensor) -> list[Tensor]:
        """Map images in [-1, 1] to the linear outputs of five blocks."""
        return self._extractor.stages((images.float() + 1) * _HALF_RANGE)


def build_stage_network(name: str, *, weights: Path | None, device: str) -> StageNetwork:
    """Build ``alexnet``, ``vgg16``, ``squeezenet1_1`` or ``efficientnet-lite0``.

    Raises:
        UsageError: no such device.
        CheckpointError: the weights do not fit.
        OfflineError: published weights must be downloaded and cannot be now.
    """
    if name in TOPOLOGIES:
        return BackboneStages(name, weights=weights, device=device)
    return LiteStages(weights=weights, device=device)
