"""What every natively built generator owes its callers, for each registered model at a tiny size."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from evalkit.core import Generator, IndexArray, LatentGenerator
from evalkit.errors import UsageError
from evalkit.generators import GENERATOR_FACTS
from evalkit.generators.sampling import quantise
from evalkit.seeding import balanced_labels, image_seeds
from evalkit.sources.fixed_blocks import FixedBlockSource
from evalkit.sources.generated import GeneratedSource
from tests.generators.tiny_models import CLASSES, TINY, UNCONDITIONAL, tiny_generator

NOT_BUILT_HERE = {
    "diffusers": "runs diffusers' own pipelines: tests/generators/diffusion/test_hub_pipeline.py",
    "pix2pix": "translates images and draws none: tests/generators/gan/test_translation.py",
    "cyclegan": "translates images and draws none: tests/generators/gan/test_translation.py",
}
COUNT = 20
NAMES = sorted(TINY)
CONDITIONAL = [name for name in NAMES if name not in {
    "dcgan", "lsgan", "sagan-64", "progan", "vae", "vdvae", "pixelcnn", "pixelcnn++", "pytorch-ddpm",
    "ddim-pesser", "lucidrains",
}]  # fmt: skip


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Tiny generators by name, each built once."""
    folder: Path = tmp_path_factory.mktemp("zoo")

    @functools.cache
    def built(name: str, *, variant: int = 0, conditional: bool = True) -> Generator:
        config = None if conditional else UNCONDITIONAL[name]
        return tiny_generator(name, folder, variant=variant, config=config)

    return built


def draw(generator: Generator, index: list[int] | IndexArray) -> torch.Tensor:
    """Images of global indices, as a source draws them."""
    chosen = np.asarray(index, dtype=np.int64)
    labels = balanced_labels(0, chosen, generator.num_classes) if generator.num_classes else None
    return generator.generate(image_seeds(0, chosen), labels=labels)


def test_every_registered_model_is_here_or_says_why_not():
    assert set(TINY).isdisjoint(NOT_BUILT_HERE)
    assert set(TINY) | set(NOT_BUILT_HERE) == set(GENERATOR_FACTS)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_uint8_of_three_channels_and_vary(build, name):
    generator = build(name)
    images = draw(generator, [0, 1, 2])
    size = generator.resolution
    assert images.dtype == torch.uint8
    assert images.shape == (3, 3, size, size)
    assert generator.family == GENERATOR_FACTS[name].family
    assert generator.evaluations_per_image >= 1
    assert float(images.float().std()) > 1.0


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_its_own_index_alone(build, name):
    generator = build(name)
    before = torch.get_rng_state()
    alone, batch, elsewhere = draw(generator, [3]), draw(generator, [3, 8, 5]), draw(generator, [8, 5, 3])
    # Kernels differ with the batch by about 1e-6, which may cross a rounding edge: one grey level, rarely.
    assert int((alone[0].int() - batch[0].int()).abs().max()) <= 1
    assert int((alone[0].int() - elsewhere[2].int()).abs().max()) <= 1
    assert torch.equal(torch.get_rng_state(), before), "torch's global generator was drawn from"
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(draw(generator, [3]), alone)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_image(build, name):
    generator = build(name)
    labels = np.zeros(2, dtype=np.int64) if generator.num_classes else None
    first, second = generator.generate(np.array([5, 6]), labels=labels)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_strict_sampling_is_the_same_for_any_batch_size(build, name):
    read = []
    for size in (1, 7, 64):
        source = FixedBlockSource(GeneratedSource(build(name), count=COUNT))
        parts = [
            source.read(np.arange(start, min(start + size, COUNT), dtype=np.int64)).images
            for start in range(0, COUNT, size)
        ]
        read.append(torch.cat(parts))
    assert torch.equal(read[0], read[1])
    assert torch.equal(read[0], read[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_stable_and_tells_weights_apart(build, name):
    generator = build(name)
    before = generator.spec.digest()
    draw(generator, [0])
    assert generator.spec.digest() == before
    assert build(name, variant=1).spec.digest() != before
    assert not torch.equal(draw(build(name, variant=1), [0]), draw(generator, [0]))


def test_the_conditional_models_are_these(build):
    assert [name for name in NAMES if build(name).num_classes] == CONDITIONAL


@pytest.mark.parametrize("name", CONDITIONAL)
def test_labels_are_needed_and_matter(build, name):
    generator = build(name)
    assert generator.num_classes == CLASSES
    seeds = np.full(CLASSES, 7, dtype=np.int64)
    images = generator.generate(seeds, labels=np.arange(CLASSES, dtype=np.int64))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])
    with pytest.raises(UsageError, match="labels"):
        generator.generate(seeds)


@pytest.mark.parametrize("labels", [[0, CLASSES], [-1, 0], [0]], ids=["above", "below", "too few"])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_labels_that_do_not_fit_are_refused(build, name, labels):
    with pytest.raises(UsageError, match="labels"):
        build(name).generate(np.array([1, 2]), labels=np.array(labels, dtype=np.int64))


@pytest.mark.parametrize("name", ["sngan", "gated-pixelcnn", "vdvae", "ddpm"])
def test_no_seeds_give_no_images(build, name):
    generator = build(name)
    assert draw(generator, []).shape == (0, 3, generator.resolution, generator.resolution)


IMPOSSIBLE = [
    ("cgan", {"num_classes": 0}),
    ("cgan", {"channels": ()}),
    ("cvae", {"num_classes": 0}),
    ("cvae", {"channels": 2}),
    ("vae", {"resolution": 20}),
    ("vae", {"num_classes": 3}),
    ("vq-vae", {"resolution": 18}),
    ("vq-vae", {"codes": 0}),
    ("pixelcnn++", {"resolution": 6}),
    ("pixelcnn++", {"mixtures": 0}),
    ("gated-pixelcnn", {"values": 1}),
    ("gated-pixelcnn", {"embedded": True}),
    ("lsgan", {"image_channels": 2}),
    ("mlp-gan", {"image_channels": 2}),
]


@pytest.mark.parametrize(("name", "wrong"), IMPOSSIBLE)
def test_impossible_sizes_are_refused(name, wrong):
    with pytest.raises(ValueError, match="impossible sizes"):
        dataclasses.replace(TINY[name].config, **wrong)


@pytest.mark.parametrize("name", sorted(UNCONDITIONAL))
def test_without_classes_labels_do_nothing(build, name):
    generator = build(name, conditional=False)
    assert generator.num_classes == 0
    seeds = np.array([1, 2])
    images = generator.generate(seeds)
    assert float(images.float().std()) > 1.0
    assert torch.equal(generator.generate(seeds, labels=np.array([0, 1])), images)


@pytest.mark.parametrize("name", [name for name in NAMES if GENERATOR_FACTS[name].family in {"gan", "vae"}])
def test_latents_lead_to_the_same_images(build, name):
    generator = build(name)
    if name in {"vq-vae", "vdvae"}:  # codes of a grid, latents of many levels: no one vector
        assert not isinstance(generator, LatentGenerator)
        return
    assert isinstance(generator, LatentGenerator)
    seeds = np.array([4, 5, 6])
    labels = np.array([2, 0, 1]) if generator.num_classes else None
    z = generator.latents(seeds)
    drawn = generator.generate(seeds, labels=labels)
    painted = generator.synthesis(z, space="z", noise_seeds=seeds, labels=labels)
    assert painted.dtype == torch.float32
    assert int((quantise(painted).int() - drawn.int()).abs().max()) <= 1
    if "w" not in generator.spaces:
        with pytest.raises(UsageError, match="no mapping network"):
            generator.mapping(z, labels=labels)
        return
    w = generator.mapping(z, labels=labels)
    torch.testing.assert_close(generator.synthesis(w, space="w", noise_seeds=seeds), painted)
