"""Plain, residual and attentive GANs: every public layout loads strictly and gives the public code's images.

The golden numbers are those of the public implementations, run once outside this repository on the same
seeded weights (``seeded``) and latents: PyTorch examples (BSD), WassersteinGAN (BSD), PyTorch-GAN (MIT),
torch-mimicry 0.1.16 from PyPI (MIT), heykeetae/Self-Attention-GAN (its first batch after loading). All pixels
agreed to 5e-6.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import LatentGenerator
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.gan.convolutional import attentive, dcgan, dense, lsgan, residual_sampling
from evalkit.generators.gan.convolutional.attentive import (
    AttentiveConfig,
    AttentiveGenerator,
)
from evalkit.generators.gan.convolutional.dcgan import DCGANConfig, DCGANGenerator
from evalkit.generators.gan.convolutional.dense import DenseConfig, DenseGenerator
from evalkit.generators.gan.convolutional.lsgan import LSGANConfig, LSGANGenerator
from evalkit.generators.gan.convolutional.residual import (
    ResidualConfig,
    ResidualGenerator,
)
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators import layouts
from tests.generators.gan.seeded import checkpoint, latents, probe, seeded

LABELS = np.array([0, 9, 4])
RESIDUAL = ResidualConfig(
    latent_dim=128,
    num_classes=0,
    channels=(16, 16, 16, 16),
    upsampling="bilinear",
    attention=0,
    bottom_width=4,
    spectral_norm=False,
)
DENSE = DenseConfig(
    latent_dim=12,
    num_classes=0,
    label_dim=0,
    widths=(128, 256, 512, 1024),
    image_channels=1,
    resolution=28,
    batch_norm=True,
    norm_eps=0.8,
    leak=0.2,
    bounded=True,
)
LSGAN = LSGANConfig(
    latent_dim=12,
    channels=(128, 128, 64),
    bottom_width=4,
    image_channels=3,
    first_norm=False,
    norm_eps=0.8,
    leak=0.2,
)
_change = dataclasses.replace

CASES = {
    "pytorch-examples-dcgan": (
        dcgan.build,
        DCGANGenerator(DCGANConfig(12, (32, 16, 8, 4), 3, 0, batch_norm=True)),
        [0.0016, 0.16488, -0.05555, -0.10276, 0.02792],
    ),
    "pytorch-examples-dcgan-grey": (
        dcgan.build,
        DCGANGenerator(DCGANConfig(12, (32, 16, 8, 4), 1, 0, batch_norm=True)),
        [-0.04289, 0.2006, -0.26383, 0.03356, 0.07429],
    ),
    "pytorch-gan-mlp": (
        dense.build,
        DenseGenerator(DENSE),
        [0.00627, 0.41685, 0.06937, 0.45368, -0.49666],
    ),
    "pytorch-gan-cgan": (
        dense.build,
        DenseGenerator(_change(DENSE, num_classes=10, label_dim=10, image_channels=3, resolution=8)),
        [-0.02458, 0.39561, -0.16327, 0.24153, 0.64456],
    ),
    "pytorch-gan-lsgan": (
        lsgan.build,
        LSGANGenerator(LSGAN),
        [-0.17435, 0.44488, -0.84235, -0.1972, -0.8227],
    ),
    "pytorch-gan-dcgan": (
        lsgan.build,
        LSGANGenerator(_change(LSGAN, image_channels=1, first_norm=True)),
        [0.14267, 0.25034, 0.01299, -0.06449, -0.09431],
    ),
    "sngan-32": (
        residual_sampling.build,
        ResidualGenerator(RESIDUAL),
        [-0.34768, 0.60396, -0.86085, 0.70285, -0.13319],
    ),
    "sngan-48": (
        residual_sampling.build,
        ResidualGenerator(_change(RESIDUAL, channels=(32, 16, 8, 4), bottom_width=6)),
        [0.01556, 0.6504, -0.81874, -0.70488, -0.22364],
    ),
    "wgan-gp-64": (
        residual_sampling.build,
        ResidualGenerator(_change(RESIDUAL, channels=(32, 16, 8, 4, 2))),
        [-0.40685, 0.75743, 0.96025, -0.99876, 0.44789],
    ),
    "cgan-pd-32": (
        residual_sampling.build,
        ResidualGenerator(_change(RESIDUAL, num_classes=10)),
        [-0.34961, 0.54678, -0.78516, 0.49247, -0.73095],
    ),
    "sagan-32": (
        residual_sampling.build_attentive,
        ResidualGenerator(_change(RESIDUAL, num_classes=10, attention=16, spectral_norm=True)),
        [-0.30808, 0.59179, -0.75831, 0.21217, 0.68338],
    ),
    "sagan-64": (
        attentive.build,
        AttentiveGenerator(AttentiveConfig(12, (64, 32, 16, 8))),
        [0.23738, 0.42279, 0.76053, 0.63715, -0.22271],
    ),
}
HIDDEN = ("upsampling", "attention", "norm_eps", "leak", "bounded")


def _build(name: str, **options):
    build, network, _ = CASES[name]
    tensors = seeded({key: tuple(value.shape) for key, value in network.state_dict().items()})
    given = {key: value for key, value in dataclasses.asdict(network.config).items() if key in HIDDEN}
    return build(checkpoint(tensors, **given), SamplingOptions(**options))


def _labels(generator, index=slice(None)):
    return LABELS[index] if generator.num_classes else None


@pytest.mark.parametrize("name", list(CASES))
def test_the_public_code_gives_the_same_image(name):
    generator, expected = _build(name), CASES[name][2]
    assert generator.network.config == CASES[name][1].config  # all else was read off the shapes
    z = latents(3, generator.latent_dim)
    labels = _labels(generator)
    arguments = (z,) if labels is None else (z, torch.from_numpy(labels))
    with torch.no_grad():
        images = generator.network(*arguments)
    assert probe(images) == pytest.approx(expected, abs=5e-5)
    rgb = generator.synthesis(z, space="z", noise_seeds=np.arange(3), labels=labels)
    assert rgb.shape == (3, 3, generator.resolution, generator.resolution)
    torch.testing.assert_close(rgb, images.expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", list(CASES))
def test_an_image_depends_on_its_own_seed_and_label_alone(name):
    generator = _build(name)
    assert isinstance(generator, LatentGenerator)
    seeds = np.array([11, 12, 13])
    together = generator.generate(seeds, labels=_labels(generator))
    assert generator.evaluations_per_image == 1
    assert float(together.float().std()) > 1.0
    assert not torch.equal(together[0], together[1])
    for i in range(3):
        alone = generator.generate(seeds[[i]], labels=_labels(generator, [i]))
        assert int((alone[0].int() - together[i].int()).abs().max()) <= 1


@pytest.mark.parametrize("name", ["pytorch-gan-cgan", "sngan-32", "cgan-pd-32", "sagan-32"])
def test_a_reduced_type_gives_nearly_the_same_image(name):
    full, reduced = _build(name), _build(name, dtype="bfloat16")
    seeds, labels = np.array([11, 12, 13]), _labels(full)
    difference = full.generate(seeds, labels=labels).int() - reduced.generate(seeds, labels=labels).int()
    assert 0.0 < float(difference.abs().float().mean()) < 4.0


def test_speaking_names_of_wasserstein_gan():
    widths = {
        "initial:12-32": (12, 32, 4),
        "pyramid:32-16": (32, 16, 4),
        "pyramid:16-8": (16, 8, 4),
        "extra-layers-0:8": (8, 8, 3),
        "extra-layers-1:8": (8, 8, 3),
        "final:8-3": (8, 3, 4),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (a, b, kernel) in widths.items():
        kind = "conv" if name.startswith("extra") else "convt"
        shapes[f"main.{name}:{kind}.weight"] = (a, b, kernel, kernel)
        if name.startswith("final"):
            continue
        stem = (
            f"main.{name}:batchnorm"
            if name.startswith("extra")
            else f"main.{name.split(':')[0]}:{b}:batchnorm"
        )
        shapes |= {f"{stem}.{key}": (b,) for key in ("weight", "bias", "running_mean", "running_var")}
    tensors = seeded(shapes)
    expected = [-0.0664, 0.46205, 0.41635, 0.20056, -0.5315]
    for mark in (":", "."):
        named = {
            "main." + key[5:].rpartition(".")[0].replace(":", mark) + "." + key.rpartition(".")[2]: value
            for key, value in tensors.items()
        }
        generator = dcgan.build(checkpoint(dict(reversed(named.items()))), SamplingOptions())
        assert generator.network.config == DCGANConfig(12, (32, 16, 8), 3, 2, batch_norm=True)
        with torch.no_grad():
            assert probe(generator.network(latents(3, 12))) == pytest.approx(expected, abs=5e-5)


def test_wasserstein_gan_without_batch_norm():
    names = ["initial:12-64", "pyramid:64-32", "pyramid:32-16", "pyramid:16-8", "final:8-3"]
    sizes = [(12, 64), (64, 32), (32, 16), (16, 8), (8, 3)]
    shapes = {f"main.{name}:convt.weight": (*size, 4, 4) for name, size in zip(names, sizes, strict=True)}
    generator = dcgan.build(checkpoint(seeded(shapes)), SamplingOptions())
    assert generator.network.config == DCGANConfig(12, (64, 32, 16, 8), 3, 0, batch_norm=False)
    with torch.no_grad():
        images = generator.network(latents(3, 12))
    assert probe(images) == pytest.approx([-0.00012, 0.00724, 0.00462, 0.00016, -0.00403], abs=1e-5)


def test_perceptron_of_wasserstein_gan():
    sizes = {0: (16, 12), 2: (16, 16), 4: (16, 16), 6: (192, 16)}
    shapes = {f"main.{i}.weight": size for i, size in sizes.items()}
    shapes |= {f"main.{i}.bias": size[:1] for i, size in sizes.items()}
    preset = GENERATOR_FACTS["mlp-gan"].presets["wgan-mlp"]
    generator = dense.build(checkpoint(seeded(shapes), **preset), SamplingOptions())
    assert (generator.resolution, generator.network.config.image_channels) == (8, 3)
    with torch.no_grad():
        images = generator.network(latents(3, 12))
    assert probe(images) == pytest.approx([-0.05024, 1.04537, 1.07278, 0.05207, -1.40789], abs=5e-5)


def test_the_whole_layout_of_the_examples_loads_and_samples():
    tensors = layouts.tensors("pytorch-examples-dcgan-64")
    tensors |= {key: value.abs() + 0.5 for key, value in tensors.items() if key.endswith("running_var")}
    generator = dcgan.build(checkpoint(tensors), SamplingOptions())
    assert (generator.resolution, generator.latent_dim, generator.num_classes) == (64, 100, 0)
    images = generator.synthesis(
        generator.latents(np.array([1, 2])) * 30, space="z", noise_seeds=np.array([1, 2])
    )
    assert bool(images.isfinite().all())
    assert not torch.equal(images[0], images[1])
    old = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    assert dcgan.build(checkpoint(old), SamplingOptions()).resolution == 64  # files of torch < 0.4.1
    with pytest.raises(CheckpointError, match=r"missing main\.1\.weight"):
        dcgan.build(checkpoint({k: v for k, v in tensors.items() if k != "main.1.weight"}), SamplingOptions())


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("pytorch-examples-dcgan", "pytorch-examples-dcgan"),
        ("pytorch-gan-mlp", "pytorch-gan-cgan"),
        ("pytorch-gan-conv", "pytorch-gan-dcgan"),
        ("mimicry-resnet", "cgan-pd-32"),
        ("mimicry-sagan", "sagan-32"),
        ("heykeetae-sagan", "sagan-64"),
    ],
)
def test_layouts_are_recognised_and_name_their_model(layout, name):
    names = set(CASES[name][1].state_dict())
    if layout == "pytorch-gan-conv":
        assert "conv_blocks.0.running_mean" in names
    found = recognise({"": names}, LAYOUTS.values())
    assert found is not None
    assert found.layout.name == layout
    assert [m for m, facts in GENERATOR_FACTS.items() if layout in facts.layouts] != []


def test_what_the_tensors_do_not_show_is_asked_for():
    tensors = dict(CASES["sngan-32"][1].state_dict())
    with pytest.raises(CheckpointError, match="do not reveal: upsampling"):
        residual_sampling.build(checkpoint(tensors), SamplingOptions())
    attentive = dict(CASES["sagan-32"][1].state_dict())
    with pytest.raises(CheckpointError, match="do not reveal: attention, upsampling"):
        residual_sampling.build_attentive(checkpoint(attentive), SamplingOptions())
    with pytest.raises(CheckpointError, match="do not reveal: bounded, leak, norm_eps"):
        dense.build(checkpoint(CASES["pytorch-gan-mlp"][1].state_dict()), SamplingOptions())
    with pytest.raises(CheckpointError, match="but the tensors show 128"):
        residual_sampling.build(checkpoint(tensors, upsampling="nearest", latent_dim=64), SamplingOptions())


@pytest.mark.parametrize(
    "build", [attentive.build, dcgan.build, dense.build, lsgan.build, residual_sampling.build]
)
def test_other_checkpoints_are_refused(build):
    with pytest.raises(CheckpointError, match="this is no"):
        build(checkpoint({"foo.weight": torch.zeros(3, 3)}), SamplingOptions())


def test_impossible_sizes_of_the_others():
    for bad in (
        lambda: DCGANConfig(12, (), 3, 0, batch_norm=True),
        lambda: _change(DENSE, widths=()),
        lambda: _change(LSGAN, channels=(8,)),
        lambda: AttentiveConfig(12, (64, 32, 16)),
    ):
        with pytest.raises(ValueError, match="impossible"):
            bad()


def test_labels_are_needed():
    generator = _build("cgan-pd-32")
    with pytest.raises(UsageError, match="needs labels"):
        generator.generate(np.array([1]))
