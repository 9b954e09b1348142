"""Reading network weights: tensors and plain containers only, every tensor finite, batch norm folded."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from evalkit.errors import CheckpointError, UnsafeCheckpointError
from evalkit.pickle_bounds import UnboundedPickleError, check_bounds

_TENSOR_GLOBALS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+"
    r"|torch\.(?:\w+Storage|Size|device|bool|b?float\d+|complex\d+|u?int\d+)"
)
_PICKLE_BYTES = 1 << 26  # of a pickle are searched for the name; tensors' bytes are stored apart from it
_MOST_REPEATED = 1 << 30  # bytes that a tensor may claim of a smaller storage
_SHOWN = 10  # names listed in an error before it says "and N more"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a torch checkpoint that is a flat mapping of names to dense tensors, without running code.

    Raises:
        UnsafeCheckpointError: its pickle asks for anything but tensors and plain containers.
        CheckpointError: it cannot be read, is not such a mapping, or holds NaN or infinity.
    """
    try:
        with warnings.catch_warnings():
            # Of odd pickle protocols and of sparse tensors: both are refused below, with a reason.
            warnings.simplefilter("ignore")
            check_bounds(path)
            loaded: object = torch.load(path, weights_only=True, mmap=False, map_location="cpu")
    except (pickle.UnpicklingError, UnboundedPickleError) as error:
        raise _refusal(path) from error
    except Exception as error:  # a crafted file can raise anything; all of it is bad input
        raise CheckpointError(f"{path.name} cannot be read as a torch checkpoint: {error}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}, not a state dict")
    state: dict[str, Tensor] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path.name}: entry {name!r} is not a named tensor")
        state[name] = _checked(tensor, f"{path.name}: tensor {name!r}")
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a flat mapping of names to dense tensors from a safetensors file or a torch checkpoint.

    Raises:
        UnsafeCheckpointError: a pickle asks for anything but tensors and plain containers.
        CheckpointError: it cannot be read, is not such a mapping, or holds NaN or infinity.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if head[8:9] != b"{":  # what every safetensors header begins with, after its length
        return read_state_dict(path)
    try:
        loaded = load_file(path)
    except Exception as error:  # the library raises several kinds for a crafted header
        raise CheckpointError(f"{path.name} is not a whole safetensors file: {error}") from error
    return {name: _checked(tensor, f"{path.name}: tensor {name!r}") for name, tensor in loaded.items()}


def _checked(tensor: Tensor, label: str) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{label} is sparse, quantized or without data")
    size, stored = tensor.numel() * tensor.element_size(), tensor
    if size > tensor.untyped_storage().nbytes():
        if size > _MOST_REPEATED:
            raise CheckpointError(f"{label} repeats its numbers: looking at all would fill the memory")
        stored = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())  # each number once
    if not bool(torch.isfinite(stored).all()):
        raise CheckpointError(f"{label} holds NaN or infinity")
    return tensor.detach()


def _refusal(path: Path) -> CheckpointError:
    name = _unsafe_global(path)
    if name is None:
        return CheckpointError(f"{path.name} is not a whole torch checkpoint of plain tensors")
    return UnsafeCheckpointError(
        f"{path.name} was refused: its pickle asks for {name}",
        hint="only tensors and plain containers are read; save the state dict alone",
    )


def _unsafe_global(path: Path) -> str | None:
    """Return the first global that the pickle asks for and that no tensor needs. Nothing is executed."""
    strings: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(_pickle_bytes(path)):
            if operation.name == "GLOBAL":
                strings += str(argument).split(" ", 1)
            elif operation.name != "STACK_GLOBAL":
                strings += [argument] if isinstance(argument, str) else []
                continue
            name = ".".join(strings[-2:])
            if not _TENSOR_GLOBALS.fullmatch(name):
                return name
    except Exception:  # noqa: BLE001, S110 - not a pickle, cut short or crafted: there is nothing to name
        pass
    return None


def _pickle_bytes(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(_PICKLE_BYTES)
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in [*archive.namelist(), "data.pkl"] if name.endswith("data.pkl"))
        with archive.open(member) as file:
            return file.read(_PICKLE_BYTES)


def check_layout(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], *, label: str) -> None:
    """Check that ``state`` has exactly the ``expected`` names and shapes.

    Raises:
        CheckpointError: it has not; lists the first ten differences.
    """
    faults = [f"missing {name}" for name in expected if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in expected]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CheckpointError(f"{label} does not fit: " + "; ".join(faults[:_SHOWN]) + more)


def fold_batch_norm(
    state: Mapping[str, Tensor], *, convolution: str, norm: str, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return float32 ``(weight, bias)`` of the one convolution equal to convolution, then batch norm.

    scale = gamma / sqrt(variance + epsilon); weight' = weight * scale; bias' = beta - mean * scale,
    computed in float64 and rounded once.

    Raises:
        CheckpointError: a variance is negative, or the folded weight is not finite.
    """
    gamma, beta, mean, variance = (
        state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    if bool((variance < 0).any()):
        raise CheckpointError(f"tensor '{norm}.running_var' holds negative variances")
    scale = gamma / torch.sqrt(variance + epsilon)
    weight = (state[f"{convolution}.weight"].double() * scale.view(-1, 1, 1, 1)).float()
    bias = (beta - mean * scale).float()
    return _checked(weight, f"folded {convolution}"), _checked(bias, f"folded {norm}")
