"""Reading and writing checkpoints without ever running code from them.

The project's own format is one safetensors file: fp16 tensors, and in the header the architecture, its
configuration and the training facts. A plain torch file is read by ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evalkit.atomic import write_atomically
from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, UnsafeCheckpointError, UsageError

FORMAT = "evalkit.checkpoint/1"
_SAFETENSORS_SUFFIX = ".safetensors"
_AVERAGED = ("ema", "ema_model", "model_ema", "g_ema")
_CONTAINERS = (*_AVERAGED, "state_dict", "model", "network", "generator")
_LISTED = 10


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors of a checkpoint and what the file says about them.

    Attributes:
        tensors: name -> tensor on the CPU, in the file's own dtype.
        sha256: digest of the file.
        format: ``evalkit`` (safetensors with a header), ``safetensors``, ``torch`` (a state dict),
            ``pickle`` (NVIDIA's persistent classes) or ``folder`` (diffusers).
        architecture: registered model name, where the file says so.
        config: what the file says of the network: evalkit's header, the constructor's arguments in a
            pickle, or ``config.json``.
        training: facts for the model card, where the file says so.
        part: which sub-dictionary was used (empty: the whole file).
        layout: which foreign layout it is (a key of :data:`evalkit.generators.facts.LAYOUTS`).
        class_name: class of the pickled or described network, where the file says so.
        given: fields of the configuration from a preset and a sidecar, which win over everything else.
        preset: name of that preset.
    """

    tensors: Mapping[str, Tensor]
    sha256: str
    format: str
    architecture: str | None = None
    config: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    layout: str | None = None
    class_name: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    architecture: str,
    config: Mapping[str, object],
    training: Mapping[str, object],
) -> None:
    """Write floating-point tensors as fp16 (others unchanged) with the configuration in the header."""
    stored = {
        name: tensor.detach()
        .cpu()
        .to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for name, tensor in tensors.items()
    }
    header = {
        "format": FORMAT,
        "architecture": architecture,
        "config": json.dumps(config, sort_keys=True),
        "training": json.dumps(training, sort_keys=True),
    }
    write_atomically(path, save(stored, metadata=header))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of either format.

    Raises:
        UsageError: there is no such file.
        CheckpointError: the file is truncated, of an unknown format, or holds something but dense tensors.
        UnsafeCheckpointError: its pickle asks for more than tensors and plain containers.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}", hint="--ckpt takes a .safetensors or .pt file")
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] in {b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        return _read_torch(path)
    raise CheckpointError(
        f"{path} is neither a safetensors file nor a torch state dict",
        hint="its first bytes fit no known format",
    )


def load_weights(network: nn.Module, checkpoint: Checkpoint, *, name: str) -> None:
    """Copy the tensors into ``network`` as float32, strictly: none missing, none left over, none non-finite.

    Raises:
        CheckpointError: names, shapes or values do not fit; the first ten problems are listed.
    """
    expected = network.state_dict()
    problems = [f"missing {key}" for key in expected if key not in checkpoint.tensors]
    problems += [f"unexpected {key}" for key in checkpoint.tensors if key not in expected]
    problems += [
        f"{key} has shape {list(tensor.shape)}, expected {list(expected[key].shape)}"
        for key, tensor in checkpoint.tensors.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise CheckpointError(
            f"the checkpoint does not fit the network of {name!r}: " + "; ".join(problems[:_LISTED]) + more,
            hint="is this the checkpoint of another model? `evalkit list models` names them all",
        )
    for key, tensor in checkpoint.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"weights of {name!r} are not finite: tensor {key}")
    network.load_state_dict(
        {key: tensor.to(expected[key].dtype) for key, tensor in checkpoint.tensors.items()}, strict=True
    )


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        return Checkpoint(tensors=tensors, sha256=file_sha256(path), format="safetensors")
    try:
        config, training = json.loads(header["config"]), json.loads(header["training"])
        architecture = header["architecture"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged {FORMAT} header: {error}") from error
    return Checkpoint(
        tensors=tensors,
        sha256=file_sha256(path),
        format="evalkit",
        architecture=architecture,
        config=config,
        training=training,
    )


def _read_torch(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=False)
    except Exception as error:
        raise _explain(path, error) from error
    tensors, part = _find_tensors(content, path)
    return Checkpoint(tensors=tensors, sha256=file_sha256(path), format="torch", part=part)


def _explain(path: Path, error: Exception) -> CheckpointError:
    text = str(error)
    found = re.search(r"(?:GLOBAL|class|function|global)\s+([\w.]+\.[\w.]+)", text)
    if "weights_only" in text.lower() or "Unsupported" in text or found:
        name = found.group(1) if found else text.splitlines()[0]
        return UnsafeCheckpointError(
            f"{path} was not loaded: its pickle asks for {name}, which could run code",
            hint="save it again as torch.save(model.state_dict(), path), or as safetensors",
        )
    return CheckpointError(f"{path} is not a whole torch file: {text.splitlines()[0] if text else error!r}")


def _find_tensors(content: object, path: Path) -> tuple[dict[str, Tensor], str]:
    part = ""
    if isinstance(content, Mapping) and not _is_state_dict(content):
        part = next((key for key in _CONTAINERS if _is_state_dict(content.get(key))), "")
        if not part:
            held = ", ".join(str(key) for key in list(content)[:_LISTED])
            raise CheckpointError(
                f"{path} holds no state dict; its keys are: {held}",
                hint="save a state dict, plain or under one of: " + ", ".join(_CONTAINERS),
            )
        content = content[part]
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        raise CheckpointError(f"{path} does not hold a state dict but {type(content).__name__}")
    for key, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{path}: tensor {key} is sparse, quantised or without data")
    return dict(content), part


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )
