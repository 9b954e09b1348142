"""Reading network weights: tensors and plain containers only, every tensor finite, batch norm folded."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from evalkit.errors import CheckpointError, UnsafeCheckpointError

_SHOWN = 10  # names listed in an error before it says "and N more"


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a torch checkpoint that is a flat mapping of names to dense tensors, without running code.

    Raises:
        UnsafeCheckpointError: its pickle asks for anything but tensors and plain containers.
        CheckpointError: it cannot be read, is not such a mapping, or holds NaN or infinity.
    """
    try:
        loaded: object = torch.load(path, weights_only=True, mmap=False, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path.name} cannot be read as a torch checkpoint: {error}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}, not a state dict")
    state: dict[str, Tensor] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path.name}: entry {name!r} is not a named tensor")
        state[name] = _checked(tensor, f"{path.name}: tensor {name!r}")
    return state


def _checked(tensor: Tensor, label: str) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{label} is sparse, quantized or without data")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{label} holds NaN or infinity")
    return tensor.detach()


def _refusal(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    # torch names the global as "GLOBAL os.system was not an allowed global" or "... blocklisted module os".
    found = re.search(r"GLOBAL ([\w.]+)|global [\"'`]?([\w]+\.[\w.]+)|module ([\w.]+)", str(error))
    if found is None:
        return CheckpointError(f"{path.name} is not a whole torch checkpoint: {str(error).splitlines()[0]}")
    name = next(group for group in found.groups() if group)
    return UnsafeCheckpointError(
        f"{path.name} was refused: its pickle asks for {name}",
        hint="only tensors and plain containers are read; save the state dict alone",
    )


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
