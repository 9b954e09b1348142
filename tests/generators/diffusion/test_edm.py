"""Karras et al. 2022: layout, inference of the configuration, preconditioning, and every layer by arithmetic.

The golden numbers were made with the authors' public ``training/networks.py``, run outside this repository,
on the weights of ``_waves``.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from evalkit.errors import CheckpointError, UsageError
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.edm.configuration import EDMConfig, described_by, inferred_from
from evalkit.generators.diffusion.edm.layers import (
    BlockStyle,
    FourierEmbedding,
    PositionalEmbedding,
    ResamplingConv,
    UNetBlock,
    group_norm,
    resampling_filter,
)
from evalkit.generators.diffusion.edm.network import EDMNetwork
from evalkit.generators.diffusion.edm.sampling import build, process_of
from evalkit.generators.loading import load_generator
from evalkit.generators.sampling import SamplingOptions
from tests.generators.diffusion.waves import strided
from tests.generators.persistent_files import Persistent, write

SONG = EDMConfig(
    preconditioning="EDMPrecond",
    network="SongUNet",
    resolution=8,
    num_classes=3,
    augmentations=9,
    embedding="positional",
    noise_width=8,
    embedding_width=32,
    stem=8,
    channels=(8, 16),
    blocks=1,
    attention=(4,),
    encoder="standard",
    decoder="standard",
    filter_size=2,
    out_channels=3,
    known_sigmas=0,
)
ADM = dataclasses.replace(
    SONG,
    network="DhariwalUNet",
    noise_width=64,
    embedding_width=256,
    stem=64,
    channels=(64, 128),
    attention=(8, 4),
)
CASES = {
    "ddpm++ under EDM": SONG,
    "ncsn++ under VE": dataclasses.replace(
        SONG,
        preconditioning="VEPrecond",
        num_classes=0,
        augmentations=0,
        embedding="fourier",
        noise_width=16,
        encoder="residual",
        filter_size=4,
    ),
    "skips under VP": dataclasses.replace(
        SONG, preconditioning="VPPrecond", augmentations=0, encoder="skip", decoder="skip", filter_size=4
    ),
    "adm under EDM": ADM,
    "adm under iDDPM": dataclasses.replace(
        ADM,
        preconditioning="iDDPMPrecond",
        augmentations=0,
        attention=(4,),
        out_channels=6,
        known_sigmas=51,
        timesteps=50,
    ),
}
GOLDEN = {
    "ddpm++ under EDM": (-0.320761, 0.236996, -0.568189, -0.444841, -0.147038, 0.411068),
    "ncsn++ under VE": (-0.352008, 0.263255, -3.418441, -2.593257, -0.613951, 2.004527),
    "skips under VP": (0.432443, -0.076686, 3.145092, 4.696738, 1.17607, 2.925501),
    "adm under EDM": (0.179899, 0.0616, -0.382931, 0.612277, 0.040713, 0.337387),
    "adm under iDDPM": (-0.2647, -0.039808, 2.227815, -3.054963, -0.182069, 1.573629),
}
STYLE = BlockStyle(
    embedding=4,
    adaptive_scale=False,
    skip_scale=math.sqrt(0.5),
    eps=1e-6,
    filter_size=2,
    project_skips=True,
    head_width=4,
)


def test_the_public_layout_is_read_to_the_last_tensor_and_sampled() -> None:
    """One step of Heun's sampler is one evaluation."""
    state = strided("edm-cifar10-cond-vp")
    generator = build(_checkpoint(state, img_resolution=32, img_channels=3, label_dim=10), _steps(1))
    assert (generator.num_classes, generator.resolution) == (10, 32)
    images = generator.generate(np.array([1], dtype=np.int64), labels=np.array([3], dtype=np.int64))
    assert images.shape == (1, 3, 32, 32)
    # One step from sigma 80 hardly looks at the image: D is what the network's last layers make of noise.
    assert images.float().std() > 0.1
    assert generator.evaluations_per_image == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_authors_networks(case: str) -> None:
    """Labels 1 and "none" where there are classes, at sigma 0.2 and 2.5."""
    config = CASES[case]
    labels = torch.tensor([1, 3]) if config.num_classes else None
    out = _filled(config)(_waves("x", (2, 3, 8, 8)) * 3, torch.tensor([0.2, 2.5]), labels)
    numbers = [out[0, 0, 0, 0], out[0, 1, 3, 5], out[1, 2, 7, 7], out[1, 0, 4, 2], out.mean(), out.std()]
    assert [float(number) for number in numbers] == pytest.approx(GOLDEN[case], abs=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_tensors_show_the_whole_network(case: str) -> None:
    """All that is not the preconditioning is inferred."""
    config = CASES[case]
    shown = inferred_from(_filled(config).state_dict())
    assert EDMConfig(**{**shown, "preconditioning": config.preconditioning}) == config


@pytest.mark.parametrize("sampler", ["heun", "ddim", "dpm-solver++"])
def test_steps_that_round_to_the_same_known_sigma_are_one(sampler: str) -> None:
    """iDDPM's networks know a few sigmas: more steps than known are refused, equal ones are taken once."""
    state = _filled(CASES["adm under iDDPM"]).state_dict()
    state["u"] = torch.tensor([*np.geomspace(60, 0.01, 50), 0.0], dtype=torch.float32)
    held = Checkpoint(tensors=state, sha256="0" * 64, format="pickle", class_name="a.iDDPMPrecond", config={})
    labels = {"labels": np.array([1])} if CASES["adm under iDDPM"].num_classes else {}
    options = SamplingOptions(sampler=sampler, steps=45)
    generator: Any = build(held, options)
    sigmas = [level.sigma for level in generator.levels]
    assert len(set(sigmas)) == len(sigmas) < 46
    images = generator.generate(np.array([1], dtype=np.int64), **labels)
    assert images.shape == (1, 3, 8, 8)
    assert generator.evaluations_per_image == len(sigmas[1:]) * (2 if sampler == "heun" else 1) - (
        sampler == "heun"
    )
    with pytest.raises(UsageError, match="at most 50"):
        build(held, dataclasses.replace(options, steps=51))


def test_half_precision_computes_in_it_and_moves_little() -> None:
    """The preconditioning stays in float32."""
    config = dataclasses.replace(SONG, preconditioning="EDMPrecond")
    held = _checkpoint(_filled(config).state_dict())
    seeds, labels = np.array([5, 6], dtype=np.int64), np.array([0, 1])
    exact, half = (
        build(held, dataclasses.replace(_steps(2), dtype=dtype)).generate(seeds, labels=labels)
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < (exact.float() - half.float()).abs().mean() < 5


@pytest.mark.parametrize("case", ["ddpm++ under EDM", "ncsn++ under VE"])
def test_an_image_does_not_depend_on_its_batch(case: str) -> None:
    """Batches of 1 and 3 agree."""
    config = CASES[case]
    checkpoint = Checkpoint(
        tensors=_filled(config).state_dict(),
        sha256="0" * 64,
        format="pickle",
        class_name=f"training.networks.{config.preconditioning}",
        config={},
    )
    generator = build(checkpoint, _steps(3))
    seeds = np.array([5, 6, 7], dtype=np.int64)
    labels = np.array([0, 2, 1], dtype=np.int64) if config.num_classes else None
    three = generator.generate(seeds, labels=labels)
    alone = generator.generate(seeds[1:2], labels=None if labels is None else labels[1:2])
    assert int((three[1:2].int() - alone.int()).abs().max()) <= 1
    assert three.float().std() > 1


def test_a_pickle_states_its_class_and_arguments(tmp_path: Path) -> None:
    """Read by the restricted reader, as the public files are; the embedded source never runs."""
    state = _filled(SONG).state_dict()
    network = _pickled(
        state, "EDMPrecond", img_resolution=8, img_channels=3, label_dim=3, model_type="SongUNet"
    )
    write(tmp_path / "edm.pkl", {"ema": network, "loss_fn": None, "dataset_kwargs": {}})
    generator: Any = load_generator("auto", tmp_path / "edm.pkl", options=_steps(2))
    assert generator.name == "edm"
    assert generator.network.config == SONG
    found = generator.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_state_dict_without_its_class_is_refused() -> None:
    """The preconditioning is nothing that tensors show, except iDDPM's."""
    bare = Checkpoint(tensors=_filled(SONG).state_dict(), sha256="0" * 64, format="torch")
    with pytest.raises(CheckpointError, match="do not reveal: preconditioning"):
        build(bare, _steps(2))
    iddpm = _filled(CASES["adm under iDDPM"]).state_dict()
    assert inferred_from(iddpm)["preconditioning"] == "iDDPMPrecond"


def test_guidance_needs_training_without_labels() -> None:
    """label_dropout in the constructor's arguments allows it."""
    state = _filled(SONG).state_dict()
    options = SamplingOptions(steps=2, guidance=2.0)
    with pytest.raises(UsageError, match="guidance"):
        build(_checkpoint(state), options)
    generator = build(_checkpoint(state, label_dropout=0.1), options)
    generator.generate(np.array([1], dtype=np.int64), labels=np.array([1], dtype=np.int64))
    assert generator.evaluations_per_image == 6  # type: ignore[attr-defined]


def test_steps_stay_within_the_levels_that_the_network_knows() -> None:
    """0.002 to 80 for EDM and VP, from 0.02 for VE, the buffer's own for iDDPM."""
    assert _range("ddpm++ under EDM") == (0.002, 80.0)
    assert _range("skips under VP") == (0.002, 80.0)
    assert _range("ncsn++ under VE") == (0.02, 80.0)
    process = process_of(_filled(CASES["adm under iDDPM"]))
    assert len(process.known) == 50
    assert {level.sigma for level in process.levels(5)} <= {*process.known, 0.0}


@pytest.mark.parametrize(
    ("preconditioning", "expected"),
    [
        ("EDMPrecond", (0.25 / 4.25, 2 * 0.5 / math.sqrt(4.25), 1 / math.sqrt(4.25), math.log(2) / 4)),
        ("VEPrecond", (1.0, 2.0, 1.0, 0.0)),
        (
            "VPPrecond",
            (1.0, -2.0, 1 / math.sqrt(5), 999 * (math.sqrt(0.01 + 39.8 * math.log(5)) - 0.1) / 19.9),
        ),
    ],
)
def test_preconditioning_at_sigma_2(preconditioning: str, expected: tuple[float, ...]) -> None:
    """Table 1, written out."""
    network = EDMNetwork(dataclasses.replace(SONG, preconditioning=preconditioning))
    found = network.preconditioning(torch.tensor([2.0]))
    assert [float(value) for value in found] == pytest.approx(expected, rel=1e-5)


def test_iddpm_sees_the_index_of_the_nearest_level() -> None:
    """u = (30, 3, 0.3, 0) and M = 3: sigma 2 is nearest to u_1, hence time M - 1 - 1."""
    network = EDMNetwork(dataclasses.replace(CASES["adm under iDDPM"], known_sigmas=4, timesteps=3))
    network.u = torch.tensor([30.0, 3.0, 0.3, 0.0])
    found = network.preconditioning(torch.tensor([2.0, 29.0, 0.2]))
    assert found.noise.tolist() == [1.0, 2.0, 0.0]
    assert found.out.tolist() == pytest.approx([-2.0, -29.0, -0.2])


def test_noise_embeddings() -> None:
    """DDPM++: sines first, last frequency 1e-4; ADM: cosines first, without that end; NCSN++: 2 pi f x."""
    x = torch.tensor([3.0])
    ddpm = PositionalEmbedding(6, endpoint=True, sines_first=True)(x)[0].tolist()
    angles = [3.0, 0.03, 0.0003]
    assert ddpm == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)], abs=1e-6)
    adm = PositionalEmbedding(6, endpoint=False, sines_first=False)(x)[0].tolist()
    angles = [3 * 10000 ** (-k / 3) for k in range(3)]
    assert adm == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=1e-6)
    fourier = FourierEmbedding(4)
    fourier.freqs = torch.tensor([0.1, 0.25])
    angles = [2 * math.pi * 0.3, 2 * math.pi * 0.75]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    assert fourier(x)[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [2, 4])
def test_resampling_is_an_explicit_filter(size: int) -> None:
    """Down: pad, correlate, keep every other; up: insert zeros, correlate with four times the filter."""
    f = resampling_filter(size)[0, 0]
    assert f.sum() == pytest.approx(1.0)
    x = _waves("image", (1, 1, 6, 6))
    reach = (size - 1) // 2
    down = ResamplingConv(1, 1, 0, down=True, filter_size=size)(x)
    padded = F.pad(x, (reach,) * 4)[0, 0]
    by_hand = torch.stack(
        [
            torch.stack(
                [
                    (padded[i : i + size, j : j + size] * f).sum()
                    for j in range(0, padded.shape[1] - size + 1, 2)
                ]
            )
            for i in range(0, padded.shape[0] - size + 1, 2)
        ]
    )
    torch.testing.assert_close(down[0, 0], by_hand)
    up = ResamplingConv(1, 1, 0, up=True, filter_size=size)(x)
    spread = torch.zeros(1, 1, 12, 12)
    spread[..., ::2, ::2] = x
    before = size - 1 - reach
    convolved = F.conv2d(F.pad(spread, (before, reach, before, reach)), 4 * f.flip(0, 1)[None, None])
    torch.testing.assert_close(up, convolved[..., :12, :12])


def test_the_residual_input_convolves_before_it_filters() -> None:
    """The order shows at the border: conv with padding 1 + 1, then the filter at stride 2 without any."""
    layer = ResamplingConv(2, 3, 3, down=True, filter_size=4, filter_last=True)
    x = _waves("x", (1, 2, 8, 8))
    assert layer.weight is not None
    wide = F.conv2d(x, layer.weight, layer.bias, padding=2)
    expected = torch.cat(
        [F.conv2d(wide[:, c : c + 1], resampling_filter(4), stride=2) for c in range(3)], dim=1
    )
    torch.testing.assert_close(layer(x), expected)


def test_attention_takes_queries_keys_and_values_channel_by_channel() -> None:
    """Output channel 3 (head c + i) + {0, 1, 2} of ``qkv``; scale 1/sqrt(head width)."""
    torch.manual_seed(0)
    block = UNetBlock(8, 8, STYLE, attention=True)
    x = torch.randn(1, 8, 2, 3)
    rows = block.qkv(block.norm2(x)).reshape(24, 6)
    mixed = torch.zeros(8, 6)
    for head in range(2):
        q, k, v = (torch.stack([rows[3 * (4 * head + c) + part] for c in range(4)]) for part in range(3))
        mixed[4 * head : 4 * head + 4] = v @ ((q.T @ k) / 2).softmax(dim=1).T
    torch.testing.assert_close(block._attend(x), block.proj(mixed.reshape(1, 8, 2, 3)), atol=1e-5, rtol=0)


def test_norms_have_four_channels_a_group_at_least_and_their_own_eps() -> None:
    """24 channels make 6 groups; 1e-6 in DDPM++ and NCSN++, 1e-5 in ADM."""
    assert (group_norm(24, eps=1e-6).num_groups, group_norm(256, eps=1e-6).num_groups) == (6, 32)
    for config, eps in ((SONG, 1e-6), (ADM, 1e-5)):
        norms = [m for m in EDMNetwork(config).modules() if isinstance(m, torch.nn.GroupNorm)]
        assert {norm.eps for norm in norms} == {eps}


def test_impossible_descriptions_are_refused() -> None:
    """Unknown classes and arguments, and tensors of something else."""
    with pytest.raises(CheckpointError, match="unknown preconditioning"):
        dataclasses.replace(SONG, preconditioning="Precond")
    with pytest.raises(CheckpointError, match="output channels"):
        dataclasses.replace(SONG, out_channels=6)
    with pytest.raises(CheckpointError, match="unknown arguments"):
        described_by("EDMPrecond", {"temperature": 3})
    with pytest.raises(CheckpointError, match="not those of an EDM network"):
        inferred_from({"model.weight": torch.zeros(1)})
    assert "sigma_max" not in described_by("EDMPrecond", {"sigma_max": float("inf")})


def _filled(config: EDMConfig) -> EDMNetwork:
    network = EDMNetwork(config).eval().requires_grad_(requires_grad=False)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("freqs"):
            state[name] = _waves("freqs", tuple(tensor.shape)) * 16
        elif name == "u":
            state[name] = _levels(len(tensor) - 1)
        elif not name.endswith("resample_filter"):
            state[name] = _waves(name, tuple(tensor.shape))
    network.load_state_dict(state)
    return network


def _pickled(state: dict[str, Tensor], class_name: str, **arguments: Any) -> torch.nn.Module:
    node: Any = type("Module", (Persistent,), {"public_name": class_name, "__module__": __name__})(
        **arguments
    )
    below: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if rest:
            below.setdefault(first, {})[rest] = tensor
        else:
            node.register_buffer(first, tensor)
    for first, part in below.items():
        node.add_module(first, _pickled(part, "Layer"))
    return cast("torch.nn.Module", node)


def _levels(steps: int) -> Tensor:
    u = torch.zeros(steps + 1)
    for j in range(steps, 0, -1):
        now, before = (math.sin(math.pi / 2 * i / steps / 1.008) ** 2 for i in (j, j - 1))
        u[j - 1] = ((u[j] ** 2 + 1) / max(before / now, 0.001) - 1).sqrt()
    return u


def _range(case: str) -> tuple[float, float]:
    process = process_of(EDMNetwork(CASES[case]))
    return process.sigma_min, process.sigma_max


def _checkpoint(state: dict[str, Tensor], **arguments: Any) -> Checkpoint:
    return Checkpoint(
        tensors=state,
        sha256="0" * 64,
        format="pickle",
        layout="nvidia-edm",
        class_name="EDMPrecond",
        config={"model_type": "SongUNet", **arguments},
    )


def _steps(steps: int) -> SamplingOptions:
    return SamplingOptions(steps=steps)


def _waves(name: str, shape: tuple[int, ...]) -> Tensor:
    k = torch.arange(math.prod(shape), dtype=torch.float64) + len(name)
    wave = torch.cos(k * k * 0.37 + 1.3 * k).reshape(shape)
    return (wave * math.sqrt(2 / (wave.numel() / shape[0])) if len(shape) > 1 else wave).float()
