"""Building a generator by name, or from any object that follows the generator protocol."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from evalkit.core import Generator, Translator
from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.generators.checkpoint import Checkpoint, Weights, read_checkpoint
from evalkit.generators.facts import GENERATOR_FACTS
from evalkit.generators.fitting import advice, models_reading
from evalkit.generators.sampling import SamplingOptions
from evalkit.registry import did_you_mean, import_object

AUTO = "auto"
"""The model that reads what the checkpoint turns out to be."""


def load_generator(
    model: str,
    ckpt: Path | str | None = None,
    *,
    options: SamplingOptions | None = None,
    preset: str | None = None,
    weights: Weights = "ema",
) -> Generator:
    """Build a generator by registered name, or from ``pkg.mod:obj``.

    Args and errors are those of :func:`load_model`; a model that turns images into images is refused.
    """
    built = load_model(model, ckpt, options=options, preset=preset, weights=weights)
    if not isinstance(built, Generator):
        raise UsageError(
            f"model {model!r} turns images into images: it draws none by itself",
            hint="evalkit score --task translate --images SOURCE --reference REAL",
        )
    return built


def load_model(
    model: str,
    ckpt: Path | str | None = None,
    *,
    options: SamplingOptions | None = None,
    preset: str | None = None,
    weights: Weights = "ema",
) -> Generator | Translator:
    """Build a generator or a translator by registered name, or from ``pkg.mod:obj``.

    Args:
        model: a name of :data:`GENERATOR_FACTS`, ``auto`` for the one that reads the checkpoint, or
            ``pkg.mod:obj`` where ``obj`` is a :class:`~evalkit.core.Generator` or a factory of one (called
            with ``ckpt=`` where it takes it).
        ckpt: checkpoint file, or a folder that diffusers has saved; the bundled one where None.
        options: sampler, steps, device and dtype.
        preset: name of what the checkpoint's tensors do not reveal; ``<checkpoint>.json`` wins over it.
        weights: ``ema`` takes averaged weights where there are any, ``raw`` the weights as trained.

    Raises:
        UsageError: unknown model, sampler or preset, or missing file.
        CheckpointError: the checkpoint does not fit.
    """
    path = None if ckpt is None else Path(ckpt)
    options = options or SamplingOptions()
    if weights not in {"ema", "raw"}:
        raise UsageError(f"weights are 'ema' or 'raw', not {weights!r}")
    if ":" in model:
        if options != SamplingOptions(device=options.device) or preset is not None or weights != "ema":
            raise UsageError(
                "--sampler, --steps, --guidance, --eta, --truncation, --reference-factor, --dtype, --preset "
                "and --weights raw do not reach a callable",
                hint="set them inside the factory",
            )
        return _from_callable(model, path)
    if model != AUTO and model not in GENERATOR_FACTS:
        raise UsageError(f"unknown model {model!r}", hint=did_you_mean(model, [*GENERATOR_FACTS, AUTO]))
    if model != AUTO:
        options.resolve(model)
        if GENERATOR_FACTS[model].opens_folders:
            if preset is not None or weights != "ema":
                raise UsageError(f"model {model!r} takes neither --preset nor --weights raw")
            return _build(model, str(_path(model, path)), options)
    checkpoint = read_checkpoint(_path(model, path), weights=weights, model=model, preset=preset)
    return build_generator(resolve_model(model, checkpoint), checkpoint, options)


def is_native(model: str) -> bool:
    """Return whether ``model`` is built by evalkit itself and not by somebody's own code."""
    return model == AUTO or model in GENERATOR_FACTS


def resolve_model(model: str, checkpoint: Checkpoint) -> str:
    """Return the model that is to read ``checkpoint``, which is ``model`` unless that is ``auto``.

    Raises:
        CheckpointError: no model reads it, or not the one that was named.
    """
    if checkpoint.architecture is not None:
        if model not in {AUTO, checkpoint.architecture}:
            raise CheckpointError(
                f"the checkpoint is of model {checkpoint.architecture!r}, not {model!r}",
                hint=f"use --model {checkpoint.architecture}",
            )
        if checkpoint.architecture not in GENERATOR_FACTS:
            raise CheckpointError(
                f"the checkpoint is of model {checkpoint.architecture!r}, which is not known",
                hint=did_you_mean(checkpoint.architecture, GENERATOR_FACTS),
            )
        return checkpoint.architecture
    if checkpoint.layout is None:
        if model == AUTO:
            raise CheckpointError(
                "the checkpoint has none of the known layouts",
                hint=advice({"": checkpoint.tensors.keys()}),
            )
        return model
    readers = models_reading(checkpoint.layout)
    if model in readers:
        return model
    if model != AUTO or not readers:
        raise CheckpointError(
            f"the checkpoint has the layout {checkpoint.layout}, which "
            + ("no model reads" if model == AUTO else f"model {model!r} does not read"),
            hint=f"use --model {readers[0]}" if readers else "`evalkit list models` names them all",
        )
    return readers[0]


def build_generator(model: str, checkpoint: Checkpoint, options: SamplingOptions) -> Generator | Translator:
    """Build the registered ``model`` from a checkpoint that has been read.

    Raises:
        UsageError: an option does not apply to the model.
        CheckpointError: names, shapes or the configuration do not fit.
    """
    options.resolve(model)
    return _build(model, checkpoint, options)


def _build(model: str, checkpoint: Checkpoint | str, options: SamplingOptions) -> Generator | Translator:
    build = cast("Callable[..., Generator | Translator]", import_object(GENERATOR_FACTS[model].factory))
    try:
        return build(checkpoint, options)
    except (EvalkitError, torch.OutOfMemoryError):
        raise
    except KeyError as error:
        absent = error.args[0] if error.args else "such name"
        names = checkpoint.tensors.keys() if isinstance(checkpoint, Checkpoint) else ()
        raise CheckpointError(
            f"the checkpoint does not fit {model!r}: there is no {absent}", hint=advice({"": names})
        ) from error
    except _CRAFTED as error:
        raise CheckpointError(f"the checkpoint's configuration does not build: {error}") from error


_CRAFTED = (TypeError, ValueError, ArithmeticError, AttributeError, IndexError, RuntimeError, MemoryError)
"""What a crafted or damaged configuration makes the networks and schedulers raise (NotImplementedError and
RecursionError are RuntimeErrors)."""


def _path(model: str, ckpt: Path | None) -> Path:
    if ckpt is not None:
        return ckpt
    if model == AUTO:
        raise UsageError("--model auto needs a --ckpt", hint="or name a bundled model: `evalkit list models`")
    facts = GENERATOR_FACTS[model]
    if not facts.bundled:
        raise UsageError(
            f"no checkpoint of {model!r} ships with evalkit", hint="give the one you have with --ckpt FILE"
        )
    return facts.checkpoint


def _from_callable(model: str, ckpt: Path | None) -> Generator | Translator:
    # A script's own folder, as with `python -m`: the console script does not have it.
    sys.path.append(str(Path.cwd()))
    try:
        target = import_object(model)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(target, Generator | Translator) or inspect.isclass(target):
        if not callable(target):
            raise UsageError(f"{model!r} is neither a generator nor a factory of one")
        takes_ckpt = "ckpt" in inspect.signature(target).parameters
        if ckpt is not None and not takes_ckpt:
            raise UsageError(
                f"the factory {model!r} takes no `ckpt`", hint="drop --ckpt, or add the parameter"
            )
        try:
            target = target(ckpt=ckpt) if takes_ckpt else target()
        except EvalkitError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UsageError(f"the factory {model!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(target, Generator | Translator):
        raise UsageError(
            f"{model!r} gave a {type(target).__name__}, which is no generator",
            hint="it needs spec, family, num_classes, resolution and generate(seeds, labels=None), or "
            "spec, family and translate(images, *, seeds)",
        )
    return target
