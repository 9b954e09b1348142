"""The progressively grown GAN: pytorch_GAN_zoo's layout loads strictly and gives its images.

The golden numbers are those of pytorch_GAN_zoo (BSD), run once outside this repository on the same seeded
weights (``seeded``) and latents. All pixels agreed to 5e-6.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import LatentGenerator
from evalkit.errors import CheckpointError
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.gan.progressive.network import ProgressiveConfig, ProgressiveGenerator, Scaled
from evalkit.generators.gan.progressive.sampling import build, describe
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators.gan.seeded import checkpoint, latents, probe, seeded

PRESET = GENERATOR_FACTS["progan"].presets["gan-zoo"]
CONFIG = ProgressiveConfig(
    latent_dim=12,
    channels=(16, 16, 12, 8),
    image_channels=3,
    equalised=True,
    pixel_norm=True,
    leak=0.2,
    bounded=False,
)
CASES = {
    "32": (CONFIG, [0.19568, 0.33983, 0.33482, 0.51607, -0.0267]),
    "4": (dataclasses.replace(CONFIG, channels=(16,)), [0.10088, 0.35429, 0.00259, -0.30764, 0.57559]),
    "tanh": (
        dataclasses.replace(CONFIG, channels=(16, 8), bounded=True),
        [-0.08387, 0.39618, -0.2755, 0.78352, -0.60482],
    ),
}


def _tensors(config: ProgressiveConfig) -> dict[str, torch.Tensor]:
    network = ProgressiveGenerator(config)
    return seeded({key: tuple(value.shape) for key, value in network.state_dict().items()})


def _build(name: str):
    config = CASES[name][0]
    return build(checkpoint(_tensors(config), **(PRESET | {"bounded": config.bounded})), SamplingOptions())


@pytest.mark.parametrize("name", list(CASES))
def test_the_public_code_gives_the_same_image(name):
    generator = _build(name)
    assert generator.network.config == CASES[name][0]
    with torch.no_grad():
        images = generator.network(latents(3, 12))
    assert probe(images) == pytest.approx(CASES[name][1], abs=5e-5)


def test_an_image_depends_on_its_own_seed_alone():
    generator = _build("32")
    assert isinstance(generator, LatentGenerator)
    assert (generator.resolution, generator.latent_dim, generator.num_classes) == (32, 12, 0)
    seeds = np.array([11, 12, 13])
    together = generator.generate(seeds)
    assert generator.evaluations_per_image == 1
    assert not torch.equal(together[0], together[1])
    for i in range(3):
        assert int((generator.generate(seeds[[i]])[0].int() - together[i].int()).abs().max()) <= 1


def test_names_without_module_mean_the_same():
    tensors = _tensors(CONFIG)
    bare = {key.replace(".module.", "."): value for key, value in tensors.items()}
    assert set(bare).isdisjoint(tensors)
    generator = build(checkpoint(bare, **PRESET), SamplingOptions())
    with torch.no_grad():
        assert probe(generator.network(latents(3, 12))) == pytest.approx(CASES["32"][1], abs=5e-5)
    for names, layout in ((tensors, "gan-zoo-progressive"), (bare, "gan-zoo-progressive-bare")):
        parts = {
            "netG": set(names),
            "avgG": {f"module.{name}" for name in names},
            "netD": {"decisionLayer.weight"},
        }
        found = recognise(parts, LAYOUTS.values())
        assert found is not None
        assert (found.layout.name, found.part, found.prefix) == (layout, "avgG", "module.")
        raw = recognise(parts, LAYOUTS.values(), weights="raw")
        assert raw is not None
        assert raw.part == "netG"


def test_the_constant_multiplies_the_bias_too():
    layer = Scaled(torch.nn.Linear(8, 2), equalised=True)
    with torch.no_grad():
        layer.module.weight.fill_(1.0)
        layer.module.bias.copy_(torch.tensor([0.0, 6.0]))
    # He's constant is sqrt(2 / 8) = 0.5.
    assert layer(torch.ones(1, 8)).tolist() == [[4.0, 7.0]]
    assert Scaled(torch.nn.Conv2d(4, 2, 3), equalised=True).constant == pytest.approx((2 / 36) ** 0.5)
    assert Scaled(torch.nn.Conv2d(4, 2, 3), equalised=False).constant == 1.0


def test_latents_are_normalised_first():
    generator = _build("32")
    z = latents(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(generator.network(z), generator.network(7.0 * z), rtol=1e-4, atol=1e-4)


def test_colour_layers_of_smaller_scales_are_not_used():
    tensors = _tensors(CONFIG)
    for scale in range(3):
        tensors[f"toRGBLayers.{scale}.module.weight"].zero_()
    generator = build(checkpoint(tensors, **PRESET), SamplingOptions())
    with torch.no_grad():
        assert probe(generator.network(latents(3, 12))) == pytest.approx(CASES["32"][1], abs=5e-5)


def test_the_files_own_configuration_is_understood():
    stated = {
        "depthScale0": 16,
        "equalizedlR": True,
        "perChannelNormalization": True,
        "leakyReluLeak": 0.2,
        "lossCriterion": "WGANGP",
        "miniBatchStdDev": True,
    }
    expected = {"equalised": True, "pixel_norm": True, "leak": 0.2, "bounded": False}
    assert describe(stated) == expected == PRESET
    assert describe(stated | {"lossCriterion": "DCGAN"})["bounded"] is True
    assert describe(expected) == expected
    held = dataclasses.replace(checkpoint(_tensors(CONFIG)), config=stated)
    assert build(held, SamplingOptions()).network.config == CONFIG


def test_a_generator_conditioned_on_attributes_is_refused():
    """Its attributes are the last inputs beside z: drawn as normal numbers they would mean nothing."""
    stated = {"depthScale0": 16, "equalizedlR": True, "categoryVectorDim": 4}
    held = dataclasses.replace(checkpoint(_tensors(CONFIG), **PRESET), config=stated)
    with pytest.raises(CheckpointError, match="conditioned on 4 attributes"):
        build(held, SamplingOptions())
    assert "bounded" not in describe(stated | {"categoryVectorDim": 0})


def test_what_the_tensors_do_not_show_is_asked_for():
    tensors = _tensors(CONFIG)
    with pytest.raises(CheckpointError, match="do not reveal: bounded, equalised, leak, pixel_norm"):
        build(checkpoint(tensors), SamplingOptions())
    with pytest.raises(CheckpointError, match="no progressively grown generator"):
        build(checkpoint({"foo.weight": torch.zeros(3)}, **PRESET), SamplingOptions())
    del tensors["scaleLayers.1.1.module.bias"]
    with pytest.raises(CheckpointError, match=r"missing scaleLayers\.1\.1\.module\.bias"):
        build(checkpoint(tensors, **PRESET), SamplingOptions())


@pytest.mark.parametrize("wrong", [{"channels": ()}, {"latent_dim": 0}, {"image_channels": 4}])
def test_impossible_sizes(wrong):
    with pytest.raises(ValueError, match="impossible"):
        dataclasses.replace(CONFIG, **wrong)
