"""StyleGAN3: the public layout loads strictly and gives the public code's images, configurations T and R.

The golden numbers are those of NVIDIA's network, run once outside this repository on the same seeded weights
(``style_weights``, lopsided filters and a transform included) and latents. All pixels agreed to 7e-6 of the
images' standard deviation, with random weights of T and R at 256 pixels to 5e-6.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from scipy.signal import firwin, upfirdn
from torch import Tensor

from evalkit.core import LatentGenerator
from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.facts import LAYOUTS
from evalkit.generators.gan.stylegan3.bands import Band, bands
from evalkit.generators.gan.stylegan3.facts import DEFAULTS
from evalkit.generators.gan.stylegan3.layouts import constructor_arguments, stylegan3_config
from evalkit.generators.gan.stylegan3.network import (
    FourierFeatures,
    StyleGAN3Config,
    StyleGAN3Generator,
    SynthesisLayer,
)
from evalkit.generators.gan.stylegan3.sampling import StyleGAN3, build
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators import layouts
from tests.generators.gan.style_weights import probe, style_weights

SEEDS = np.arange(3)
LABELS = np.array([0, 9, 4])
USUAL = dict(DEFAULTS) | {"margin_size": 4}
TINY = StyleGAN3Config(
    z_dim=16,
    c_dim=0,
    w_dim=24,
    embed_dim=0,
    mapping_widths=(24, 24),
    tracked_centre=True,
    resolution=16,
    channels=(16, 16, 16, 11, 8, 8, 3),
    kernel=3,
    radial=False,
    **USUAL,
)
ROUND = dataclasses.replace(TINY, kernel=1, radial=True)
COND = dataclasses.replace(TINY, c_dim=10, embed_dim=24)
change = dataclasses.replace

GOLDEN = {
    "T": (TINY, None, [0.3588, -0.06308, -0.02276, -0.00227, 0.15496, 0.35328, -0.03023, -0.01315]),
    "R": (ROUND, None, [0.03123, -0.0019, 0.06885, 0.01946, 0.10458, 0.08814, 0.05705, 0.04882]),
    "labels": (COND, None, [0.10631, -0.05687, 0.06128, 0.51743, 0.04488, -0.00993, 0.00883, 0.06946]),
    "cutoff": (
        change(TINY, truncation_cutoff=3),
        0.6,
        [0.36326, -0.06299, -0.02252, -0.00017, 0.15402, 0.35258, -0.03106, -0.01235],
    ),
    "clamp": (
        change(TINY, conv_clamp=0.5),
        None,
        [0.0733, 0.00278, 0.02982, -0.00771, 0.09921, 0.04216, 0.01931, 0.03867],
    ),
}


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def checkpoint(config: StyleGAN3Config, /, **fields: object) -> Checkpoint:
    given = {key: getattr(config, key) for key in DEFAULTS}
    if config.truncation_cutoff is not None:
        given["truncation_cutoff"] = config.truncation_cutoff
    tensors = style_weights(shapes_of(StyleGAN3Generator(config)))
    usual = {"tensors": tensors, "sha256": "0" * 64, "format": "torch", "given": given}
    return Checkpoint(**(usual | fields))


def images(model: StyleGAN3, labels: np.ndarray | None = None) -> Tensor:
    return model.synthesis(model.latents(SEEDS), space="z", noise_seeds=SEEDS, labels=labels)


@functools.cache
def whole_layout() -> Checkpoint:
    kinds = layouts.shapes("stylegan3-t-256")
    tensors = style_weights({key: shape for key, (_, shape) in kinds.items()})
    return Checkpoint(tensors=tensors, sha256="0" * 64, format="torch", given=dict(DEFAULTS))


def test_the_whole_layout_loads_strictly():
    model = build(whole_layout(), SamplingOptions())
    assert (model.resolution, model.layer_count, model.num_classes) == (256, 16, 0)
    assert set(model.network.state_dict()) == set(layouts.shapes("stylegan3-t-256"))


@pytest.mark.slow
def test_the_whole_layout_samples():
    image = build(whole_layout(), SamplingOptions()).generate(np.arange(1))
    assert image.shape == (1, 3, 256, 256)
    assert float(image.float().std()) > 1.0


@pytest.mark.parametrize("name", GOLDEN)
def test_images_are_those_of_the_public_network(name):
    config, psi, expected = GOLDEN[name]
    model = build(checkpoint(config), SamplingOptions(truncation=psi))
    made = images(model, LABELS if config.c_dim else None)
    assert probe(made) == pytest.approx(expected, abs=1e-5)
    sampled = model.generate(SEEDS, labels=LABELS if config.c_dim else None)
    assert sampled.shape == (3, 3, 16, 16)
    assert model.evaluations_per_image == 1


def test_the_layout_is_recognised():
    names = set(layouts.shapes("stylegan3-t-256"))
    found = recognise({"G": names, "G_ema": names}, LAYOUTS.values())
    assert found is not None
    assert (found.layout.name, found.part) == ("nvidia-stylegan3", "G_ema")


def test_bands_are_those_that_the_names_of_the_layout_state():
    plan = bands(stylegan3_config(whole_layout()))
    stated = [key.split(".")[1] for key in layouts.shapes("stylegan3-t-256") if key.endswith("magnitude_ema")]
    assert [int(name.split("_")[1]) for name in stated] == [band.size for band in plan]
    assert plan[0].rate == 16
    assert plan[0].cutoff == 2.0
    assert plan[-1] == Band(cutoff=128.0, rate=256, size=256)
    assert plan[6].cutoff == pytest.approx(2.0 * 64.0**0.5)  # half way up in the logarithm


def features(config: StyleGAN3Config, affine: list[float], transform: np.ndarray | None = None) -> tuple:
    layer = FourierFeatures(config, Band(cutoff=2.0, rate=16, size=24))
    layer.load_state_dict(style_weights(shapes_of(layer)))
    with torch.no_grad():
        layer.affine.weight.zero_()
        layer.affine.bias.copy_(torch.tensor(affine))
        layer.transform.copy_(torch.eye(3) if transform is None else torch.tensor(transform))
        return layer, layer(torch.zeros(1, 24))


def test_fourier_features_are_sines_of_the_position():
    layer, x = features(TINY, [1.0, 0.0, 0.0, 0.0])
    f, phase = layer.freqs.double().numpy(), layer.phases.double().numpy()
    p = (np.arange(24) + 0.5 - 12) / 16
    strength = np.clip(1 - (np.hypot(*f.T) - 2.0) / (8.0 - 2.0), 0, 1)
    waves = np.sin(
        2 * np.pi * (f[:, 0, None, None] * p + f[:, 1, None, None] * p[:, None] + phase[:, None, None])
    )
    mixing = layer.weight.detach().double().numpy() / math.sqrt(16)
    expected = np.einsum("oc,chw->ohw", mixing, waves * strength[:, None, None])
    assert x[0].numpy() == pytest.approx(expected, abs=1e-4)


def test_the_learned_transform_turns_and_shifts_the_canvas():
    _, straight = features(TINY, [1.0, 0.0, 0.0, 0.0])
    _, scaled = features(TINY, [5.0, 0.0, 0.0, 0.0])  # only the direction of the first two counts
    torch.testing.assert_close(scaled, straight)
    _, turned = features(TINY, [0.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(turned, straight.rot90(1, dims=(2, 3)), rtol=1e-4, atol=1e-4)
    _, shifted = features(TINY, [1.0, 0.0, 2 / 16, 0.0])  # two samples to the right
    torch.testing.assert_close(shifted[:, :, :, 2:], straight[:, :, :, :-2], rtol=1e-4, atol=1e-4)
    _, lower = features(TINY, [1.0, 0.0, 0.0, 3 / 16])
    torch.testing.assert_close(lower[:, :, 3:], straight[:, :, :-3], rtol=1e-4, atol=1e-4)


def test_the_users_transform_moves_frequencies_out_of_the_band():
    _, zoomed = features(TINY, [1.0, 0.0, 0.0, 0.0], np.diag([100.0, 100.0, 1.0]).astype(np.float32))
    assert float(zoomed.abs().max()) == 0.0


def slow_layer(layer: SynthesisLayer, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One image, output channel and filter pass by itself, in float64."""
    state = {key: value.double().numpy() for key, value in layer.state_dict().items()}
    k, total = state["weight"].shape[-1], layer.padding[0] + layer.padding[1]
    out = []
    for image, row in zip(x, w, strict=True):
        style = state["affine.weight"] @ row / np.sqrt(len(row)) + state["affine.bias"]
        style /= np.sqrt((style**2).mean())
        planes = []
        for bias, filters in zip(state["bias"], state["weight"], strict=True):
            own = filters / np.sqrt((filters**2).mean()) * style[:, None, None]
            own = own / np.sqrt((own**2).sum() + 1e-8) / np.sqrt(state["magnitude_ema"])
            padded = np.pad(image, ((0, 0), (k - 1, k - 1), (k - 1, k - 1)))
            size = padded.shape[1] - k + 1
            y = sum(
                own[:, a, b, None, None] * padded[:, a : a + size, b : b + size]
                for a in range(k)
                for b in range(k)
            )
            y = y.sum(axis=0) + bias
            for axis in (0, 1):
                y = np.moveaxis(y, axis, 0)
                full = upfirdn(state["up_filter"] * layer.up, y, up=layer.up, axis=0)
                start = len(state["up_filter"]) - 1 - layer.padding[0]
                y = full[start : start + size * layer.up + total - len(state["up_filter"]) + 1]
                y = np.moveaxis(y, 0, axis)
            y = np.clip(np.where(y > 0, y, 0.2 * y) * np.sqrt(2.0), -256, 256)
            for axis in (0, 1):
                y = np.moveaxis(y, axis, 0)
                taps = state["down_filter"]
                y = upfirdn(taps, y, axis=0)[len(taps) - 1 : -(len(taps) - 1) : layer.down]
                y = np.moveaxis(y, 0, axis)
            planes.append(y)
        out.append(np.stack(planes))
    return np.stack(out)


@pytest.mark.parametrize("before", [Band(4.0, 16, 24), Band(4.0, 8, 16)])
def test_a_layer_is_convolution_and_filtered_rectifier_of_each_image(before):
    layer = SynthesisLayer(TINY, 1, before, Band(4.0, 16, 24))
    layer.load_state_dict(style_weights(shapes_of(layer)))
    assert layer.up == (2 if before.rate == 16 else 4)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 16, before.size, before.size)), rng.normal(size=(2, 24))
    with torch.no_grad():
        own = layer(torch.tensor(x).float(), torch.tensor(w).float())
    assert own.shape == (2, 16, 24, 24)
    assert own.numpy() == pytest.approx(slow_layer(layer, x, w), rel=1e-4, abs=1e-4)


def test_with_the_papers_filters_a_wave_within_the_band_passes():
    """What is linear (positive input) keeps a slow wave, sampled at the same places: no shift, no gain."""
    config = change(TINY, channels=(1,) * 6 + (3,), kernel=1)
    layer = SynthesisLayer(config, 1, Band(2.0, 16, 36), Band(2.0, 16, 36))
    taps = torch.tensor(firwin(numtaps=12, cutoff=2.0, width=12.0, fs=32.0), dtype=torch.float32)
    with torch.no_grad():
        layer.affine.weight.zero_()
        layer.weight.fill_(1.0)
        layer.up_filter.copy_(taps)
        layer.down_filter.copy_(taps)
        wave = 2.0 + torch.sin(2 * math.pi * torch.arange(36) / 36)
        y = layer(wave.expand(1, 1, 36, 36), torch.zeros(1, 24))
    inner = slice(10, 26)
    expected = wave.expand(36, 36)[inner, inner] * math.sqrt(2.0)
    torch.testing.assert_close(y[0, 0, inner, inner], expected, rtol=0.02, atol=0.02)


def test_an_image_does_not_depend_on_its_batch():
    model = build(checkpoint(COND), SamplingOptions())
    z = model.latents(SEEDS)
    together = model.synthesis(z, space="z", noise_seeds=SEEDS, labels=LABELS)
    for i in range(3):
        alone = model.synthesis(
            z[i : i + 1], space="z", noise_seeds=SEEDS[i : i + 1], labels=LABELS[i : i + 1]
        )
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


def test_both_latent_spaces_are_shown_and_noise_is_none():
    model = build(checkpoint(COND), SamplingOptions())
    assert isinstance(model, LatentGenerator)
    assert model.spaces == ("z", "w")
    w = model.mapping(model.latents(SEEDS), labels=LABELS)
    assert torch.equal(model.synthesis(w, space="w", noise_seeds=SEEDS + 5), images(model, LABELS))


def test_constructor_arguments_decide_what_the_tensors_do_not_show():
    fields = constructor_arguments({"w_dim": 24, "margin_size": 4, "magnitude_ema_beta": 0.9})
    assert fields == USUAL | {"w_dim": 24}
    source = checkpoint(TINY, format="pickle", config={"margin_size": 4, "z_dim": 16}, given={})
    assert build(source, SamplingOptions()).network.config == TINY
    assert constructor_arguments({"conv_clamp": None})["conv_clamp"] is None
    assert constructor_arguments({"mapping_kwargs": {"lr_multiplier": 0.5}})["mapping_rate"] == 0.5
    assert constructor_arguments({}) == {}


def test_what_bare_tensors_do_not_reveal_is_asked_for():
    with pytest.raises(CheckpointError, match="do not reveal: conv_clamp, filter_size, first_cutoff"):
        build(checkpoint(TINY, given={}), SamplingOptions())


def test_a_wrong_band_plan_does_not_load():
    given = dict(DEFAULTS) | {"margin_size": 6}
    with pytest.raises(CheckpointError, match=r"missing synthesis\.L0_28_16"):
        build(checkpoint(TINY, given=given), SamplingOptions())
    with pytest.raises(ValueError, match="critically sampled"):
        bands(change(TINY, num_critical=6))


def test_other_files_are_refused():
    tensors = {key: value for key, value in checkpoint(TINY).tensors.items() if ".L" not in key}
    with pytest.raises(CheckpointError, match="no StyleGAN3 generator"):
        build(checkpoint(TINY, tensors=tensors), SamplingOptions())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shorter_types_give_about_the_same_images(dtype):
    whole = build(checkpoint(TINY), SamplingOptions()).generate(SEEDS)
    short = build(checkpoint(TINY), SamplingOptions(dtype=dtype)).generate(SEEDS)
    assert float((whole.float() - short.float()).abs().mean()) < 2.0
