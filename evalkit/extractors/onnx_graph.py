"""A network of torch as an ONNX model: run once on a tensor that is not there, written down as it goes.

    model = onnx_model(network, frozenset({"pooled"}), shape=(3, 224, 224))  # bytes; outputs are the heads

The network is a plain function of a tensor. It is called with a :class:`Symbol`, which does no arithmetic:
torch hands each function that meets one over to it, and it writes the ONNX operation of the same meaning.
So the code that torch runs is the only description of a network. A layer that is not known here raises, and
whoever asked goes on with torch.

Accepted trade-offs: ``torch.onnx`` knows every layer, but needs two more packages and takes seconds, where
this takes a tenth of one. Operations that write into their input (``relu_``) become ones that do not: a
network must not read a tensor again that it has overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.extractors.onnx_bytes import Attribute, Message, constant, model_bytes, node, value

Network = Callable[[Tensor, frozenset[str]], Mapping[str, Tensor]]
"""Prepared float32 ``[n, 3, h, w]`` images and the wanted heads -> one tensor for each."""

INPUT: Final = "images"
_Pair = int | Sequence[int]


class UnknownLayerError(Exception):
    """The network does something that has no counterpart here."""


def onnx_model(network: Network, wanted: frozenset[str], *, shape: Sequence[int | str]) -> bytes:
    """Return the model that maps :data:`INPUT`, float32 ``[n, *shape]``, to the heads of these names.

    A name in ``shape`` stands for a length that may vary.

    Raises:
        UnknownLayerError: the network has a layer that is not known here.
    """
    graph = _Graph()
    try:
        heads = network(cast(Tensor, Symbol(graph, INPUT)), wanted)
    except (AttributeError, TypeError) as error:  # a method or an argument that Symbol does not have
        raise UnknownLayerError(str(error)) from error
    for head, symbol in heads.items():
        graph.nodes.append(node("Identity", [graph.name_of(symbol)], head))
    return model_bytes(
        nodes=graph.nodes,
        constants=graph.constants,
        inputs=[value(INPUT, ["n", *shape])],
        outputs=[value(head, None) for head in heads],
    )


@final
class _Graph:
    """What has been written so far."""

    def __init__(self) -> None:
        self.nodes: list[Message] = []
        self.constants: list[Message] = []

    def name_of(self, x: Symbol | Tensor | float) -> str:
        """Return the name of a result, or of a constant, which is added."""
        if isinstance(x, Symbol):
            return x.name
        name = f"constant_{len(self.constants)}"
        array = x.detach().cpu().contiguous().numpy() if isinstance(x, Tensor) else np.array(x, np.float32)
        self.constants.append(constant(name, array))
        return name

    def add(self, operation: str, *inputs: Symbol | Tensor | float, **attributes: Attribute) -> Symbol:
        names = [self.name_of(x) for x in inputs]
        output = f"result_{len(self.nodes)}"
        self.nodes.append(node(operation, names, output, attributes))
        return Symbol(self, output)


@final
class Symbol:
    """A tensor that is not there; what is done with it is written into the graph."""

    def __init__(self, graph: _Graph, name: str) -> None:
        self.graph, self.name = graph, name

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Symbol:
        """Write what a function of torch would do; its first argument is a symbol or a list of them."""
        if function not in _FUNCTIONS:
            raise UnknownLayerError(f"{getattr(function, '__name__', function)} is not known")
        return _FUNCTIONS[function](*args, **(kwargs or {}))

    def __add__(self, other: Symbol | Tensor) -> Symbol:
        return self.graph.add("Add", self, other)

    add_ = __add__

    def relu_(self) -> Symbol:
        """max(x, 0)."""
        return self.graph.add("Relu", self)

    def clamp_(self, least: float, most: float) -> Symbol:
        """Between two numbers."""
        return self.graph.add("Clip", self, least, most)

    def contiguous(self, **_layout: object) -> Symbol:
        """The layout is the runtime's own."""
        return self

    def mean(self, axes: tuple[int, ...], **_dtype: object) -> Symbol:
        """Spatial mean."""
        if axes != (2, 3):
            raise UnknownLayerError(f"a mean over the axes {axes} is not known")
        return self.graph.add("GlobalAveragePool", self).flatten(1)

    def flatten(self, start: int) -> Symbol:
        """One row for each image."""
        if start != 1:
            raise UnknownLayerError(f"flattening from axis {start} is not known")
        return self.graph.add("Flatten", self, axis=1)

    def permute(self, *axes: int) -> Symbol:
        """Axes in another order."""
        return self.graph.add("Transpose", self, perm=axes)


def _two(size: _Pair) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _convolution(
    x: Symbol,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: _Pair = 1,
    padding: _Pair = 0,
    groups: int = 1,
) -> Symbol:
    return x.graph.add(
        "Conv", x, weight, *([] if bias is None else [bias]), kernel_shape=tuple(weight.shape[2:]),
        strides=_two(stride), pads=_two(padding) * 2, group=groups,
    )  # fmt: skip


def _average_pool(
    x: Symbol, size: _Pair, *, stride: _Pair, padding: _Pair = 0, count_include_pad: bool = True
) -> Symbol:
    return x.graph.add(
        "AveragePool", x, kernel_shape=_two(size), strides=_two(stride), pads=_two(padding) * 2,
        count_include_pad=int(count_include_pad),
    )  # fmt: skip


def _max_pool(
    x: Symbol,
    size: _Pair,
    *,
    stride: _Pair,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Symbol:
    if return_indices:
        raise UnknownLayerError("the positions of a max pool are not known")
    return x.graph.add(
        "MaxPool", x, kernel_shape=_two(size), strides=_two(stride), pads=_two(padding) * 2,
        dilations=_two(dilation), ceil_mode=int(ceil_mode),
    )  # fmt: skip


def _concatenation(parts: Sequence[Symbol], dim: int = 0) -> Symbol:
    return parts[0].graph.add("Concat", *parts, axis=dim)


def _linear(x: Symbol, weight: Tensor, bias: Tensor | None = None) -> Symbol:
    return x.graph.add("Gemm", x, weight, *([] if bias is None else [bias]), transB=1)


_FUNCTIONS: Final[Mapping[Any, Callable[..., Symbol]]] = {
    F.conv2d: _convolution,
    F.avg_pool2d: _average_pool,
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,  # what F.max_pool2d hands over in some releases
    torch.cat: _concatenation,
    F.linear: _linear,
}
