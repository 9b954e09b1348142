"""BigGAN: the public layouts load strictly and give the public code's images in evaluation mode.

The golden numbers are those of BigGAN-PyTorch (Brock, MIT), run once outside this repository in evaluation
mode on the same seeded weights (``seeded``) and latents. All pixels agreed to 3e-6; with the weights of
both whole layouts (CIFAR-10, ImageNet 128) and of 64, 256 and 512 pixels likewise.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evalkit.core import LatentGenerator
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.facts import LAYOUTS
from evalkit.generators.gan.biggan.layers import ConditionalNorm, PlainNorm, SpectralConv, SpectralLinear
from evalkit.generators.gan.biggan.network import Attention, BigGANConfig, BigGANGenerator
from evalkit.generators.gan.biggan.sampling import build, truncated_normal
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators import layouts
from tests.generators.gan.seeded import checkpoint, latents, probe, seeded

LABELS = np.array([0, 9, 4])
CIFAR = BigGANConfig(
    latent_dim=16,
    num_classes=10,
    channels=(16, 16, 16, 16),
    attention=(False, False, False),
    bottom_width=4,
    shared_dim=0,
    hierarchical=False,
    spectral_norm=True,
    norm_eps=1e-5,
)
_change = dataclasses.replace
CASES = {
    "cifar": (CIFAR, [0.19946, 0.54753, -0.77349, 0.17291, -0.82123]),
    "hierarchical-128": (
        _change(
            CIFAR,
            latent_dim=24,
            channels=(128, 128, 64, 32, 16, 8),
            attention=(False, False, False, True, False),
            shared_dim=16,
            hierarchical=True,
        ),
        [-0.19934, 0.50021, 0.40238, -0.25665, 0.15542],
    ),
    "two-attentions-64": (
        _change(
            CIFAR,
            channels=(128, 128, 64, 32, 16),
            attention=(False, True, True, False),
            shared_dim=16,
            norm_eps=1e-2,
        ),
        [0.24112, 0.43493, -0.37365, -0.12375, -0.69143],
    ),
    "without-spectral-norm": (
        _change(CIFAR, shared_dim=16, spectral_norm=False),
        [0.17579, 0.71328, -0.95646, 0.92354, -0.98437],
    ),
}
SELF_MODULATED = _change(CIFAR, num_classes=0, latent_dim=12)


def _tensors(config: BigGANConfig) -> dict[str, torch.Tensor]:
    return seeded({key: tuple(value.shape) for key, value in BigGANGenerator(config).state_dict().items()})


def _build(config: BigGANConfig, **options):
    return build(checkpoint(_tensors(config), norm_eps=config.norm_eps), SamplingOptions(**options))


@pytest.mark.parametrize("name", list(CASES))
def test_the_public_code_gives_the_same_image(name):
    config, expected = CASES[name]
    generator = _build(config)
    assert generator.network.config == config  # all but the epsilon was read off the tensors
    with torch.no_grad():
        images = generator.network(latents(3, generator.latent_dim), torch.from_numpy(LABELS))
    assert probe(images) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("name", list(CASES))
def test_an_image_depends_on_its_own_seed_and_label_alone(name):
    generator = _build(CASES[name][0])
    assert isinstance(generator, LatentGenerator)
    seeds = np.array([11, 12, 13])
    together = generator.generate(seeds, labels=LABELS)
    assert generator.evaluations_per_image == 1
    for i in range(3):
        alone = generator.generate(seeds[[i]], labels=LABELS[[i]])
        assert int((alone[0].int() - together[i].int()).abs().max()) <= 1
    assert not torch.equal(together, generator.generate(seeds, labels=LABELS[::-1].copy()))
    with pytest.raises(UsageError, match="needs labels"):
        generator.generate(seeds)


def test_a_reduced_type_gives_nearly_the_same_image():
    full, reduced = (_build(CASES["two-attentions-64"][0], dtype=dtype) for dtype in ("float32", "bfloat16"))
    seeds = np.array([11, 12, 13])
    difference = full.generate(seeds, labels=LABELS).int() - reduced.generate(seeds, labels=LABELS).int()
    assert 0.0 < float(difference.abs().float().mean()) < 4.0


def _layout(name: str) -> dict[str, torch.Tensor]:
    """Random tensors of a whole layout."""
    return {
        key: value.abs() + 0.5 if key.endswith("stored_var") else value
        for key, value in layouts.tensors(name, scale=0.3).items()
    }


def test_the_whole_cifar_layout_loads_and_samples():
    tensors = _layout("biggan-cifar10")
    generator = build(checkpoint(tensors, norm_eps=1e-5), SamplingOptions())
    config = generator.network.config
    assert (config.resolution, config.num_classes, config.latent_dim) == (32, 10, 128)
    images = generator.generate(np.array([1, 2]), labels=np.array([3, 3]))
    assert images.shape == (2, 3, 32, 32)
    assert not torch.equal(images[0], images[1])
    found = recognise({"": set(tensors)}, LAYOUTS.values())
    assert found is not None
    assert found.layout.name == "biggan-pytorch"


def test_the_whole_imagenet_layout_loads_and_samples():
    generator = build(checkpoint(_layout("biggan-imagenet128"), norm_eps=1e-5), SamplingOptions())
    config = generator.network.config
    assert config == BigGANConfig(
        latent_dim=120,
        num_classes=1000,
        channels=(1536, 1536, 768, 384, 192, 96),
        attention=(False, False, False, True, False),
        bottom_width=4,
        shared_dim=128,
        hierarchical=True,
        spectral_norm=True,
        norm_eps=1e-5,
    )
    assert (config.resolution, config.chunk, config.condition_dim) == (128, 20, 148)
    images = generator.generate(np.array([1]), labels=np.array([999]))
    assert images.shape == (1, 3, 128, 128)
    assert float(images.float().std()) > 1.0


def test_the_epsilon_is_asked_for_and_other_checkpoints_are_refused():
    with pytest.raises(CheckpointError, match="do not reveal: norm_eps"):
        build(checkpoint(_tensors(CIFAR)), SamplingOptions())
    with pytest.raises(CheckpointError, match="this is no BigGAN"):
        build(checkpoint({"foo.weight": torch.zeros(3, 3)}, norm_eps=1e-5), SamplingOptions())
    lacking = _tensors(CIFAR)
    del lacking["blocks.1.0.bn2.stored_mean"]
    with pytest.raises(CheckpointError, match=r"missing blocks\.1\.0\.bn2\.stored_mean"):
        build(checkpoint(lacking, norm_eps=1e-5), SamplingOptions())


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (16,)},
        {"attention": (True,)},
        {"hierarchical": True},
        {"hierarchical": True, "shared_dim": 8, "latent_dim": 15},
        {"latent_dim": 0},
    ],
)
def test_impossible_sizes(wrong):
    with pytest.raises(ValueError, match=r"impossible|attention|hierarchical"):
        _change(CIFAR, **wrong)


@pytest.mark.parametrize(("layer", "shape"), [(SpectralLinear, (7, 5)), (SpectralConv, (7, 5, 3, 3))])
def test_spectral_norm_is_one_power_iteration_from_the_stored_vector(layer, shape):
    torch.manual_seed(0)
    module = layer(*shape)
    before = module.u0.clone()
    flat = module.weight.detach().flatten(1).double()
    v = F.normalize(module.u0.double() @ flat)
    u = F.normalize(v @ flat.T)
    sigma = (v @ flat.T @ u.T).squeeze()
    torch.testing.assert_close(module.normalised.double(), module.weight.double() / sigma)
    assert torch.equal(module.u0, before)
    module.sv0.fill_(1e6)  # a log of the training: not used
    torch.testing.assert_close(module.normalised.double(), module.weight.double() / sigma)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.normalised.dtype == torch.float32


def test_conditional_norm_by_hand():
    norm = ConditionalNorm(2, 0.5, gain=torch.nn.Embedding(3, 2), bias=torch.nn.Embedding(3, 2))
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[9.0, 9.0], [0.5, -2.0], [9.0, 9.0]]))
        norm.bias.weight.copy_(torch.tensor([[9.0, 9.0], [3.0, 4.0], [9.0, 9.0]]))
        norm.stored_mean.copy_(torch.tensor([1.0, 2.0]))
        norm.stored_var.copy_(torch.tensor([3.5, 8.5]))
    x = torch.tensor([[[[5.0]], [[8.0]]]])
    # Deviations are 2 and 3, gains 1.5 and -1: the channels become 4 / 2 * 1.5 + 3 and -6 / 3 + 4.
    assert norm(x, torch.tensor([1])).flatten().tolist() == pytest.approx([6.0, 2.0])
    assert PlainNorm(2, 0.0)(x).flatten().tolist() == pytest.approx([5.0, 8.0])


def test_class_goes_before_the_chunk_and_the_first_chunk_into_the_first_layer():
    network = BigGANGenerator(CASES["hierarchical-128"][0])
    z = torch.arange(24.0)[None]
    first, conditions = network._split(z, torch.tensor([2]))
    assert first.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert len(conditions) == 5
    for i, condition in enumerate(conditions, start=1):
        assert torch.equal(condition[0, :16], network.shared.weight[2])
        assert condition[0, 16:].tolist() == [4.0 * i + k for k in range(4)]


def test_attention_starts_as_the_identity():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(Attention(16, spectral=True)(x, x), x)


def test_self_modulation_of_unet_gan():
    generator = _build(SELF_MODULATED)
    assert generator.network.config == SELF_MODULATED
    norm = generator.network.blocks[0][0].bn1
    assert set(norm.gain.state_dict()) == {"0.weight", "0.bias", "2.weight"}
    images = generator.generate(np.array([1, 2]))
    assert not torch.equal(images[0], images[1])


def test_truncated_latents():
    seeds = np.arange(400)
    free, cut = _build(CIFAR).latents(seeds), _build(CIFAR, truncation=0.5).latents(seeds)
    inside = free.abs() <= 0.5
    assert torch.equal(cut[inside], free[inside])
    assert float(cut.abs().max()) <= 0.5
    # Variance of a standard normal truncated to |z| < t: 1 - 2 t phi(t) / (2 Phi(t) - 1), here 0.0805.
    assert float(cut[~inside].var()) == pytest.approx(0.0805, abs=0.004)
    assert float(cut.var()) == pytest.approx(0.0805, abs=0.004)
    assert torch.equal(_build(CIFAR, truncation=0.5).latents(seeds[[7]])[0], cut[7])
    assert torch.equal(_build(CIFAR, truncation=0.0).latents(seeds[:2]), torch.zeros(2, 16))
    assert _build(CIFAR, truncation=0.5).spec != _build(CIFAR).spec
    wide = truncated_normal(torch.Generator().manual_seed(1), 1000, 8.0)
    assert torch.equal(wide, torch.randn(1000, generator=torch.Generator().manual_seed(1)))
