"""The network of the FID papers: InceptionV3 as TensorFlow released it on 2015-12-05, as a table.

It has torchvision's topology and tensor names, with these differences: 1008 classes, batch norm epsilon
1e-3, average pools that leave the padding out of the count, and a *max* pool in the last block.

Every batch norm is folded into its convolution. Source of the topology: Szegedy et al. 2016, table 1 and
figures 5 to 7; of the differences: the released graph (inception-2015-12-05.tgz).

Accepted trade-offs: the 1x1 convolutions of a block that read the same input are not merged into one, nor
average pools moved behind theirs: measured, neither pays (pools take 2 % of the time, and the parts of a
merged output lie apart in memory).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.extractors.weights import fold_batch_norm

INPUT_SIZE: Final = 299
CLASSES: Final = 1008
SPATIAL_CHANNELS: Final = 7  # of 192; guided-diffusion's evaluator, sFID
_POOLED: Final = 2048
_BN_EPSILON: Final = 1e-3
_SPATIAL_LAYER: Final = "Mixed_6d.branch1x1"  # the graph's mixed_6/conv


@dataclass(frozen=True, slots=True)
class _Shape:
    """One convolution: channels, kernel, stride, padding."""

    out: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


def _same(out: int, width: int, height: int = 1, length: int = 1) -> _Shape:
    return _Shape(out, width, (height, length), padding=(height // 2, length // 2))


def _halving(out: int, width: int) -> _Shape:
    return _Shape(out, width, (3, 3), stride=2)


# A branch is a chain of steps: a convolution's name, a pool's name, or a tuple of convolutions that read
# the same input and are joined. The branches of a block read the same input and are joined in order.
_Step = str | tuple[str, ...]
_Branches = tuple[tuple[_Step, ...], ...]

_POOLS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "average": lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "max-halving": lambda x: F.max_pool2d(x, 3, stride=2),
}


@dataclass(frozen=True, slots=True)
class _Block:
    shapes: Mapping[str, _Shape]
    branches: _Branches


def _block_a(width: int, pool: int) -> _Block:
    shapes = {
        "branch1x1": _same(64, width),
        "branch5x5_1": _same(48, width),
        "branch5x5_2": _same(64, 48, 5, 5),
        "branch3x3dbl_1": _same(64, width),
        "branch3x3dbl_2": _same(96, 64, 3, 3),
        "branch3x3dbl_3": _same(96, 96, 3, 3),
        "branch_pool": _same(pool, width),
    }
    triple = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    branches = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), triple, ("average", "branch_pool"))
    return _Block(shapes, branches)


def _block_b(width: int) -> _Block:
    shapes = {
        "branch3x3": _halving(384, width),
        "branch3x3dbl_1": _same(64, width),
        "branch3x3dbl_2": _same(96, 64, 3, 3),
        "branch3x3dbl_3": _halving(96, 96),
    }
    triple = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return _Block(shapes, (("branch3x3",), triple, ("max-halving",)))


def _block_c(width: int, inner: int) -> _Block:
    shapes = {
        "branch1x1": _same(192, width),
        "branch7x7_1": _same(inner, width),
        "branch7x7_2": _same(inner, inner, 1, 7),
        "branch7x7_3": _same(192, inner, 7, 1),
        "branch7x7dbl_1": _same(inner, width),
        "branch7x7dbl_2": _same(inner, inner, 7, 1),
        "branch7x7dbl_3": _same(inner, inner, 1, 7),
        "branch7x7dbl_4": _same(inner, inner, 7, 1),
        "branch7x7dbl_5": _same(192, inner, 1, 7),
        "branch_pool": _same(192, width),
    }
    single = tuple(f"branch7x7_{step}" for step in (1, 2, 3))
    double = tuple(f"branch7x7dbl_{step}" for step in (1, 2, 3, 4, 5))
    return _Block(shapes, (("branch1x1",), single, double, ("average", "branch_pool")))


def _block_d(width: int) -> _Block:
    shapes = {
        "branch3x3_1": _same(192, width),
        "branch3x3_2": _halving(320, 192),
        "branch7x7x3_1": _same(192, width),
        "branch7x7x3_2": _same(192, 192, 1, 7),
        "branch7x7x3_3": _same(192, 192, 7, 1),
        "branch7x7x3_4": _halving(192, 192),
    }
    seven = tuple(f"branch7x7x3_{step}" for step in (1, 2, 3, 4))
    return _Block(shapes, (("branch3x3_1", "branch3x3_2"), seven, ("max-halving",)))


def _block_e(width: int, pool: str) -> _Block:
    shapes = {
        "branch1x1": _same(320, width),
        "branch3x3_1": _same(384, width),
        "branch3x3_2a": _same(384, 384, 1, 3),
        "branch3x3_2b": _same(384, 384, 3, 1),
        "branch3x3dbl_1": _same(448, width),
        "branch3x3dbl_2": _same(384, 448, 3, 3),
        "branch3x3dbl_3a": _same(384, 384, 1, 3),
        "branch3x3dbl_3b": _same(384, 384, 3, 1),
        "branch_pool": _same(192, width),
    }
    single = ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b"))
    double = ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    return _Block(shapes, (("branch1x1",), single, double, (pool, "branch_pool")))


_STEM: Final[Mapping[str, _Shape]] = {
    "Conv2d_1a_3x3": _halving(32, 3),
    "Conv2d_2a_3x3": _Shape(32, 32, (3, 3)),
    "Conv2d_2b_3x3": _same(64, 32, 3, 3),
    "Conv2d_3b_1x1": _same(80, 64),
    "Conv2d_4a_3x3": _Shape(192, 80, (3, 3)),
}
_BLOCKS: Final[Mapping[str, _Block]] = {
    "Mixed_5b": _block_a(192, 32),
    "Mixed_5c": _block_a(256, 64),
    "Mixed_5d": _block_a(288, 64),
    "Mixed_6a": _block_b(288),
    "Mixed_6b": _block_c(768, 128),
    "Mixed_6c": _block_c(768, 160),
    "Mixed_6d": _block_c(768, 160),
    "Mixed_6e": _block_c(768, 192),
    "Mixed_7a": _block_d(768),
    "Mixed_7b": _block_e(1280, "average"),
    "Mixed_7c": _block_e(2048, "max"),
}
_SHAPES: Final[Mapping[str, _Shape]] = {
    **_STEM,
    **{f"{block}.{name}": shape for block, table in _BLOCKS.items() for name, shape in table.shapes.items()},
}
# What has to run, after the segments before it, for each head; the logits follow "2048".
_SEGMENTS: Final = (
    ("64", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "max-halving")),
    ("192", ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "max-halving")),
    ("spatial", ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c")),
    ("768", ("Mixed_6d", "Mixed_6e")),
    ("2048", ("Mixed_7a", "Mixed_7b", "Mixed_7c")),
)


def expected_layout() -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor that the published files hold, without batch norm counters."""
    layout: dict[str, tuple[int, ...]] = {}
    for name, shape in _SHAPES.items():
        layout[f"{name}.conv.weight"] = (shape.out, shape.width, *shape.kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            layout[f"{name}.bn.{part}"] = (shape.out,)
    return layout | {"fc.weight": (CLASSES, _POOLED), "fc.bias": (CLASSES,)}


@final
class InceptionNetwork:
    """The folded network on one device; ``state`` must have :func:`expected_layout`."""

    def __init__(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self._folded: dict[str, tuple[Tensor, Tensor]] = {}
        for name in _SHAPES:
            weight, bias = fold_batch_norm(
                state, convolution=f"{name}.conv", norm=f"{name}.bn", epsilon=_BN_EPSILON
            )
            self._folded[name] = weight.to(device, memory_format=torch.channels_last), bias.to(device)
        # Read before batch norm and ReLU, so this one layer is also kept unfolded, as far as it is read.
        self._spatial = state[f"{_SPATIAL_LAYER}.conv.weight"][:SPATIAL_CHANNELS].float().to(device)
        self._classifier = state["fc.weight"].float().to(device), state["fc.bias"].float().to(device)

    def __call__(self, x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Map scaled float32 ``[n, 3, 299, 299]`` images to the ``wanted`` heads, and stop at the deepest.

        ``64``, ``192``, ``768``, ``2048``: spatial means. ``spatial``: ``[n, 17 * 17 * 7]``, channels last,
        the order of the TensorFlow evaluator. ``logits_unbiased``, ``logits``: 1008 classes.
        """
        features: dict[str, Tensor] = {}
        remaining = set(wanted)
        x = x.contiguous(memory_format=torch.channels_last)
        for head, steps in _SEGMENTS:
            for step in steps:
                x = self._block(step, x) if step in _BLOCKS else self._step(step, x)
            if head in remaining:
                features[head] = self._spatial_head(x) if head == "spatial" else _mean(x)
                remaining.remove(head)
            if not remaining:
                return features
        weight, bias = self._classifier
        unbiased = F.linear(_mean(x), weight)
        logits = {"logits_unbiased": unbiased, "logits": unbiased + bias}
        return features | {head: logits[head] for head in remaining}

    def _spatial_head(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self._spatial).permute(0, 2, 3, 1).flatten(1)

    def _block(self, name: str, x: Tensor) -> Tensor:
        outputs = []
        for branch in _BLOCKS[name].branches:
            y = x
            for step in branch:
                if isinstance(step, tuple):
                    y = torch.cat([self._step(f"{name}.{part}", y) for part in step], 1)
                else:
                    y = self._step(step if step in _POOLS else f"{name}.{step}", y)
            outputs.append(y)
        return torch.cat(outputs, 1)

    def _step(self, name: str, x: Tensor) -> Tensor:
        if name in _POOLS:
            return _POOLS[name](x)
        shape, (weight, bias) = _SHAPES[name], self._folded[name]
        return F.conv2d(x, weight, bias, stride=shape.stride, padding=shape.padding).relu_()


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), dtype=torch.float32)  # also where the network runs in bfloat16
