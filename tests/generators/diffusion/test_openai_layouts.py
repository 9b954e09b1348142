"""The public layouts of improved-diffusion and guided-diffusion at their full size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evalkit.core import Generator
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.openai.facts import FACTS
from evalkit.generators.diffusion.openai.reading import usual_image_size
from evalkit.generators.diffusion.openai.sampling import build_guided, build_improved
from evalkit.generators.sampling import SamplingOptions
from tests.generators.diffusion.waves import strided
from tests.generators.layouts import shapes

PRESETS = {name: dict(values) for facts in FACTS for name, values in facts.presets.items()}
ONE_STEP = SamplingOptions(sampler="ancestral", steps=1)
SEED = np.array([3], dtype=np.int64)


def _checkpoint(layout: str, preset: str) -> Checkpoint:
    return Checkpoint(tensors=strided(layout), sha256="0" * 64, format="torch", given=PRESETS[preset])


@pytest.mark.slow
def test_the_cifar10_layout_loads_strictly_and_samples() -> None:
    """50 million parameters, learned variance."""
    held = _checkpoint("improved-diffusion-cifar10-uncond-50M", "improved-diffusion-cifar10")
    assert usual_image_size(held.tensors) == 32
    generator = build_improved(held, ONE_STEP)
    assert isinstance(generator, Generator)
    assert (generator.num_classes, generator.resolution, generator.parameter_count) == (0, 32, 52_546_438)
    images = generator.generate(SEED)
    assert images.shape == (1, 3, 32, 32)
    assert generator.evaluations_per_image == 1
    assert images.float().std() > 1


@pytest.mark.slow
def test_the_imagenet64_layout_loads_strictly_and_samples() -> None:
    """296 million parameters, 1000 classes."""
    held = _checkpoint("guided-diffusion-imagenet64", "guided-diffusion-imagenet64")
    assert usual_image_size(held.tensors) == 64
    generator = build_guided(held, ONE_STEP)
    assert (generator.num_classes, generator.resolution) == (1000, 64)
    layout = shapes("guided-diffusion-imagenet64")
    assert generator.parameter_count == sum(math.prod(shape) for _, shape in layout.values())
    images = generator.generate(SEED, labels=np.array([207]))
    assert images.shape == (1, 3, 64, 64)
    assert images.float().std() > 1
