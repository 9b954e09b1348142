"""The graph that is written while a network runs on nothing computes what torch computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalkit.extractors.onnx_bytes import _varint, constant, node, value
from evalkit.extractors.onnx_graph import INPUT, Network, UnknownLayerError, onnx_model

onnxruntime = pytest.importorskip("onnxruntime")
GENERATOR = torch.Generator().manual_seed(7)
Layer = Callable[[Tensor], Tensor]


def weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


KERNEL, WIDE, DEPTHWISE = weight(6, 3, 3, 3), weight(4, 3, 1, 5), weight(3, 1, 3, 3)
POINTWISE, BIAS, MATRIX, OFFSET = weight(5, 3, 1, 1), weight(6), weight(7, 3), weight(7)
LAYERS: Mapping[str, Layer] = {
    "convolution, stride 2": lambda x: F.conv2d(x, KERNEL, BIAS, stride=2, padding=1),
    "convolution without bias, oblong": lambda x: F.conv2d(x, WIDE, padding=(0, 2)),
    "depthwise convolution": lambda x: F.conv2d(x, DEPTHWISE, None, padding=1, groups=3),
    "channels last, relu": lambda x: F.conv2d(
        x.contiguous(memory_format=torch.channels_last), KERNEL
    ).relu_(),
    "clamp": lambda x: F.conv2d(x, POINTWISE).clamp_(0.0, 6.0),
    "average pool, padding not counted": lambda x: F.avg_pool2d(
        x, 3, stride=1, padding=1, count_include_pad=False
    ),
    "average pool, padding counted": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "max pool": lambda x: F.max_pool2d(x, 3, stride=2),
    "max pool, rounded up": lambda x: F.max_pool2d(x, 3, stride=2, ceil_mode=True),
    "concatenation": lambda x: torch.cat([x, F.conv2d(x, POINTWISE), x], 1),
    "concatenation, counted from the end": lambda x: torch.cat([F.conv2d(x, POINTWISE), x], dim=-3),
    "residual": lambda x: F.conv2d(x, DEPTHWISE, padding=1, groups=3).add_(x),
    "classifier": lambda x: F.linear(x.mean((2, 3)), MATRIX, OFFSET),
    "classifier, bias apart": lambda x: F.linear(x.mean((2, 3), dtype=torch.float32), MATRIX) + OFFSET,
    "channels-last rows": lambda x: F.conv2d(x, POINTWISE).permute(0, 2, 3, 1).flatten(1),
}


def by_onnxruntime(model: bytes, x: Tensor) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {INPUT: x.numpy()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=5, deadline=None)
@given(n=st.integers(1, 3), height=st.integers(5, 12), width=st.integers(5, 12))
def test_every_layer_means_what_torch_means(name: str, n: int, height: int, width: int) -> None:
    def network(x: Tensor, _wanted: frozenset[str]) -> dict[str, Tensor]:
        return {"y": LAYERS[name](x)}

    x = torch.randn(n, 3, height, width)
    model = onnx_model(network, frozenset({"y"}), shape=(3, "height", "width"))
    found, expected = by_onnxruntime(model, x)["y"], network(x.clone(), frozenset())["y"]
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_only_the_wanted_heads_are_written() -> None:
    def network(x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        out = {"shallow": x.mean((2, 3))}
        if "deep" in wanted:
            out["deep"] = F.linear(out["shallow"], MATRIX)
        return {head: out[head] for head in wanted}

    x = torch.rand(2, 3, 4, 4)
    small, both = (
        onnx_model(network, frozenset(heads), shape=(3, 4, 4)) for heads in (["shallow"], ["shallow", "deep"])
    )
    assert list(by_onnxruntime(small, x)) == ["shallow"]
    assert sorted(by_onnxruntime(both, x)) == ["deep", "shallow"]
    assert len(both) > len(small) + MATRIX.nbytes


UNKNOWN: Mapping[str, Network] = {
    "softmax": lambda x, _: {"y": F.softmax(x, 1)},
    "Symbol": lambda x, _: {"y": x.sigmoid()},  # 'Symbol' object has no attribute 'sigmoid'
    "mean over the axes": lambda x, _: {"y": x.mean((1, 2))},
    "flattening": lambda x, _: {"y": x.flatten(2)},
    "max_pool2d_with_indices": lambda x, _: {"y": F.max_pool2d(x, 2, stride=2, return_indices=True)[0]},
    "dilation": lambda x, _: {"y": F.conv2d(x, KERNEL, dilation=2)},
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_has_no_counterpart_is_refused(what: str) -> None:
    with pytest.raises(UnknownLayerError, match=what):
        onnx_model(UNKNOWN[what], frozenset({"y"}), shape=(3, 8, 8))


def test_weights_are_not_copied_on_the_way() -> None:
    array = weight(64, 64).numpy()
    pieces = constant("w", array)
    (content,) = (piece for piece in pieces if len(piece) == array.nbytes)
    assert isinstance(content, memoryview)
    assert bytes(content) == array.tobytes()


def test_the_bytes_are_those_of_the_format() -> None:
    # github.com/protocolbuffers/protobuf, "Encoding": 150 is 96 01, and -1 is ten bytes.
    assert _varint(150) == bytes([0x96, 0x01])
    assert _varint(-1) == b"\xff" * 9 + b"\x01"
    onnx = pytest.importorskip("onnx")
    read = onnx.NodeProto.FromString(b"".join(node("Conv", ["x", "w"], "y", {"pads": (1, 2), "group": 3})))
    expected = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 2], group=3)
    assert read.op_type == "Conv"
    assert (list(read.input), list(read.output)) == (["x", "w"], ["y"])
    assert list(read.attribute) == sorted(expected.attribute, key=lambda a: a.name, reverse=True)
    info = onnx.ValueInfoProto.FromString(b"".join(value("x", ["n", 3])))
    assert info == onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
