"""Building a generator by name, or from any object that follows the generator protocol."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from evalkit.core import Generator
from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.generators.facts import GENERATOR_FACTS
from evalkit.generators.sampling import SamplingOptions
from evalkit.registry import did_you_mean, import_object


def load_generator(
    model: str, ckpt: Path | str | None = None, *, options: SamplingOptions | None = None
) -> Generator:
    """Build a generator by registered name, or from ``pkg.mod:obj``.

    Args:
        model: a name of :data:`GENERATOR_FACTS`, or ``pkg.mod:obj`` where ``obj`` is a
            :class:`~evalkit.core.Generator` or a factory of one (called with ``ckpt=`` where it takes it).
        ckpt: checkpoint file; the bundled one where None.
        options: sampler, steps, device and dtype.

    Raises:
        UsageError: unknown model, sampler or missing file.
        CheckpointError: the checkpoint does not fit.
    """
    path = None if ckpt is None else Path(ckpt)
    if ":" in model:
        chosen = options or SamplingOptions()
        if chosen != SamplingOptions(device=chosen.device):
            raise UsageError(
                "--sampler, --steps, --guidance, --eta, --truncation and --dtype do not reach a callable",
                hint="set them inside the factory",
            )
        return _from_callable(model, path)
    if model not in GENERATOR_FACTS:
        raise UsageError(f"unknown model {model!r}", hint=did_you_mean(model, GENERATOR_FACTS))
    options = options or SamplingOptions()
    options.resolve(model)
    facts = GENERATOR_FACTS[model]
    checkpoint = read_checkpoint(path or facts.checkpoint)
    if checkpoint.architecture not in {None, model}:
        raise CheckpointError(
            f"the checkpoint is of model {checkpoint.architecture!r}, not {model!r}",
            hint=f"use --model {checkpoint.architecture}",
        )
    build = cast("Callable[..., Generator]", import_object(facts.factory))
    try:
        return build(checkpoint, options)
    except (TypeError, ValueError, NotImplementedError, ZeroDivisionError) as error:
        # What a crafted or damaged configuration makes the networks and schedulers raise.
        raise CheckpointError(f"the checkpoint's configuration does not build: {error}") from error


def _from_callable(model: str, ckpt: Path | None) -> Generator:
    # A script's own folder, as with `python -m`: the console script does not have it.
    sys.path.append(str(Path.cwd()))
    try:
        target = import_object(model)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(target, Generator) or inspect.isclass(target):
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
    if not isinstance(target, Generator):
        raise UsageError(
            f"{model!r} gave a {type(target).__name__}, which is no generator",
            hint="it needs spec, family, num_classes, resolution and generate(seeds, labels=None)",
        )
    return target
