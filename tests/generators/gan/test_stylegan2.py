"""StyleGAN2: both public layouts load strictly and give the public code's images.

The golden numbers are those of NVIDIA's networks (StyleGAN3 repository, StyleGAN2 inside it) and, for
rosinality's layout, of BasicSR's copy of rosinality's generator, run once outside this repository on the same
seeded weights (``style_weights``) and latents. All pixels agreed to 8e-6 of the images' standard deviation,
with random weights of the whole CIFAR-10 and 256-pixel layouts likewise.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.core import LatentGenerator
from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.facts import LAYOUTS
from evalkit.generators.gan.stylegan2.layouts import constructor_arguments
from evalkit.generators.gan.stylegan2.network import StyleGAN2Config, StyleGAN2Generator
from evalkit.generators.gan.stylegan2.sampling import StyleGAN2, build
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators import layouts
from tests.generators.gan.style_weights import TINY_STYLEGAN2 as TINY
from tests.generators.gan.style_weights import probe, rosinality_names, style_weights

SEEDS = np.arange(3)
LABELS = np.array([0, 9, 4])
COND = dataclasses.replace(TINY, c_dim=10, embed_dim=24)
STORED = SamplingOptions(sampler="stored-noise")
ADA = {"mapping_rate": 0.01, "conv_clamp": 256.0}
change = dataclasses.replace

GOLDEN = {
    "skip": (TINY, [0.35007, 0.64678, 3.81809, -0.01863, 2.63484, 0.68825, -0.06545, 0.15655]),
    "resnet": (
        change(TINY, architecture="resnet"),
        [0.5046, -0.47892, 1.50142, 1.06166, 0.66253, 0.78973, -0.41105, 0.1],
    ),
    "orig": (
        change(TINY, architecture="orig"),
        [0.65142, -0.07977, 1.34091, 0.50797, 1.06482, 0.3172, -0.11982, 0.03088],
    ),
    "clamp": (
        change(TINY, conv_clamp=1.5),
        [0.31038, 0.82804, 2.79748, -0.10438, 2.31417, 0.30202, 0.53504, 0.16495],
    ),
    "labels": (COND, [-0.22133, 0.78117, 1.98996, -2.33103, 1.25461, 0.63637, 0.28753, 0.22537]),
}


def shapes_of(config: StyleGAN2Config) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in StyleGAN2Generator(config).state_dict().items()}


def checkpoint(config: StyleGAN2Config, /, **fields: object) -> Checkpoint:
    given = {"mapping_rate": config.mapping_rate, "conv_clamp": config.conv_clamp}
    if config.truncation_cutoff is not None:
        given["truncation_cutoff"] = config.truncation_cutoff
    usual = {
        "tensors": style_weights(shapes_of(config)),
        "sha256": "0" * 64,
        "format": "torch",
        "given": given,
    }
    return Checkpoint(**(usual | fields))


def images(model: StyleGAN2, labels: np.ndarray | None = None) -> Tensor:
    return model.synthesis(model.latents(SEEDS), space="z", noise_seeds=SEEDS, labels=labels)


def labels_of(config: StyleGAN2Config) -> np.ndarray | None:
    return LABELS if config.c_dim else None


def full_layout(name: str) -> dict[str, Tensor]:
    kinds = layouts.shapes(name)
    return style_weights({key: shape for key, (_, shape) in kinds.items()})


@pytest.mark.parametrize(
    ("name", "given"),
    [("stylegan2-ada-cifar10-cond", ADA), ("stylegan2-ada-256", ADA), ("rosinality-stylegan2-256", {})],
)
def test_whole_layouts_load_strictly_and_sample(name, given):
    tensors = full_layout(name)
    source = Checkpoint(tensors=tensors, sha256="0" * 64, format="torch", given=given)
    model = build(source, SamplingOptions())
    seeds = np.arange(2 if model.resolution < 64 else 1)
    sampled = model.generate(seeds, labels=seeds if model.num_classes else None)
    assert sampled.shape == (len(seeds), 3, model.resolution, model.resolution)
    assert float(sampled.float().std()) > 5.0
    assert not torch.equal(sampled[0], sampled[-1]) or len(seeds) == 1
    assert model.evaluations_per_image == 1


@pytest.mark.parametrize("name", GOLDEN)
def test_images_are_those_of_the_public_network(name):
    config, expected = GOLDEN[name]
    model = build(checkpoint(config), STORED)
    assert probe(images(model, labels_of(config))) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        (None, [0.11757, 0.09312, 2.83958, -2.00968, 1.69405, -0.65778, -0.41849, -0.05415]),
        (3, [0.37878, 0.83253, 3.7368, -0.21402, 2.43761, 0.36797, 0.38397, 0.10289]),
    ],
)
def test_truncation_and_its_cutoff_are_those_of_the_public_network(cutoff, expected):
    config = change(TINY, truncation_cutoff=cutoff)
    model = build(checkpoint(config), SamplingOptions(sampler="stored-noise", truncation=0.6))
    assert probe(images(model)) == pytest.approx(expected, abs=2e-5)
    w = model.mapping(model.latents(SEEDS))
    assert torch.equal(model.synthesis(w, space="w", noise_seeds=SEEDS), images(model))


def test_rosinality_images_are_those_of_its_network():
    narrow = change(TINY, z_dim=24, channels=(16, 16, 16), tracked_centre=False)
    tensors = style_weights(rosinality_names(shapes_of(narrow)))
    model = build(Checkpoint(tensors=tensors, sha256="0" * 64, format="torch"), STORED)
    expected = [-1.28975, 0.17164, -0.23737, -1.03447, -0.27763, 0.26003, -0.64405, -0.49434]
    assert probe(images(model)) == pytest.approx(expected, abs=2e-5)


def test_an_unknown_rosinality_tensor_is_named():
    narrow = change(TINY, z_dim=24, channels=(16, 16, 16), tracked_centre=False)
    tensors = style_weights(rosinality_names(shapes_of(narrow))) | {"convs.0.extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unexpected convs\.0\.extra"):
        build(Checkpoint(tensors=tensors, sha256="0" * 64, format="torch"), STORED)


@pytest.mark.parametrize(
    "name", ["stylegan2-ada-256", "stylegan2-ada-cifar10-cond", "rosinality-stylegan2-256"]
)
def test_the_layout_is_recognised(name):
    part = "g_ema" if name.startswith("rosinality") else "G_ema"
    found = recognise({part: set(layouts.shapes(name))}, LAYOUTS.values())
    assert found is not None
    assert found.layout.name == ("rosinality-stylegan2" if part == "g_ema" else "nvidia-stylegan2")
    assert found.part == part


def test_the_mapping_network_is_its_formula():
    config = change(COND, mapping_rate=0.1)
    model = build(checkpoint(config), STORED)
    state = {key: v.double().numpy() for key, v in model.network.mapping.state_dict().items()}
    z = model.latents(SEEDS).double().numpy()
    label = state["embed.weight"][:, LABELS].T / np.sqrt(10) + state["embed.bias"]
    halves = [v / np.sqrt((v**2).mean(axis=1, keepdims=True) + 1e-8) for v in (z, label)]
    x = np.concatenate(halves, axis=1)
    for i in range(2):
        y = x @ (state[f"fc{i}.weight"] * 0.1 / np.sqrt(x.shape[1])).T + 0.1 * state[f"fc{i}.bias"]
        x = np.where(y > 0, y, 0.2 * y) * np.sqrt(2.0)
    own = model.mapping(model.latents(SEEDS), labels=LABELS)
    assert own.numpy() == pytest.approx(x, rel=1e-4, abs=1e-3)


def test_an_image_does_not_depend_on_its_batch():
    model = build(checkpoint(COND), SamplingOptions())
    z = model.latents(SEEDS)
    together = model.synthesis(z, space="z", noise_seeds=SEEDS, labels=LABELS)
    for i in range(3):
        alone = model.synthesis(
            z[i : i + 1], space="z", noise_seeds=SEEDS[i : i + 1], labels=LABELS[i : i + 1]
        )
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


def test_noise_is_that_of_the_seed_of_the_checkpoint_or_none():
    models = {
        name: build(checkpoint(TINY), SamplingOptions(sampler=name))
        for name in ("forward", "stored-noise", "no-noise")
    }
    made = {name: images(model) for name, model in models.items()}
    assert len({tuple(probe(m)) for m in made.values()}) == 3
    z = models["forward"].latents(SEEDS)
    for name, model in models.items():
        other = model.synthesis(z, space="z", noise_seeds=SEEDS + 100)
        assert torch.equal(other, made[name]) == (name != "forward")
    assert len({model.spec.digest() for model in models.values()}) == 3


def test_silent_layers_do_not_mind_the_noise():
    silent = change(TINY, noise_inputs=False)
    assert torch.equal(
        images(build(checkpoint(silent), SamplingOptions())), images(build(checkpoint(silent), STORED))
    )


def test_truncation_to_zero_is_the_centre_and_to_one_is_nothing():
    plain, none = build(checkpoint(TINY), STORED), build(checkpoint(TINY), change(STORED, truncation=1.0))
    assert torch.equal(images(plain), images(none))
    centre = build(checkpoint(TINY), change(STORED, truncation=0.0))
    w = centre.mapping(centre.latents(SEEDS))
    torch.testing.assert_close(w, centre.network.mapping.w_avg.expand(3, -1))


def test_a_centre_that_was_not_tracked_is_the_mean_over_many_latents():
    model = build(checkpoint(change(TINY, tracked_centre=False)), change(STORED, truncation=0.0))
    w = model.mapping(model.latents(SEEDS))
    many = build(checkpoint(change(TINY, tracked_centre=False)), STORED)
    spread = many.mapping(many.latents(np.arange(4096)))
    torch.testing.assert_close(w[0], spread.double().mean(dim=0).float(), rtol=1e-4, atol=1e-4)


def test_both_latent_spaces_are_shown():
    model = build(checkpoint(COND), STORED)
    assert isinstance(model, LatentGenerator)
    assert model.spaces == ("z", "w")
    w = model.mapping(model.latents(SEEDS), labels=LABELS)
    assert torch.equal(model.synthesis(w, space="w", noise_seeds=SEEDS), images(model, LABELS))
    with pytest.raises(UsageError, match="needs labels"):
        model.mapping(model.latents(SEEDS))


@pytest.mark.parametrize(
    ("stated", "clamp"),
    [
        ({"z_dim": 16, "synthesis_kwargs": {}}, None),
        ({"z_dim": 16, "synthesis_kwargs": {"conv_clamp": 256, "num_fp16_res": 4}}, 256.0),
        ({"z_dim": 16, "channel_base": 16384}, 256.0),
        ({"z_dim": 16, "conv_clamp": None}, None),
    ],
)
def test_constructor_arguments_decide_the_clamp(stated, clamp):
    fields = constructor_arguments(stated)
    assert fields == {"z_dim": 16, "mapping_rate": 0.01, "conv_clamp": clamp}
    model = build(checkpoint(TINY, format="pickle", config=stated, given={}), STORED)
    assert model.network.config == change(TINY, conv_clamp=clamp)


def test_arguments_that_the_tensors_contradict_are_refused():
    with pytest.raises(CheckpointError, match="z_dim is given as 512, but the tensors show 16"):
        build(checkpoint(TINY, config={"z_dim": 512, "synthesis_kwargs": {}}), STORED)
    with pytest.raises(CheckpointError, match="activation 'relu'"):
        build(checkpoint(TINY, config={"synthesis_kwargs": {"activation": "relu"}}), STORED)


def test_what_bare_tensors_do_not_reveal_is_asked_for():
    with pytest.raises(CheckpointError, match="do not reveal: conv_clamp, mapping_rate"):
        build(checkpoint(TINY, given={}), STORED)


@pytest.mark.parametrize(
    "gone", ["mapping.fc0.weight", "synthesis.b4.conv1.weight", "synthesis.b16.torgb.weight"]
)
def test_other_files_are_refused(gone):
    tensors = style_weights(shapes_of(TINY))
    del tensors[gone]
    with pytest.raises(CheckpointError, match=r"no mapping network|no StyleGAN2 generator"):
        build(checkpoint(TINY, tensors=tensors), STORED)


def test_grey_images_become_rgb_and_other_channels_are_refused():
    grey = images(build(checkpoint(change(TINY, image_channels=1)), STORED))
    assert grey.shape == (3, 3, 16, 16)
    assert torch.equal(grey[:, 0], grey[:, 2])
    with pytest.raises(CheckpointError, match="4 channels"):
        images(build(checkpoint(change(TINY, image_channels=4)), STORED))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shorter_types_give_about_the_same_images(dtype):
    whole = build(checkpoint(TINY), STORED).generate(SEEDS)
    short = build(checkpoint(TINY), change(STORED, dtype=dtype)).generate(SEEDS)
    assert float((whole.float() - short.float()).abs().mean()) < 4.0


def test_a_network_needs_an_architecture_that_exists():
    with pytest.raises(ValueError, match="architecture"):
        change(TINY, architecture="progressive")


def test_a_centre_that_the_file_lacks_is_computed_the_same_way_whoever_asks_first():
    """It stays for the images of a strict run, whose bits must not depend on the number of threads."""
    model = build(checkpoint(change(TINY, tracked_centre=False)), change(STORED, truncation=0.5))
    seen: list[int] = []
    model.network.mapping.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model.mapping(model.latents(SEEDS))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [2, 1]
