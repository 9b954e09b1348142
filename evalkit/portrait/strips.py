"""The section of interpolations: from one scored sample to another, through the latent space."""

from __future__ import annotations

import numpy as np
import torch

from evalkit.core import Float64Array, LatentGenerator
from evalkit.errors import EvalkitError
from evalkit.generators.sampling import quantise
from evalkit.pages.report_facts import Block, Paragraph, Pictures
from evalkit.portrait.page_parts import Side
from evalkit.portrait.pictures import Pixels, reduced
from evalkit.probes.latents import fitting_interpolation, interpolate, labels_of
from evalkit.runtime import strict_numerics
from evalkit.seeding import balanced_labels, image_seeds

STRIPS, STEPS = 4, 9
"""Strips, and images in each."""

_WORDS = {
    "slerp": "along the great circle from one z to the other, with the lengths between theirs",
    "slerp-unit": "along the great circle of the unit sphere, since its mapping network normalises z",
}


def strips(side: Side) -> tuple[Block, ...]:
    """Return the strips, or why there are none."""
    generator = side.sitter.subject.generator
    if generator is None:
        return (Paragraph(text="Images have no latent space.", tone="dim"),)
    if not isinstance(generator, LatentGenerator) or "z" not in generator.spaces:
        return (Paragraph(text="The model shows no latent space to walk through.", tone="dim"),)
    seed = side.sitter.request.seed
    way = fitting_interpolation(generator, space="z")
    pairs = ends(seed, generator.num_classes)
    rows: list[Pictures] = []
    try:
        for start, end in pairs:
            images = walk(generator, seed, start, end)
            rows.append(_strip(side, start, end, images))
    except EvalkitError as error:
        return (Paragraph(text=f"Not drawn: {error.message}", tone="warning"),)
    same = " of one class" if generator.num_classes else ""
    said = f"From one sample to another{same}, {_WORDS[way]}; noise beside z is that of the first."
    return (Paragraph(text=said), *rows)


def ends(seed: int, classes: int) -> list[tuple[int, int]]:
    """The indices of both ends of each strip: samples of one class, where there are classes."""
    if not classes:
        return [(2 * number, 2 * number + 1) for number in range(STRIPS)]
    # Every run of as many indices as classes holds each class once: the next one has the other ends.
    labels = balanced_labels(seed, np.arange(STRIPS + 2 * classes, dtype=np.int64), classes)
    later = ((number, np.flatnonzero(labels[number + 1 :] == labels[number])) for number in range(STRIPS))
    return [(number, number + 1 + int(places[0])) for number, places in later]


def walk(generator: LatentGenerator, seed: int, start: int, end: int) -> list[Pixels]:
    """Return the images on the way from sample ``start`` to sample ``end``, both included."""
    index = np.asarray([start, end], dtype=np.int64)
    seeds = image_seeds(seed, index)
    labels = labels_of(generator, seed, index[:1])
    positions: Float64Array = np.linspace(0.0, 1.0, STEPS)
    with torch.inference_mode(), strict_numerics():
        z = generator.latents(seeds)
        points = interpolate(
            z[:1].expand(STEPS, -1), z[1:].expand(STEPS, -1), positions,
            interpolation=fitting_interpolation(generator, space="z"),
        )  # fmt: skip
        images = generator.synthesis(
            points,
            space="z",
            noise_seeds=np.repeat(seeds[:1], STEPS),
            labels=None if labels is None else np.repeat(labels, STEPS),
        )
        return [reduced(image) for image in quantise(images)]


def _strip(side: Side, start: int, end: int, images: list[Pixels]) -> Pictures:
    what = f"sample {start} to {end}"
    pictures = (
        side.studio.picture(pixels, alt=f"step {number + 1} of {len(images)} from {what}")
        for number, pixels in enumerate(images)
    )
    return Pictures(pictures=tuple(pictures), label=f"From {what}", strip=True)
