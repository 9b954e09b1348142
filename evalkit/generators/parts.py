"""The sub-dictionaries of a file that hold a network's tensors, whatever else lies beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.module_nodes import Node, arguments, state_dict
from evalkit.generators.torch_files import Inert

_AVERAGE, _TRAINED = "ema_model.", "online_model."
"""ema_pytorch (lucidrains) keeps the averaged and the trained network in one dict, with two counters."""
_DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16}
    | {torch.int32, torch.int64, torch.bool}
)
_GAN_ZOO = frozenset({"avgG", "netG"})
"""pytorch_GAN_zoo's networks, whose construction the file describes under ``config``."""
_SHARED = 4
_SLACK = 2**20
_MOST_AXES = 16


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """One state dict of a file.

    Attributes:
        tensors: name -> tensor, as the file names them.
        class_name: class of the network, where the file says so.
        described: what the file says of the network (``config.json``, the GAN zoo's ``config``).
        node: the pickled module it comes from.
    """

    tensors: Mapping[str, Tensor]
    class_name: str | None = None
    described: Mapping[str, object] | None = None
    node: Node | None = None

    @property
    def config(self) -> Mapping[str, object] | None:
        """What the file says of the network: its ``config.json``, or its constructor's arguments."""
        return arguments(self.node) if self.node is not None else self.described

    @property
    def parameter_count(self) -> int:
        """Numbers in its tensors, buffers included."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def find_parts(content: object) -> dict[str, Part]:
    """Return the parts of what a pickle or torch file holds; the whole file is the part called ``""``.

    Parts are named by their key, those of a list by their position (``[model, optimiser, …, average]``).
    """
    if _is_state_dict(content) or isinstance(content, Node):
        return dict(_parts_of("", content))
    found: dict[str, Part] = {}
    for key, value in _entries(content):
        found |= dict(_parts_of(key, value))
    for key in found.keys() & _GAN_ZOO:
        found[key] = replace(found[key], described=_stated(dict(_entries(content)).get("config")))
    return found


def held(content: object) -> dict[str, str]:
    """Return what the file holds by name: ``{"step": "int"}``; for those who ask why there is no part."""
    return {key: _kind(value) for key, value in _entries(content)} or {"": _kind(content)}


def check_dense(part: Part, *, name: str, size: int) -> None:
    """Refuse tensors that are no plain numbers, or claim to be more than ``size`` bytes could hold.

    Raises:
        CheckpointError: a tensor is sparse, quantised, without data, of an unknown type, or too large.
    """
    total = 0
    for key, tensor in part.tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{name}: tensor {key} is sparse, quantised or without data")
        if tensor.ndim > _MOST_AXES:
            raise CheckpointError(f"{name}: tensor {key} has {tensor.ndim} axes, which no known network has")
        if tensor.dtype not in _DTYPES or type(tensor) not in {Tensor, torch.nn.Parameter}:
            raise CheckpointError(f"{name}: tensor {key} is {tensor.dtype}, which no known network has")
        total += tensor.numel() * tensor.element_size()
    if total > _SHARED * size + _SLACK:
        raise CheckpointError(f"{name}: its tensors claim {total} bytes, the file has {size}")


def _parts_of(name: str, value: object) -> Iterator[tuple[str, Part]]:
    if isinstance(value, Node):
        tensors = state_dict(value)
        if tensors:
            yield name, Part(tensors, class_name=value.class_name, node=value)
    elif isinstance(value, Mapping) and _is_state_dict(value):
        averaged = _under(value, _AVERAGE)
        if not averaged:
            yield name, Part(dict(value))
            return
        yield name, Part(averaged)
        if trained := _under(value, _TRAINED):
            yield f"{name}.{_TRAINED}".strip("."), Part(trained)


def _stated(config: object) -> dict[str, object] | None:
    fields = getattr(config, "fields", {}) if isinstance(config, Inert) else config
    if not isinstance(fields, Mapping):
        return None
    return {
        str(key): value
        for key, value in fields.items()
        if value is None or isinstance(value, bool | int | float | str)
    }


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def _entries(content: object) -> Iterator[tuple[str, object]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield key, value
    elif isinstance(content, list | tuple):
        for position, value in enumerate(content):
            yield str(position), value


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _kind(value: object) -> str:
    if isinstance(value, Node):
        return f"{value.class_name} without tensors" if not state_dict(value) else value.class_name
    if isinstance(value, Mapping):
        return f"dict of {len(value)}"
    if isinstance(value, list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return "tensor " + "x".join(map(str, value.shape)) if value.ndim else "tensor"
    return type(value).__name__
