"""What is judged: a generator that is sampled, or images that are there already."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from evalkit.core import Generator, ImageSource, Translator
from evalkit.digests import file_sha256
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators import SamplingOptions, load_generator
from evalkit.generators.checkpoint import Weights
from evalkit.generators.containers import checkpoint_digest
from evalkit.generators.loading import is_native, load_model
from evalkit.record import ModelInfo, SamplingInfo, Seeds, check_identifier
from evalkit.references import REGISTERED
from evalkit.seeding import SEED_SCHEME, image_seeds
from evalkit.sources import DecodePolicy, Rejected, open_source
from evalkit.sources.decode import DEFAULT_POLICY
from evalkit.sources.generated import GeneratedSource
from evalkit.sources.subset import SubsetSource
from evalkit.sources.translated import TranslatedSource

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How files of images are read; see :func:`evalkit.sources.open_source`."""

    policy: DecodePolicy = DEFAULT_POLICY
    workers: int | None = None
    on_bad: Literal["fail", "skip"] = "fail"
    max_bad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """The images of one side, and what the record says about where they come from.

    ``class_names`` are those of the labels 0..k-1, where the images tell.
    """

    info: ModelInfo
    source: ImageSource
    found: int
    generator: Generator | None = None
    sampling: SamplingInfo | None = None
    rejected: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None


def open_generator(
    model: str, *, ckpt: Path | None, options: SamplingOptions, name: str | None, count: int, seed: int,
    preset: str | None = None, weights: Weights = "ema",
) -> Subject:  # fmt: skip
    """Return a generator as a subject.

    ``preset`` and ``weights`` are those of :func:`~evalkit.generators.loading.load_generator`.

    Raises:
        UsageError: unknown model or sampler, or an id that is no identifier.
        CheckpointError: the checkpoint does not fit.
    """
    native = is_native(model)
    check_identifier(name or model)
    generator = load_generator(model, ckpt, options=options, preset=preset, weights=weights)
    shown = generator.spec.name if native else model
    identifier = check_identifier(name or (f"{shown}@{plain(ckpt.stem)}" if ckpt else shown))
    # A callable's own spec may say little; where it is imported from and its checkpoint tell it apart.
    digest = checkpoint_digest(ckpt) if ckpt and not native else generator.spec.sha256
    source = GeneratedSource(generator, count, seed, origin="" if native else callable_origin(model, digest))
    first_last = image_seeds(seed, torch.tensor([0, count - 1]).numpy())
    settings = dict(generator.spec.params)
    steps, guidance = settings.get("steps"), settings.get("guidance")
    truncation = settings.get("truncation")
    sampling = SamplingInfo(
        n=count,
        seeds=Seeds(base=seed, scheme=SEED_SCHEME, first=int(first_last[0]), last=int(first_last[1])),
        sampler=str(settings["sampler"]) if "sampler" in settings else None,
        steps=int(steps) if isinstance(steps, int) else None,
        guidance=float(guidance) if isinstance(guidance, float) else None,
        truncation=float(truncation) if isinstance(truncation, int | float) else None,
        labels="balanced by index" if generator.num_classes else None,
    )
    info = ModelInfo(
        id=identifier,
        family=generator.family,
        format=getattr(generator, "checkpoint_format", "callable"),
        sha256=digest,
        revision=revision_of(generator),
        n_params=getattr(generator, "parameter_count", None),
        dtype=options.dtype if native else None,
    )
    return Subject(
        info=info,
        source=source,
        found=count,
        generator=generator,
        sampling=sampling,
    )


def revision_of(model: Generator | Translator) -> str | None:
    """Return what tells readings of one file apart: its part and the configuration that was given to it."""
    params = dict(model.spec.params)
    if "configuration" not in params:
        return None
    return f"{params.get('part') or 'whole'}-{params['configuration']}"


def callable_origin(path: str, checkpoint: str | None) -> str:
    """Return what tells somebody's own model apart: import path, checkpoint digest, digest of its module.

    A changed module is another model; what it imports in turn is not looked at.
    """
    module = sys.modules.get(path.partition(":")[0])  # it was imported when the model was built
    file = getattr(module, "__file__", None)
    code = file_sha256(Path(file)) if file and Path(file).is_file() else ""
    return f"{path} {checkpoint or ''} {code}"


def open_images(
    path: Path, *, options: ImageOptions, name: str | None, count: int | None, default_count: int, seed: int,
    notify: Notify,
) -> Subject:  # fmt: skip
    """Return files of images, or a registered data set, as a subject.

    A fixed random subset is scored where there are more than ``count``.

    Raises:
        InvalidInputError: fewer images than asked for.
    """
    opened, rejects, class_names = _open_images(path, options)
    found = len(opened)
    if count is not None and count > found:
        raise InvalidInputError(
            f"{path} holds {found} images, fewer than the {count} asked for", hint=f"--num-samples {found}"
        )
    used = count or min(default_count, found)
    if count is None and found < default_count:
        notify(
            f"{path} holds {found} images, the protocol asks for {default_count}: scored at N = {found}, "
            "comparable only with scores at the same N"
        )
    if used < found:
        notify(
            f"scoring a fixed random subset of {used} of the {found} images in {path} "
            f"(--num-samples {found} for all)"
        )
    source: ImageSource = opened if used == found else SubsetSource(opened, used, seed)
    info = ModelInfo(
        id=check_identifier(name or identifier_from(path)),
        family="images",
        format=opened.spec.name,
        sha256=opened.spec.sha256,
    )
    rejected = tuple(f"{r.name}: {r.reason}" for r in rejects)
    return Subject(
        info=info, source=source, found=found + len(rejected), rejected=rejected, class_names=class_names
    )


def open_translation(
    model: str, *, ckpt: Path | None, sampling: SamplingOptions, images: Subject, name: str | None, seed: int,
    preset: str | None = None, weights: Weights = "ema",
) -> Subject:  # fmt: skip
    """Return what ``model`` makes of ``images`` as a subject.

    Raises:
        UsageError: the model does not turn images into images.
        CheckpointError: the checkpoint does not fit.
    """
    translator = load_model(model, ckpt, options=sampling, preset=preset, weights=weights)
    shown = translator.spec.name if is_native(model) else model
    derived = f"{shown}@{plain(ckpt.stem)}" if ckpt else shown
    if not isinstance(translator, Translator):
        raise UsageError(
            f"model {model!r} does not turn images into images",
            hint="pix2pix, cyclegan and diffusion models do; a callable needs translate(images, *, seeds)",
        )
    native = is_native(model)
    digest = checkpoint_digest(ckpt) if ckpt and not native else translator.spec.sha256
    origin = "" if native else callable_origin(model, digest)
    source = TranslatedSource(images.source, translator, f"{translator.spec.digest()} {origin}".strip(), seed)
    info = ModelInfo(
        id=check_identifier(name or derived),
        family=translator.family,
        revision=revision_of(translator),
        format=getattr(translator, "checkpoint_format", "callable"),
        sha256=digest,
        n_params=getattr(translator, "parameter_count", None),
        dtype=sampling.dtype if native else None,
    )
    return replace(images, info=info, source=source)


def is_labelled(subject: Subject) -> bool:
    """Whether every image has a class: those of a conditional model, or files in folders of classes."""
    if subject.generator is not None:
        return subject.generator.num_classes > 0
    return subject.source.read(np.zeros(1, dtype=np.int64)).labels is not None


def number_of_classes(subject: Subject) -> int | None:
    """Return how many classes the labels count, where that is known."""
    if subject.generator is not None:
        return subject.generator.num_classes
    return len(subject.class_names) if subject.class_names else None


def _open_images(
    path: Path, options: ImageOptions
) -> tuple[ImageSource, Sequence[Rejected], tuple[str, ...] | None]:
    if str(path) in REGISTERED and not path.exists():
        return REGISTERED[str(path)].open(), (), None
    opened = open_source(
        path, policy=options.policy, workers=options.workers, on_bad=options.on_bad, max_bad=options.max_bad
    )
    return opened, opened.rejected, opened.class_names


def identifier_from(path: Path) -> str:
    """Return the file or folder name as an identifier."""
    name = path.resolve().name
    return plain(name if path.is_dir() else name.partition(".")[0])


def plain(text: str) -> str:
    """Return ``text`` with everything replaced that cannot stand in an identifier."""
    return re.sub(r"[^A-Za-z0-9._+@-]", "-", text).lstrip("._+@-")[:100] or "unnamed"
