"""From a request to its subject: the generator, the images or the translation that is to be judged."""

from __future__ import annotations

from dataclasses import replace

import torch

from evalkit.console import Console
from evalkit.core import ImageSource
from evalkit.errors import UsageError
from evalkit.plan import Plan
from evalkit.prompts import drawn_with_prompts, read_prompts
from evalkit.request import ScoreRequest
from evalkit.sources.fixed_blocks import FixedBlockSource
from evalkit.sources.generated import GeneratedSource
from evalkit.subjects import Subject, open_generator, open_images, open_translation


def open_subject(request: ScoreRequest, plan: Plan, *, device: torch.device, console: Console) -> Subject:
    """Return what ``request`` asks to judge: a generator, images, or what a model makes of images.

    Raises:
        UsageError: options that do not go together, or a model that is not of the kind that the task needs.
        CheckpointError: the checkpoint does not fit.
        InvalidInputError: images or prompts are not usable.
    """
    if request.model is not None and not request.translate:
        drawn = open_generator(
            request.model,
            ckpt=request.ckpt,
            options=replace(request.sampling, device=str(device)),
            name=request.name,
            count=request.num_samples or plan.preset.num_images,
            seed=request.seed,
            preset=request.preset,
            weights=request.checkpoint_weights,
        )
        if request.prompts is not None:
            drawn = replace(drawn, source=drawn_with_prompts(drawn.source, request.prompts))
        return replace(drawn, source=_in_fixed_blocks(drawn.source)) if request.strict else drawn
    if request.images is None:
        raise UsageError("no subject")
    images = open_images(
        request.images,
        options=request.image_options,
        name=None if request.model else request.name,
        count=request.num_samples,
        default_count=plan.preset.num_images,
        seed=request.seed,
        notify=console.note,
    )
    if request.model is None:
        return images
    sampling = replace(request.sampling, device=str(device))
    return open_translation(
        request.model,
        ckpt=request.ckpt,
        sampling=sampling,
        preset=request.preset,
        weights=request.checkpoint_weights,
        images=images,
        name=request.name,
        seed=request.seed,
    )


def unblocked(subject: Subject) -> ImageSource:
    """Return the source whose reading of one image computes one image."""
    return subject.source.source if isinstance(subject.source, FixedBlockSource) else subject.source


def prompts_of(subject: Subject, *, request: ScoreRequest) -> tuple[str, ...] | None:
    """Return the prompt of each image, or None where there are no prompts."""
    if request.prompts is None:
        return None
    source = unblocked(subject)
    if isinstance(source, GeneratedSource):
        return source.prompts
    return read_prompts(request.prompts, source, found=subject.found)


def _in_fixed_blocks(source: ImageSource) -> ImageSource:
    return FixedBlockSource(source) if isinstance(source, GeneratedSource) else source
