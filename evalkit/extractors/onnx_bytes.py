"""The bytes of an ONNX model: the few messages of the format that a convolutional network needs.

    model = model_bytes(nodes=[node("Relu", ["x"], "y")], constants=[], inputs=[value("x", ["n", 3])],
                        outputs=[value("y", None)])

An ONNX file is a protocol buffer. Its wire format is a run of fields, each a tag and either a varint, four
bytes, or a length and that many bytes; nested messages are such bytes again. Field numbers and enumeration
values: ``onnx.proto`` of github.com/onnx/onnx.

Accepted trade-offs: the package ``onnx`` would write the same, at 31 MB installed and a start-up of its own;
the tests read the result with the runtime itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Attribute = int | Sequence[int]
Message = list[bytes | memoryview]
"""Bytes in pieces, joined once at the end: weights are not copied at every level of nesting."""

_IR_VERSION: Final = 8
_OPSET: Final = 17
_ELEMENT_TYPES: Final = {"float32": 1, "int64": 7}
_FLOAT: Final = 1


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1  # negative numbers are written as their 64-bit complement
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _integer(field: int, number: int) -> Message:
    return [_varint(field << 3) + _varint(number)]


def _bytes(field: int, content: str | bytes | memoryview | Message) -> Message:
    pieces: Message = content if isinstance(content, list) else [_encoded(content)]
    return [_varint(field << 3 | 2) + _varint(sum(map(len, pieces))), *pieces]


def _encoded(content: str | bytes | memoryview) -> bytes | memoryview:
    return content.encode() if isinstance(content, str) else content


def _joined(messages: Iterable[Message]) -> Message:
    return [piece for message in messages for piece in message]


def constant(name: str, array: NDArray[np.generic]) -> Message:
    """Return a TensorProto: a named float32 or int64 array."""
    shape = _joined(_integer(1, length) for length in array.shape)
    content = (
        memoryview(array.reshape(-1).view(np.uint8).data) if array.flags.c_contiguous else array.tobytes()
    )
    return [
        *shape,
        *_integer(2, _ELEMENT_TYPES[array.dtype.name]),
        *_bytes(8, name),
        *_bytes(9, content),
    ]


def node(
    operation: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute] | None = None
) -> Message:
    """Return a NodeProto: one operation with one output; attributes are integers or lists of them."""
    return [
        *_joined(_bytes(1, name) for name in inputs),
        *_bytes(2, output),
        *_bytes(4, operation),
        *_joined(_bytes(5, _attribute(name, value)) for name, value in (attributes or {}).items()),
    ]


def _attribute(name: str, value: Attribute) -> Message:
    if isinstance(value, int):
        return [*_bytes(1, name), *_integer(3, value), *_integer(20, 2)]
    return [*_bytes(1, name), *_joined(_integer(8, part) for part in value), *_integer(20, 7)]


def value(name: str, shape: Sequence[int | str] | None) -> Message:
    """Return a ValueInfoProto: a float32 tensor; names stand for free lengths, None for a free shape."""
    tensor = _integer(1, _FLOAT)
    if shape is not None:
        lengths = [_integer(1, part) if isinstance(part, int) else _bytes(2, part) for part in shape]
        tensor += _bytes(2, _joined(_bytes(1, length) for length in lengths))
    return [*_bytes(1, name), *_bytes(2, _bytes(1, tensor))]


def model_bytes(
    *,
    nodes: Sequence[Message],
    constants: Sequence[Message],
    inputs: Sequence[Message],
    outputs: Sequence[Message],
) -> bytes:
    """Return a ModelProto: one graph, its nodes in the order in which they can run."""
    graph = [
        *_joined(_bytes(1, part) for part in nodes),
        *_bytes(2, "network"),
        *_joined(_bytes(5, part) for part in constants),
        *_joined(_bytes(11, part) for part in inputs),
        *_joined(_bytes(12, part) for part in outputs),
    ]
    opset = [*_bytes(1, ""), *_integer(2, _OPSET)]
    return b"".join([*_integer(1, _IR_VERSION), *_bytes(7, graph), *_bytes(8, opset)])
