"""The bundled architectures: sample i is a function of the index, checkpoints of both formats load."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import Generator
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators import GENERATOR_FACTS, SamplingOptions, load_generator
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.diffusion.unet import DDPMConfig, DenoisingUNet
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.sampling import quantise
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.seeding import balanced_labels, image_seeds

SMALL = {
    "cgan": (CGANGenerator, CGANConfig(latent_dim=8, channels=(16, 8, 8, 8))),
    "stylegan": (
        StyleGANGenerator,
        StyleGANConfig(latent_dim=8, style_dim=8, mapping_layers=2, channels=(16, 8, 8, 8)),
    ),
    "vae": (ConvVAE, VAEConfig(latent_dim=8, width=8)),
    "ddpm": (DenoisingUNet, DDPMConfig(channels=(16, 16), groups=4, head_dim=8, train_timesteps=40)),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Model name -> path of a small random checkpoint in evalkit's format."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for name, (network, config) in SMALL.items():
        torch.manual_seed(1)
        state = network(config).state_dict()
        if name == "cgan":  # freshly initialised it paints all images the same grey
            state["to_rgb.weight"] *= 300.0
        paths[name] = folder / f"{name}.safetensors"
        save_checkpoint(
            paths[name],
            state,
            architecture=name,
            config=dataclasses.asdict(config),
            training={},
        )
    return paths


def _sample(generator: Generator, index: np.ndarray) -> torch.Tensor:
    labels = balanced_labels(0, index, generator.num_classes) if generator.num_classes else None
    return generator.generate(image_seeds(0, index), labels=labels)


def _options(name: str, sampler: str) -> SamplingOptions:
    return SamplingOptions(sampler=sampler, steps=4 if name == "ddpm" else None)


CASES = [
    (name, s.name)
    for name in SMALL
    for s in GENERATOR_FACTS[name].samplers
    if s.name != "mixture"  # only a checkpoint with a fitted mixture has it: see tests/generators/vae
]


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_an_image_does_not_depend_on_its_batch(small, name, sampler):
    generator = load_generator(name, small[name], options=_options(name, sampler))
    index = np.arange(7)
    together = _sample(generator, index)
    assert together.dtype == torch.uint8
    assert together.shape == (7, 3, 32, 32)
    apart = torch.cat([_sample(generator, index[:3]), _sample(generator, index[3:])])
    # Kernels differ with the batch by about 1e-6, which may cross a rounding edge: one grey level, rarely.
    difference = (together.int() - apart.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-3
    assert len({image.numpy().tobytes() for image in together}) == 7


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_evaluations_are_counted(small, name, sampler):
    generator = load_generator(name, small[name], options=_options(name, sampler))
    _sample(generator, np.arange(2))
    # Heun: one step of DDIM to its first level, then two for each of 4 steps but the last.
    expected = 1 if name != "ddpm" else {"heun": 8}.get(sampler, 4)
    assert generator.evaluations_per_image == expected


def test_guidance_costs_a_second_evaluation(small):
    options = SamplingOptions(sampler="ddim", steps=3, guidance=1.5)
    generator = load_generator("ddpm", small["ddpm"], options=options)
    _sample(generator, np.arange(2))
    assert generator.evaluations_per_image == 6


def test_ddim_at_eta_one_is_stochastic_and_repeatable(small):
    images = {}
    for eta in (0.0, 1.0):
        options = SamplingOptions(sampler="ddim", steps=4, eta=eta)
        generator = load_generator("ddpm", small["ddpm"], options=options)
        images[eta] = _sample(generator, np.arange(3))
        assert torch.equal(images[eta], _sample(generator, np.arange(3)))
    assert not torch.equal(images[0.0], images[1.0])


@pytest.mark.parametrize("name", SMALL)
def test_the_class_label_matters_where_there_is_one(small, name):
    generator = load_generator(
        name, small[name], options=SamplingOptions(steps=2 if name == "ddpm" else None)
    )
    seeds = image_seeds(0, np.arange(2))
    if not generator.num_classes:
        return
    zero = generator.generate(seeds, labels=np.zeros(2, dtype=np.int64))
    one = generator.generate(seeds, labels=np.ones(2, dtype=np.int64))
    if name == "cgan":  # a fresh gain is 1 and a fresh bias 0 for every class
        assert torch.equal(zero, one)
    else:
        assert not torch.equal(zero, one)
    with pytest.raises(UsageError, match="labels"):
        generator.generate(seeds)


@pytest.mark.parametrize("name", SMALL)
def test_bundled_checkpoint_as_plain_torch_file(tmp_path, name):
    options = SamplingOptions(steps=3 if name == "ddpm" else None)
    original = load_generator(name, options=options)
    path = tmp_path / "x.pt"
    torch.save(original.network.state_dict(), path)
    again = load_generator(name, path, options=options)
    assert torch.equal(_sample(original, np.arange(4)), _sample(again, np.arange(4)))


def test_a_checkpoint_of_another_model_is_refused_with_the_right_name(small):
    with pytest.raises(CheckpointError, match="is of model 'vae', not 'cgan'") as caught:
        load_generator("cgan", small["vae"])
    assert caught.value.hint == "use --model vae"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SamplingOptions(sampler="dpm-solver"), "no sampler"),
        (SamplingOptions(steps=0), "at least 1"),
        (SamplingOptions(steps=2000), "at most 40"),
    ],
)
def test_impossible_options(small, options, message):
    with pytest.raises(UsageError, match=message):
        load_generator("ddpm", small["ddpm"], options=options)


def test_steps_where_there_are_none(small):
    with pytest.raises(UsageError, match="takes no --steps"):
        load_generator("vae", small["vae"], options=SamplingOptions(steps=3))


def test_unknown_names_are_explained():
    with pytest.raises(UsageError) as caught:
        load_generator("dppm")
    assert "did you mean 'ddpm'?" in str(caught.value.hint)
    for bad in ("no.such.module:x", "evalkit.generators.toy:absent", "evalkit.generators.toy:_TILE"):
        with pytest.raises(UsageError):
            load_generator(bad)


def test_any_object_with_the_protocol_is_a_generator():
    generator = load_generator("evalkit.generators.toy:make")
    images = _sample(generator, np.arange(5))
    assert images.shape == (5, 3, 32, 32)
    with pytest.raises(UsageError, match="takes no `ckpt`"):
        load_generator("evalkit.generators.toy:make", "x.pt")


def test_quantisation_rule():
    values = torch.tensor([-1.5, -1.0, 0.0, 127.49 / 127.5, 1.0, 2.0])
    assert quantise(values).tolist() == [0, 0, 128, 255, 255, 255]
