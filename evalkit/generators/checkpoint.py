"""Reading and writing checkpoints without ever running code from them.

The project's own format is one safetensors file: fp16 tensors, and in the header the architecture, its
configuration and the training facts. What others have written is told apart by its first bytes
(:mod:`evalkit.generators.containers`) and then by the names of its tensors
(:mod:`evalkit.generators.recognition`); what no tensor shows comes from a preset and from a JSON file beside
the checkpoint, called like it with ``.json`` added.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from evalkit.atomic import write_atomically
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.containers import Contents, read_contents
from evalkit.generators.diffusers_folder import parse_object, read_json
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.fitting import advice, model_for, models_reading, preset_fields
from evalkit.generators.parts import Part, check_dense
from evalkit.generators.recognition import Recognised, choose_part, recognise

FORMAT = "evalkit.checkpoint/1"
Weights = Literal["ema", "raw"]
_LISTED = 10


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors of a checkpoint and what the file says about them.

    Attributes:
        tensors: name -> tensor on the CPU, in the file's own dtype.
        sha256: digest of the file.
        format: ``evalkit`` (safetensors with a header), ``safetensors``, ``torch`` (a state dict),
            ``npz``, ``pickle`` (NVIDIA's persistent classes) or ``folder`` (diffusers).
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


def read_checkpoint(
    path: Path, *, weights: Weights = "ema", model: str | None = None, preset: str | None = None
) -> Checkpoint:
    """Read a checkpoint file, or a folder that diffusers has saved.

    Args:
        path: the file or folder.
        weights: ``ema`` takes averaged weights where the file has any, ``raw`` the weights as trained.
        model: registered model that is to read it: decides where several layouts fit, and whose presets.
        preset: name of what the tensors do not reveal; a sidecar JSON wins over it.

    Raises:
        UsageError: there is no such file or preset, or the file needs none.
        CheckpointError: the file is truncated, of an unknown kind, or holds something but dense tensors.
        UnsafeCheckpointError: its pickle asks for more than tensors and plain containers.
    """
    return from_contents(path, read_contents(path), weights=weights, model=model, preset=preset)


def from_contents(
    path: Path, contents: Contents, *, weights: Weights, model: str | None, preset: str | None
) -> Checkpoint:
    """Return the checkpoint in ``contents``, which were read from ``path``; see :func:`read_checkpoint`."""
    if contents.header.get("format") == FORMAT:
        return _own(path, contents, preset)
    found = find_layout(contents, weights=weights, model=model)
    name, prefix = (found.part, found.prefix) if found else (_plain_part(path, contents, weights), "")
    part = contents.parts[name]
    check_dense(part, name=str(path), size=contents.size)
    layout = found.layout.name if found else None
    return Checkpoint(
        tensors={key.removeprefix(prefix): tensor for key, tensor in part.tensors.items()},
        sha256=contents.sha256,
        format=contents.format,
        config=part.config,
        part=name,
        layout=layout,
        class_name=part.class_name,
        given=_given(path, layout=layout, model=model, preset=preset, names=part.tensors.keys()),
        preset=preset,
    )


def find_layout(contents: Contents, *, weights: Weights, model: str | None) -> Recognised | None:
    """Return which known layout the parts of a file have.

    Raises:
        CheckpointError: several fit, or none has the weights that are asked for.
    """
    return recognise(
        {name: part.tensors.keys() for name, part in contents.parts.items()},
        LAYOUTS.values(),
        class_names={name: part.class_name for name, part in contents.parts.items() if part.class_name},
        weights=weights,
        prefer=GENERATOR_FACTS[model].layouts if model in GENERATOR_FACTS else (),
    )


def sidecar_path(path: Path) -> Path:
    """Return where the JSON file lies that says what a checkpoint's tensors do not."""
    whole = path.resolve() if path.name in {"", ".."} else path
    return whole.with_name(f"{whole.name}.json")


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
            hint=_other_model(checkpoint, name),
        )
    converted = {key: tensor.to(expected[key].dtype) for key, tensor in checkpoint.tensors.items()}
    for key, tensor in converted.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"weights of {name!r} are not finite: tensor {key}")
    network.load_state_dict(converted, strict=True)


def _other_model(checkpoint: Checkpoint, name: str) -> str:
    fits = checkpoint.architecture or model_for(checkpoint.tensors.keys())
    if fits is None:
        return "is this the checkpoint of another model? `evalkit inspect FILE` shows what it holds"
    if fits != name:
        return f"the tensor names are those of {fits!r}: use --model {fits}"
    return "the names are its own: is the configuration (--preset, sidecar JSON) that of another size?"


def _own(path: Path, contents: Contents, preset: str | None) -> Checkpoint:
    header = contents.header
    try:
        config, training = (parse_object(header[key], name=key) for key in ("config", "training"))
        architecture = header["architecture"]
    except KeyError as error:
        raise CheckpointError(f"{path} has a damaged {FORMAT} header: there is no {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path} has a damaged {FORMAT} header: {error.message}") from error
    if preset is not None:
        raise UsageError(f"{path} describes itself and takes no preset", hint="drop --preset")
    if sidecar_path(path).is_file():
        raise CheckpointError(
            f"{path} describes itself, and {sidecar_path(path).name} beside it would say it again",
            hint="move that file away",
        )
    part = contents.parts.get("", Part({}))
    check_dense(part, name=str(path), size=contents.size)
    return Checkpoint(
        tensors=part.tensors,
        sha256=contents.sha256,
        format="evalkit",
        architecture=architecture,
        config=config,
        training=training,
    )


def _plain_part(path: Path, contents: Contents, weights: Weights) -> str:
    """Which part of a file of no known layout: a bare state dict, or one that goes by a usual name."""
    try:
        name = choose_part(contents.parts.keys(), weights=weights)
    except CheckpointError as error:
        hint = advice({name: part.tensors.keys() for name, part in contents.parts.items()})
        raise CheckpointError(f"{path}: {error.message}", hint=f"{error.hint}; {hint}") from error
    if name is None:
        listed = ", ".join(
            f"{key or 'the whole'} ({kind})" for key, kind in list(contents.held.items())[:_LISTED]
        )
        raise CheckpointError(
            f"{path} holds no state dict (text names, each with a tensor); it holds: {listed or 'nothing'}",
            hint="save it as torch.save(model.state_dict(), path), or as safetensors",
        )
    return name


def _given(
    path: Path, *, layout: str | None, model: str | None, preset: str | None, names: Collection[str]
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if preset is not None:
        readers = models_reading(layout) if layout else ()
        reader = model if model in GENERATOR_FACTS else next(iter(readers), model_for(names))
        if reader is None:
            raise CheckpointError(f"{path} is of no known layout, so that no preset applies")
        fields |= preset_fields(reader, preset)
    sidecar = sidecar_path(path)
    return fields | read_json(sidecar) if sidecar.is_file() else fields
