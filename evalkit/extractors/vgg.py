"""`vgg16`: the 4096-d ``fc2`` features of precision and recall (Kynkäänniemi et al. 2019), with open weights.

    extractor = VGG16(device="cuda")
    features = extractor(images, ["fc2"])["fc2"]  # float32 [n, 4096], after the second ReLU

The paper's network is NVIDIA's TensorFlow port of the original Caffe weights (``vgg16.pkl``), which is not
published in an open format. This one holds torchvision's ImageNet weights, as most reimplementations do:
the same topology, trained anew, other features. The digest in the fingerprint says which weights they
were, and numbers from the two networks do not compare.

Presets: ``default``, antialiased bicubic to 224x224; ``bilinear``, without antialias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.asset_catalogue import ASSETS
from evalkit.digests import file_sha256
from evalkit.extractors.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGG16_TOPOLOGY,
    Backbone,
    backbone_file,
)
from evalkit.extractors.engine import Engine, device_for, precision_params
from evalkit.extractors.facts import VGG_16, Backend
from evalkit.extractors.forward import run_in_chunks
from evalkit.extractors.resizers import RESIZERS
from evalkit.extractors.weights import check_layout, read_state_dict
from evalkit.protocol import Precision
from evalkit.spec import Spec

INPUT_SIZE: Final = 224
_FC2: Final = 4096
_CLASSES: Final = 1000
_LAST_GRID: Final = 7  # pixels on a side that the first linear layer reads
_LINEAR: Final = {
    "classifier.0": (_FC2, 512 * _LAST_GRID**2),
    "classifier.3": (_FC2, _FC2),
    "classifier.6": (_CLASSES, _FC2),
}


def expected_layout() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of torchvision's VGG16 state dict, in its order (32)."""
    layout = VGG16_TOPOLOGY.layout()
    for key, shape in _LINEAR.items():
        layout |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    return layout


@final
class VGG16:
    """The extractor; see the module's docstring.

    Args:
        weights: a state dict of torchvision's layout; None gets the published file.
        preset: how images are prepared; None is ``default``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend, precision: see :class:`~evalkit.extractors.engine.Engine`; torch is the only backend.

    Raises:
        UsageError: no such preset or device.
        UnsafeCheckpointError: the file's pickle asks for anything but tensors and plain containers.
        CheckpointError: it does not have the layout, or holds NaN or infinity.
        OfflineError: the published file must be downloaded and cannot be now.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        preset: str | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        precision: Precision = "exact",
    ) -> None:
        _, self._preset = VGG_16.preset(preset)
        self._resize = RESIZERS[self._preset.resizer]
        self.device: Final = device_for(str(device), precision)
        self._precision = precision
        path = backbone_file(VGG16_TOPOLOGY.name, weights)
        state = read_state_dict(path)
        check_layout(state, expected_layout(), label=path.name)
        self.weights_sha256: Final = file_sha256(path)
        self._convolutions = Backbone(VGG16_TOPOLOGY, state, device=self.device)
        self._linear = [
            (state[f"{key}.weight"].float().to(self.device), state[f"{key}.bias"].float().to(self.device))
            for key in _LINEAR
        ]
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.engine: Final = Engine(
            self._network,
            self._prepared,
            device=self.device,
            backend=backend,
            precision=precision,
            runtimes=(),
        )

    @property
    def published(self) -> bool:
        """Whether the weights are torchvision's."""
        return self.weights_sha256 == ASSETS[VGG16_TOPOLOGY.name].asset.sha256

    @property
    def spec(self) -> Spec:
        """Name, resizer, input scaling and the SHA-256 of the weights file."""
        return Spec.of(
            "extractor",
            VGG_16.name,
            sha256=self.weights_sha256,
            resizer=self._preset.resizer,
            offset=self._preset.offset,
            divisor=self._preset.divisor,
            normalisation="imagenet",
            size=INPUT_SIZE,
            **precision_params(self._precision),
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(VGG_16.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images,
            heads,
            facts=VGG_16,
            device=self.device,
            chunk=self.engine.chunk,
            forward=self.engine,
        )

    def _prepared(self, images: Tensor) -> Tensor:
        pixels = (self._resize(images, INPUT_SIZE) - self._preset.offset) / self._preset.divisor
        return (pixels - self._mean) / self._std

    def _network(self, pixels: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        last = self._convolutions.stages(pixels.contiguous(memory_format=torch.channels_last))[-1]
        x = F.max_pool2d(last, 2, stride=2).flatten(1)
        first, second, classifier = self._linear
        fc2 = F.linear(F.linear(x, *first).relu_(), *second).relu_()
        features: dict[str, Tensor] = {}
        if "fc2" in wanted:
            features["fc2"] = fc2
        if "logits" in wanted:
            features["logits"] = F.linear(fc2, *classifier)
        return features
