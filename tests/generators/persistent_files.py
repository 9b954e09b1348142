"""Pickles as NVIDIA's code writes them: persistent classes with embedded source, EasyDict, ModuleDict."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

SOURCE = "import os\nos.system('touch {target}')\n"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the real reader would compile the source here")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class EasyDict(dict):
    __module__ = "dnnlib.util"


class Persistent(nn.Module):
    """A module that pickles itself as the decorator of torch_utils.persistence does."""

    public_name = "Generator"
    source = SOURCE

    def __init__(self, *arguments, **keywords):
        super().__init__()
        self._init_args = arguments
        self._init_kwargs = EasyDict(keywords)

    def __reduce__(self):
        fields = super().__reduce__()
        meta = EasyDict(
            type="class", version=6, module_src=self.source, class_name=self.public_name, state=fields[2]
        )
        return (_reconstruct_persistent_obj, (meta,), None)


class Layer(Persistent):
    public_name = "FullyConnectedLayer"

    def __init__(self, width):
        super().__init__(width, activation="linear")
        self.weight = nn.Parameter(torch.randn(width, width))
        self.register_buffer("filter", torch.arange(4.0))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.bias = None


class Network(Persistent):
    def __init__(self, width=3, **keywords):
        super().__init__(width=width, **keywords)
        self.enc = nn.ModuleDict({"8x8_conv": Layer(width), "4x4": Layer(width)})
        self.out = Layer(width)
        self.out.weight.data = self.out.weight.data.t()  # strides that are not the usual ones


@contextmanager
def writer_modules() -> Iterator[None]:
    """Make the names importable while a pickle is written, and only then."""
    fakes = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": types.ModuleType("torch_utils.persistence"),
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": types.ModuleType("dnnlib.util"),
    }
    fakes["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    fakes["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name in fakes:
            del sys.modules[name]


def dumps(content: object, protocol: int) -> bytes:
    """Return the bytes of a pickle."""
    buffer = io.BytesIO()
    with writer_modules():
        pickle.Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def write(path: Path, content: object, protocol: int = 4) -> Path:
    """Write a pickle and return where."""
    path.write_bytes(dumps(content, protocol))
    return path
