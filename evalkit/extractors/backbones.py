"""AlexNet, VGG16 and SqueezeNet 1.1 as tables, cut into the stages that LPIPS reads.

    network = Backbone(VGG16_TOPOLOGY, state, device=torch.device("cpu"))
    relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 = network.stages((x - IMAGENET_MEAN) / IMAGENET_STD)

Tensor names and shapes are torchvision's, so that its published files fit. Every convolution is followed
by a ReLU. Sources: Krizhevsky 2014 (AlexNet, one tower), Simonyan and Zisserman 2015 (configuration D),
Iandola et al. 2016 (release 1.1); the stages: Zhang et al. 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.asset_catalogue import ASSETS
from evalkit.assets import fetch
from evalkit.errors import InvalidInputError
from evalkit.extractors.weights import check_layout, read_state_dict

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # of images in 0..1; torchvision's training recipe
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with bias, then ReLU; ``key`` is its name in the state dict."""

    key: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Fire:
    """SqueezeNet's module: 1x1 ``squeeze``, then 1x1 and 3x3 convolutions of it, joined."""

    squeeze: Convolution
    expand: tuple[Convolution, Convolution]


@dataclass(frozen=True, slots=True)
class Pool:
    """A max pool of stride 2."""

    size: int
    ceil: bool = False


Step = Convolution | Fire | Pool


@dataclass(frozen=True, slots=True)
class Topology:
    """A network without its classifier.

    Attributes:
        name: torchvision's name, a key of :data:`~evalkit.asset_catalogue.ASSETS`.
        stages: steps up to each stage's output.
        stage_names: what papers call the outputs.
        minimum_size: least height and width with a last stage of at least one pixel.
    """

    name: str
    stages: tuple[tuple[Step, ...], ...]
    stage_names: tuple[str, ...]
    minimum_size: int

    def convolutions(self) -> Iterator[Convolution]:
        """Yield every convolution in the order of the state dict."""
        for stage in self.stages:
            for step in stage:
                if isinstance(step, Convolution):
                    yield step
                elif isinstance(step, Fire):
                    yield from (step.squeeze, *step.expand)

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor."""
        expected: dict[str, tuple[int, ...]] = {}
        for convolution in self.convolutions():
            expected[f"{convolution.key}.weight"] = convolution.shape
            expected[f"{convolution.key}.bias"] = convolution.shape[:1]
        return expected


def _convolution(index: int, width: int, out: int, kernel: int = 3, stride: int = 1) -> Convolution:
    padding = {11: 2, 5: 2, 3: 1}[kernel]
    return Convolution(f"features.{index}", (out, width, kernel, kernel), stride, padding)


def _fire(index: int, width: int, squeezed: int, expanded: int) -> Fire:
    key = f"features.{index}"
    return Fire(
        Convolution(f"{key}.squeeze", (squeezed, width, 1, 1)),
        (
            Convolution(f"{key}.expand1x1", (expanded, squeezed, 1, 1)),
            Convolution(f"{key}.expand3x3", (expanded, squeezed, 3, 3), padding=1),
        ),
    )


ALEXNET_TOPOLOGY: Final = Topology(
    "alexnet",
    (
        (_convolution(0, 3, 64, kernel=11, stride=4),),
        (Pool(3), _convolution(3, 64, 192, kernel=5)),
        (Pool(3), _convolution(6, 192, 384)),
        (_convolution(8, 384, 256),),
        (_convolution(10, 256, 256),),
    ),
    ("relu1", "relu2", "relu3", "relu4", "relu5"),
    minimum_size=31,
)
VGG16_TOPOLOGY: Final = Topology(
    "vgg16",
    (
        (_convolution(0, 3, 64), _convolution(2, 64, 64)),
        (Pool(2), _convolution(5, 64, 128), _convolution(7, 128, 128)),
        (Pool(2), _convolution(10, 128, 256), _convolution(12, 256, 256), _convolution(14, 256, 256)),
        (Pool(2), _convolution(17, 256, 512), _convolution(19, 512, 512), _convolution(21, 512, 512)),
        (Pool(2), _convolution(24, 512, 512), _convolution(26, 512, 512), _convolution(28, 512, 512)),
    ),
    ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    minimum_size=16,
)
SQUEEZENET_TOPOLOGY: Final = Topology(
    "squeezenet1_1",
    (
        (Convolution("features.0", (64, 3, 3, 3), stride=2),),
        (Pool(3, ceil=True), _fire(3, 64, 16, 64), _fire(4, 128, 16, 64)),
        (Pool(3, ceil=True), _fire(6, 128, 32, 128), _fire(7, 256, 32, 128)),
        (Pool(3, ceil=True), _fire(9, 256, 48, 192)),
        (_fire(10, 384, 48, 192),),
        (_fire(11, 384, 64, 256),),
        (_fire(12, 512, 64, 256),),
    ),
    ("relu1", "fire4", "fire7", "fire9", "fire10", "fire11", "fire12"),
    minimum_size=17,
)
TOPOLOGIES: Final[Mapping[str, Topology]] = {
    topology.name: topology for topology in (ALEXNET_TOPOLOGY, VGG16_TOPOLOGY, SQUEEZENET_TOPOLOGY)
}


def backbone_file(name: str, weights: Path | None) -> Path:
    """Return the weights file of a network: the given one, or the published one from the cache.

    Raises:
        OfflineError: the published file must be downloaded and cannot be now.
        InvalidInputError: the cached file or the download has another hash.
    """
    return fetch(ASSETS[name].asset) if weights is None else weights


def read_backbone(topology: Topology, path: Path) -> dict[str, Tensor]:
    """Read the convolutions of a torchvision state dict; its classifier, which no stage needs, is dropped.

    Raises:
        UnsafeCheckpointError: the file's pickle asks for anything but tensors and plain containers.
        CheckpointError: it does not have the layout, or holds NaN or infinity.
    """
    state = read_state_dict(path)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    check_layout(kept, topology.layout(), label=path.name)
    return kept


@final
class Backbone:
    """The network of a topology.

    Args:
        topology: its table.
        state: the tensors of ``topology.layout()``.
        device: where it runs.
        dtype: float32, or float64 for checks of accuracy.
        packed: keep the weights a second time in the order that the CPU's convolutions want, where those
            are oneDNN's and float32: 1.3 times as fast where few or small images meet many weights.
    """

    def __init__(
        self,
        topology: Topology,
        state: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        packed: bool = False,
    ) -> None:
        self._topology = topology
        self._tensors = {
            name: state[name].to(device=device, dtype=dtype, copy=True) for name in topology.layout()
        }
        can_pack = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
        self._packs = packed and can_pack
        self._packed: dict[str, Tensor] | None = None

    def stages(self, x: Tensor) -> list[Tensor]:
        """Map normalised images ``[n, 3, h, w]`` to the stages' outputs ``[n, c, h', w']``, each at least 0.

        Raises:
            InvalidInputError: the images are smaller than ``minimum_size``.
        """
        least = self._topology.minimum_size
        if min(x.shape[-2:]) < least:
            raise InvalidInputError(
                f"{self._topology.name} needs images of at least {least}x{least} pixels, "
                f"not {x.shape[-2]}x{x.shape[-1]}"
            )
        if not self._packs or not len(x):
            return self._walk(x, self._tensors)
        if self._packed is None:
            self._packed = self._packed_tensors()
        return [stage.to_dense() for stage in self._walk(x.to_mkldnn(), self._packed)]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the packed weights, which only this process can read: they are packed again there."""
        return {**self.__dict__, "_packed": None}

    def _packed_tensors(self) -> dict[str, Tensor]:
        packed = {name: tensor.to_mkldnn() for name, tensor in self._tensors.items()}
        for layer in self._topology.convolutions():
            key = f"{layer.key}.weight"
            packed[key] = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                packed[key], [layer.padding] * 2, [layer.stride] * 2, [1, 1], 1
            )
        return packed

    def _walk(self, x: Tensor, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = []
        for stage in self._topology.stages:
            for step in stage:
                x = _applied(step, x, tensors)
            outputs.append(x)
        return outputs


def _applied(step: Step, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    if isinstance(step, Pool):
        return F.max_pool2d(x, step.size, stride=2, ceil_mode=step.ceil)
    if isinstance(step, Convolution):
        return _convolved(step, x, tensors)
    squeezed = _convolved(step.squeeze, x, tensors)
    return torch.cat([_convolved(branch, squeezed, tensors) for branch in step.expand], dim=1)


def _convolved(layer: Convolution, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    weight, bias = tensors[f"{layer.key}.weight"], tensors[f"{layer.key}.bias"]
    return F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding).relu_()
