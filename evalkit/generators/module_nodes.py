"""Pickled modules as inert data: their class's name, constructor arguments and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from evalkit.errors import CheckpointError
from evalkit.generators.numpy_pickles import PickledArray

_MAX_DEPTH = 64
_MAX_VISITS = 200_000


@dataclass(eq=False, slots=True)
class Node:
    """A pickled object of class ``class_name`` that was never made; ``state`` are its attributes."""

    class_name: str
    state: dict[str, object] = field(default_factory=dict)


def state_dict(node: Node) -> dict[str, Tensor]:
    """Return the tensors of a pickled module under the names that its ``state_dict()`` would have.

    Parameters and persistent buffers, sub-modules in the order in which they were added.

    Raises:
        CheckpointError: the modules are nested without end, or names and tensors are none.
    """
    found: dict[str, Tensor] = {}
    for count, (prefix, module) in enumerate(_modules(node, "", 0)):
        if count > _MAX_VISITS:
            raise CheckpointError("the pickle holds more modules than any network")
        transient = module.state.get("_non_persistent_buffers_set", ())
        hidden = transient if isinstance(transient, set | frozenset | list | tuple) else ()
        for name, tensor in _entries(module, "_parameters"):
            found |= _named(prefix + name, tensor)
        for name, tensor in _entries(module, "_buffers"):
            if name not in hidden:
                found |= _named(prefix + name, tensor)
    return found


def arguments(node: Node) -> dict[str, object]:
    """Return the constructor's keyword arguments as plain data, positional ones under ``_init_args``.

    Raises:
        CheckpointError: an argument is something but numbers, text and plain containers.
    """
    keywords = node.state.get("_init_kwargs", {})
    positional = node.state.get("_init_args", ())
    if not isinstance(keywords, dict) or not isinstance(positional, list | tuple):
        raise CheckpointError(f"the constructor arguments of the pickled {node.class_name} are damaged")
    given = dict(keywords)
    if positional:
        given["_init_args"] = list(positional)
    plain = _Plain(node.class_name).convert(given, 0)
    return plain if isinstance(plain, dict) else {}


class _Plain:
    """Converts constructor arguments, within bounds: what the pickle shares, a copy would multiply."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.visits = 0

    def convert(self, value: object, depth: int) -> object:
        self.visits += 1
        if depth > _MAX_DEPTH or self.visits > _MAX_VISITS:
            raise CheckpointError(f"the constructor arguments of the pickled {self.class_name} have no end")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Mapping):
            return {str(key): self.convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.convert(item, depth + 1) for item in value]
        if isinstance(value, PickledArray) and value.array is not None:
            self.visits += value.array.size
            return self.convert(value.array.tolist() if self.visits <= _MAX_VISITS else None, depth)
        raise CheckpointError(
            f"a constructor argument of the pickled {self.class_name} is no plain data "
            f"but {type(value).__name__}"
        )


def _modules(node: Node, prefix: str, depth: int) -> Iterator[tuple[str, Node]]:
    if depth > _MAX_DEPTH:
        raise CheckpointError("the pickle nests modules without end")
    yield prefix, node
    for name, child in _entries(node, "_modules"):
        if isinstance(child, Node):
            yield from _modules(child, f"{prefix}{name}.", depth + 1)


def _entries(node: Node, kind: str) -> Iterator[tuple[str, object]]:
    held = node.state.get(kind, {})
    if not isinstance(held, dict):
        raise CheckpointError(f"{kind} of the pickled {node.class_name} is no dict")
    for name, value in held.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{kind} of the pickled {node.class_name} has a name that is no text")
        yield name, value


def _named(name: str, value: object) -> dict[str, Tensor]:
    if value is None:
        return {}
    if not isinstance(value, Tensor):
        raise CheckpointError(f"the pickled parameter {name} is no tensor but {type(value).__name__}")
    return {name: value}
