"""Pix2Pix and CycleGAN: the public layout loads strictly and gives the public code's images.

The golden numbers are those of DeepLIIF's copy of the networks of junyanz/pytorch-CycleGAN-and-pix2pix, run
once outside this repository in evaluation mode on the same seeded weights (``seeded``) and images. All pixels
agreed exactly, for U-Nets of 256 and 128 pixels and residual generators of 9 and 6 blocks likewise.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evalkit.core import Translator
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.facts import GENERATOR_FACTS, LAYOUTS
from evalkit.generators.gan.translation.normalisation import normalise
from evalkit.generators.gan.translation.resnet import ResNetConfig, ResNetTranslator
from evalkit.generators.gan.translation.sampling import NetworkTranslator, build_cyclegan, build_pix2pix
from evalkit.generators.gan.translation.unet import UNetConfig, UNetTranslator
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions, quantise
from tests.generators.gan.seeded import seeded
from tests.generators.gan.style_weights import probe

Config = UNetConfig | ResNetConfig
UNET = UNetConfig(inputs=3, outputs=3, widths=(4, 8, 16, 32, 32), normalisation="batch")
RESNET = ResNetConfig(inputs=3, outputs=3, width=4, blocks=6, dropout=False, normalisation="instance")
change = dataclasses.replace
SEEDS = np.arange(2)

GOLDEN = {
    "unet-batch": (UNET, 32, [0.06635, 0.085, -0.21773, -0.45497, 0.13432, -0.30932, -0.0098, -0.07541]),
    "unet-instance": (
        change(UNET, normalisation="instance"),
        32,
        [0.09383, 0.23682, -0.50975, -0.42946, 0.36434, -0.38141, -0.39089, -0.19297],
    ),
    "resnet-instance": (
        RESNET,
        20,
        [0.87627, -0.65585, 0.23352, -0.92675, 0.04987, 0.19363, -0.8391, -0.54839],
    ),
    "resnet-batch-dropout": (
        change(RESNET, normalisation="batch", blocks=9, dropout=True),
        20,
        [0.54188, -0.58776, 0.74057, -0.69591, 0.44359, -0.77693, -0.27049, -0.24978],
    ),
}


def weights_of(config: Config) -> dict[str, Tensor]:
    network = UNetTranslator(config) if isinstance(config, UNetConfig) else ResNetTranslator(config)
    return seeded({key: tuple(value.shape) for key, value in network.state_dict().items()})


def build(config: Config, tensors: dict[str, Tensor] | None = None, **options: object) -> NetworkTranslator:
    source = Checkpoint(tensors=tensors or weights_of(config), sha256="0" * 64, format="torch")
    builder = build_pix2pix if isinstance(config, UNetConfig) else build_cyclegan
    return builder(source, SamplingOptions(**options))


def pictures(size: int) -> Tensor:
    values = torch.arange(2 * 3 * size * size).reshape(2, 3, size, size) * 7919 % 256
    return values.to(torch.uint8)


@pytest.mark.parametrize("name", GOLDEN)
def test_images_are_those_of_the_public_network(name):
    config, size, expected = GOLDEN[name]
    model = build(config)
    assert model.network.config == config
    assert not model.network.training
    with torch.no_grad():
        made = model.network(pictures(size).float() / 127.5 - 1.0)
    assert probe(made) == pytest.approx(expected, abs=2e-5)
    assert torch.equal(model.translate(pictures(size), seeds=SEEDS), quantise(made))
    assert model.evaluations_per_image == 1


@pytest.mark.parametrize("config", [UNET, RESNET])
def test_they_are_translators(config):
    model = build(config)
    assert isinstance(model, Translator)
    assert model.family == "gan"
    assert model.spec.kind == "translator"
    assert model.spec.digest() != build(config, dtype="bfloat16").spec.digest()
    facts = GENERATOR_FACTS[model.name]
    assert [sampler.name for sampler in facts.samplers] == ["translate"]


@pytest.mark.parametrize("name", GOLDEN)
def test_an_image_depends_on_itself_alone(name):
    config, size, _ = GOLDEN[name]
    model = build(config)
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randint(0, 256, (2, 3, size, size), generator=rng, dtype=torch.uint8)
    together = model.translate(inputs, seeds=SEEDS)
    for i in range(2):
        alone = model.translate(inputs[i : i + 1], seeds=SEEDS[i : i + 1] + 99)
        assert int((alone[0].int() - together[i].int()).abs().max()) <= 1
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("downs", [7, 8])
def test_the_published_unet_layouts_load(downs):
    widths = tuple(64 * min(2**i, 8) for i in range(downs))
    config = change(UNET, widths=widths)
    with torch.device("meta"):
        network = UNetTranslator(config)
    names = network.state_dict()
    middle = "model.model.1.model.3.model.3.model.3"  # the first of the inner blocks of 512 channels
    assert names["model.model.0.weight"].shape == (64, 3, 4, 4)
    assert names["model.model.3.bias"].shape == (3,)
    assert names[f"{middle}.model.1.weight"].shape == (512, 512, 4, 4)
    assert names[f"{middle}.model.5.weight"].shape == (1024, 512, 4, 4)
    assert names[f"{middle}.model.6.running_var"].shape == (512,)
    innermost = "model.model.1" + ".model.3" * (downs - 2)
    assert names[f"{innermost}.model.3.weight"].shape == (512, 512, 4, 4)
    assert f"{innermost}.model.5.weight" not in names
    assert config.multiple == 2**downs


def test_the_published_residual_layouts_have_these_names():
    with torch.device("meta"):
        plain = ResNetTranslator(change(RESNET, width=64, blocks=9)).state_dict()
        dropped = ResNetTranslator(change(RESNET, width=64, blocks=6, dropout=True)).state_dict()
    assert plain["model.1.weight"].shape == (64, 3, 7, 7)
    assert plain["model.10.conv_block.5.weight"].shape == (256, 256, 3, 3)
    assert plain["model.19.weight"].shape == (256, 128, 3, 3)
    assert plain["model.26.weight"].shape == (3, 64, 7, 7)
    assert "model.15.conv_block.6.weight" in dropped
    assert "model.23.weight" in dropped


@pytest.mark.parametrize(("config", "layout"), [(UNET, "junyanz-unet"), (RESNET, "junyanz-resnet")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_layout_is_recognised(config, layout, prefix):
    found = recognise({"": {prefix + name for name in weights_of(config)}}, LAYOUTS.values())
    assert found is not None
    assert (found.layout.name, found.prefix) == (layout, prefix)


def test_stale_statistics_of_instance_normalisation_are_part_of_the_layout():
    stale = {
        f"model.{i}.{name}": torch.full((4,), 7.0) for i in (2, 5) for name in ("running_mean", "running_var")
    }
    model = build(RESNET, weights_of(RESNET) | stale)
    assert model.network.config == RESNET
    fresh = build(RESNET).translate(pictures(20), seeds=SEEDS)
    assert torch.equal(model.translate(pictures(20), seeds=SEEDS), fresh)


def test_instance_normalisation_takes_the_statistics_of_each_image():
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64) * 3 + 1
    mean, var = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(normalise("instance", 3).eval()(x), (x - mean) / (var + 1e-5).sqrt())
    assert isinstance(normalise("none", 3), nn.Identity)
    with pytest.raises(ValueError, match="unknown normalisation"):
        normalise("layer", 3)


def test_a_network_without_normalisation_is_told_apart():
    config = change(RESNET, normalisation="none")
    assert build(config).network.config == config


def test_the_skip_connection_of_the_unet_joins_input_and_output():
    model = build(UNET).network
    inner = model.model.model[1]
    x = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        y = inner(x)
    assert y.shape == (1, 8, 16, 16)
    assert torch.equal(y[:, :4], x)


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(2, 3, 48, 32, dtype=torch.uint8), "multiples of 32, not 48x32"),
        (torch.zeros(2, 3, 32, 32), "takes uint8"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), "takes uint8"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "2 seeds for 1 images"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, problem):
    with pytest.raises(UsageError, match=problem):
        build(UNET).translate(images, seeds=SEEDS)


def test_a_residual_generator_takes_multiples_of_four():
    with pytest.raises(UsageError, match="multiples of 4, not 22x20"):
        build(RESNET).translate(torch.zeros(2, 3, 22, 20, dtype=torch.uint8), seeds=SEEDS)
    wide = build(RESNET).translate(torch.zeros(2, 3, 20, 28, dtype=torch.uint8), seeds=SEEDS)
    assert wide.shape == (2, 3, 20, 28)


def test_checkpoints_that_do_not_fit_are_refused():
    source = Checkpoint(tensors=weights_of(RESNET), sha256="0" * 64, format="torch")
    with pytest.raises(CheckpointError, match="no generator of 'pix2pix'"):
        build_pix2pix(source, SamplingOptions())
    with pytest.raises(CheckpointError, match="maps 1 to 3 channels"):
        build(change(UNET, inputs=1))
    extra = weights_of(UNET) | {"model.model.9.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unexpected model\.model\.9\.weight"):
        build(UNET, extra)


def test_a_shorter_type_gives_about_the_same_image():
    whole = build(RESNET).translate(pictures(20), seeds=SEEDS)
    short = build(RESNET, dtype="bfloat16").translate(pictures(20), seeds=SEEDS)
    assert float((whole.float() - short.float()).abs().mean()) < 4.0
