"""pytorch-ddpm and the DDIM repository: layouts, configuration, and every place where a port goes wrong.

The golden numbers were made on the weights of ``waves``: those of the DDIM network by the package
taming-transformers 0.0.1 (PyPI), which holds pesser's own ``Model``; those of pytorch-ddpm by its own
``model.py``, typed in again.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from evalkit.core import Generator
from evalkit.counter_noise import STEP_STREAM, normal_at
from evalkit.errors import CheckpointError
from evalkit.generators import load_generator
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.community.facts import DDIM_REPOSITORY, FACTS, LAYOUTS, PYTORCH_DDPM
from evalkit.generators.diffusion.community.pesser import DDIMConfig, DDIMUNet, Downsample
from evalkit.generators.diffusion.community.pytorch_ddpm import (
    Halve,
    PytorchDDPMConfig,
    PytorchDDPMUNet,
    time_table,
)
from evalkit.generators.diffusion.community.reading import read_ddim, read_pytorch_ddpm
from evalkit.generators.diffusion.community.sampling import build_ddim, build_pytorch_ddpm
from evalkit.generators.diffusion.embedding import sinusoids
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions, quantise
from evalkit.seeding import normal_per_image
from tests.generators.diffusion.waves import INPUTS, bare, fill, probed, strided
from tests.generators.layouts import shapes

PRESETS = {name: dict(values) for facts in FACTS for name, values in facts.presets.items()}
TABLE = "time_embedding.timembedding.0.weight"
SEEDS = np.array([3, 5, 8], dtype=np.int64)
DDIM_GIVEN = {**PRESETS["ddim-cifar10"], "image_size": 8}
DDPM_GIVEN = {**PRESETS["pytorch-ddpm-cifar10"], "img_size": 8}
DDIM_TINY = DDIMConfig(
    ch=32, levels=(32, 64, 96), num_res_blocks=2, attention_levels=(False, True, False), **DDIM_GIVEN
)
DDPM_TINY = PytorchDDPMConfig(
    ch=32, levels=(32, 64, 96), num_res_blocks=2, attention_levels=(False, True, False), T=1000, **DDPM_GIVEN
)
BUILDS = {
    "ddim-pesser": (build_ddim, DDIMUNet, DDIM_TINY, DDIM_GIVEN, ()),
    "pytorch-ddpm": (build_pytorch_ddpm, PytorchDDPMUNet, DDPM_TINY, DDPM_GIVEN, (TABLE,)),
}


def checkpoint(held, **given: object) -> Checkpoint:
    return Checkpoint(tensors=held, sha256="0" * 64, format="torch", given=given)


def tiny(name: str, *, sampler: str, steps: int, **changes: object):
    build, network, config, given, keep = BUILDS[name]
    held = bare(fill(network(config), keep=keep))
    return build(checkpoint(held, **given | changes), SamplingOptions(sampler=sampler, steps=steps))


def test_pessers_network_gives_these_numbers():
    output = fill(DDIMUNet(DDIM_TINY))(INPUTS, torch.tensor([3.0, 712.25]))
    assert probed(output) == pytest.approx((0.035558, -0.168282, 0.359456, -2.005086), abs=2e-5)


def test_pytorch_ddpms_network_gives_these_numbers():
    network = fill(PytorchDDPMUNet(DDPM_TINY), keep=(TABLE,))
    output = network(INPUTS, torch.tensor([3.0, 712.0]))
    assert probed(output) == pytest.approx((-0.134581, -0.185357, -3.279353, -0.333899), abs=2e-5)


def test_time_embedding_of_the_ddim_repository_is_sines_first_over_half_minus_one():
    t, width = 250.25, 10
    angles = [t * 10000 ** (-i / 4) for i in range(5)]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    assert sinusoids(torch.tensor([t]), width)[0].tolist() == pytest.approx(expected, abs=2e-5)
    assert not sinusoids(torch.tensor([t]), 7)[0, -1]


def test_time_table_of_pytorch_ddpm_interleaves():
    row = [f(37 * 10000 ** (-2 * i / 8)) for i in range(4) for f in (math.sin, math.cos)]
    assert time_table(100, 8)[37].tolist() == pytest.approx(row, abs=1e-5)


def test_the_stored_table_is_used_even_where_it_is_another():
    held = bare(fill(PytorchDDPMUNet(DDPM_TINY), keep=(TABLE,)))
    held[TABLE].mul_(2.0)
    network = PytorchDDPMUNet(DDPM_TINY)
    before = network(INPUTS, torch.tensor([3.0, 712.0]))
    network.load_state_dict(held)
    assert (network(INPUTS, torch.tensor([3.0, 712.0])) - before).abs().max() > 1e-3


def test_downsampling_pads_right_and_bottom_or_both_sides():
    one_sided, both_sided = Downsample(1), Halve(1)
    for convolution in (one_sided.conv, both_sided.main):
        convolution.weight.data.fill_(1.0)
        convolution.bias.data.zero_()
    ones = torch.ones(1, 1, 4, 4)
    assert one_sided(ones)[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]
    assert both_sided(ones, torch.zeros(1, 1))[0, 0].tolist() == [[4.0, 6.0], [6.0, 9.0]]


@pytest.mark.parametrize(("name", "eps"), [("ddim-pesser", 1e-6), ("pytorch-ddpm", 1e-5)])
def test_eps_of_group_norm(name, eps):
    _, network, config, *_ = BUILDS[name]
    norms = [module for module in network(config).modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {eps}
    assert {norm.num_groups for norm in norms} == {32}


def _diffusers_name(name: str, levels: int) -> str:
    head, *rest = name.split(".")
    if head == "temb":
        return f"time_embedding.linear_{int(rest[1]) + 1}.{rest[2]}"
    if head in {"down", "up"}:
        level = int(rest[0]) if head == "down" else levels - 1 - int(rest[0])
        kind, rest = rest[1], rest[2:]
        stem = f"{head}_blocks.{level}."
        if kind in {"downsample", "upsample"}:
            return f"{stem}{kind}rs.0.{'.'.join(rest)}"
        head, position, rest = kind, rest[0], rest[1:]
    elif head == "mid":
        stem, (head, position) = "mid_block.", rest[0].split("_")
        position, rest = str(int(position) - 1), rest[1:]
    else:
        return name.replace("norm_out", "conv_norm_out")
    words = {"block": "resnets", "attn": "attentions", "temb_proj": "time_emb_proj", "norm": "group_norm"}
    words |= {"nin_shortcut": "conv_shortcut", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    return stem + ".".join([words[head], position, *(words.get(part, part) for part in rest)])


@pytest.mark.parametrize(
    ("levels", "attention"),
    [((32, 64, 64, 64), (False, True, False, False)), ((32, 32, 96), (True, False, True))],
)
def test_the_ddim_network_is_diffusers_unet_on_equal_weights(levels, attention):
    torch.manual_seed(7)
    theirs = UNet2DModel(
        sample_size=16,
        block_out_channels=levels,
        layers_per_block=2,
        down_block_types=["AttnDownBlock2D" if attends else "DownBlock2D" for attends in attention],
        up_block_types=["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention)],
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ).eval()
    for tensor in theirs.parameters():
        tensor.data.add_(0.1 * torch.randn(tensor.shape) if tensor.ndim == 1 else 0.0)
    config = DDIMConfig(ch=32, levels=levels, num_res_blocks=2, attention_levels=attention, **DDIM_GIVEN)
    ours, state = DDIMUNet(config), bare(theirs)
    renamed = {name: _diffusers_name(name, len(levels)) for name in bare(ours)}
    assert set(renamed.values()) == state.keys()
    ours.load_state_dict({k: state[renamed[k]].reshape(v.shape) for k, v in bare(ours).items()})
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 712.0])
    with torch.no_grad():
        expected = theirs(x, t, return_dict=False)[0]
        torch.testing.assert_close(ours(x, t), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("levels", [(32,), (32, 64), (64, 32, 96)])
def test_shapes_show_the_architecture(levels):
    attention = (True, False, True)[: len(levels)]
    for network, config, read in (
        (DDIMUNet, DDIM_TINY, read_ddim),
        (PytorchDDPMUNet, DDPM_TINY, read_pytorch_ddpm),
    ):
        changed = type(config)(**vars(config) | {"levels": levels, "attention_levels": attention})
        inferred = read(bare(network(changed)))
        assert inferred == {field: getattr(changed, field) for field in inferred}
        assert len(inferred) >= 4


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_every_field_that_the_tensors_do_not_reveal_is_asked_for(name):
    build, network, config, given, _ = BUILDS[name]
    held = bare(network(config))
    for field in given:
        rest = {key: value for key, value in given.items() if key != field}
        with pytest.raises(CheckpointError, match=f"do not reveal: {field}"):
            build(checkpoint(held, **rest), SamplingOptions(steps=1))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ddim-pesser", {"var_type": "learned"}),
        ("ddim-pesser", {"beta_schedule": "jsd"}),
        ("pytorch-ddpm", {"mean_type": "xprev"}),
        ("pytorch-ddpm", {"T": 500}),
    ],
)
def test_what_cannot_be_is_refused(name, change):
    with pytest.raises(CheckpointError, match=next(iter(change))):
        tiny(name, sampler="ancestral", steps=1, **change)


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_a_file_that_lacks_tensors_is_refused(name):
    build, _, _, given, _ = BUILDS[name]
    for held in ({}, {"head.weight": torch.zeros(1), "conv_in.weight": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="missing"):
            build(checkpoint(held, **given), SamplingOptions(steps=1))


def test_containers_are_recognised():
    ddim, ddpm = set(shapes("ddim-cifar10")), set(shapes("pytorch-ddpm-cifar10"))
    for parts, layout, chosen in (
        ({"": ddim}, DDIM_REPOSITORY, ("", "")),
        ({"0": {f"module.{name}" for name in ddim}, "4": ddim}, DDIM_REPOSITORY, ("4", "")),
        ({"net_model": ddpm, "ema_model": ddpm}, PYTORCH_DDPM, ("ema_model", "")),
    ):
        found = recognise(parts, LAYOUTS)
        assert found is not None
        assert (found.layout.name, (found.part, found.prefix)) == (layout, chosen)
    raw = recognise({"0": {f"module.{name}" for name in ddim}, "4": ddim}, LAYOUTS, weights="raw")
    assert raw is not None
    assert (raw.part, raw.prefix) == ("0", "module.")


def _kept(betas: np.ndarray) -> np.ndarray:
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_is_the_repositorys_walk_without_clipping(eta):
    count = 4
    build, network, config, given, _ = BUILDS["ddim-pesser"]
    unet = fill(network(config))
    options = SamplingOptions(sampler="ddim", steps=count, eta=eta)
    generator = build(checkpoint(bare(unet), **given), options)
    kept = _kept(np.linspace(1e-4, 0.02, 1000))
    x = normal_per_image(SEEDS, (3, 8, 8), device=torch.device("cpu"))
    steps = list(range(0, 1000, 1000 // count))
    for k, (i, j) in enumerate(zip(reversed(steps), reversed([-1, *steps[:-1]]), strict=True)):
        now, then = kept[i], kept[j] if j >= 0 else 1.0
        noise = unet(x, torch.full((3,), float(i)))
        clean = (x - noise * (1 - now) ** 0.5) / now**0.5
        added = eta * ((1 - now / then) * (1 - then) / (1 - now)) ** 0.5
        x = then**0.5 * clean + (1 - then - added**2) ** 0.5 * noise
        if j >= 0 and eta:
            x = x + added * normal_at(SEEDS, k, (3, 8, 8), stream=STEP_STREAM, device=torch.device("cpu"))
    difference = generator.generate(SEEDS).int() - quantise(x.clamp(-1, 1)).int()
    assert difference.abs().max() <= 1
    assert generator.evaluations_per_image == count


@pytest.mark.parametrize(("name", "clip"), [("pytorch-ddpm", False), ("ddim-pesser", True)])
def test_ancestral_sampling_is_ho_et_al_with_the_large_variance(name, clip):
    steps = 6
    changes = {"beta_start": 0.01, "beta_end": 0.2, "num_diffusion_timesteps": steps}
    if name == "pytorch-ddpm":
        changes = {"beta_1": 0.01, "beta_T": 0.2}
    build, network, config, given, keep = BUILDS[name]
    if name == "pytorch-ddpm":
        config = PytorchDDPMConfig(**vars(config) | {"T": steps})
    unet = fill(network(config), keep=keep)
    generator = build(
        checkpoint(bare(unet), **given | changes), SamplingOptions(sampler="ancestral", steps=steps)
    )
    betas = np.linspace(0.01, 0.2, steps)
    kept = _kept(betas)
    x = normal_per_image(SEEDS, (3, 8, 8), device=torch.device("cpu"))
    for k, i in enumerate(reversed(range(steps))):
        before = kept[i - 1] if i else 1.0
        noise = unet(x, torch.full((3,), float(i)))
        clean = (x - noise * (1 - kept[i]) ** 0.5) / kept[i] ** 0.5
        clean = clean.clamp(-1, 1) if clip else clean
        x = (before**0.5 * betas[i] * clean + (1 - betas[i]) ** 0.5 * (1 - before) * x) / (1 - kept[i])
        if i:
            z = normal_at(SEEDS, k, (3, 8, 8), stream=STEP_STREAM, device=torch.device("cpu"))
            x = x + betas[i] ** 0.5 * z
    images = generator.generate(SEEDS)
    assert (images.int() - quantise(x.clamp(-1, 1)).int()).abs().max() <= 1
    assert images.float().std() > 1


@pytest.mark.parametrize("name", sorted(BUILDS))
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++", "heun"])
def test_an_image_does_not_depend_on_its_batch(name, sampler):
    generator = tiny(name, sampler=sampler, steps=2)
    assert isinstance(generator, Generator)
    assert (generator.num_classes, generator.resolution, generator.family) == (0, 8, "diffusion")
    together = generator.generate(SEEDS)
    alone = generator.generate(SEEDS[1:2])
    assert (together[1:2].int() - alone.int()).abs().max() <= 1
    assert together.float().std() > 1


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_half_precision_computes_in_it_and_moves_little(name):
    build, network, config, given, keep = BUILDS[name]
    held = checkpoint(bare(fill(network(config), keep=keep)), **given)
    exact, half = (build(held, SamplingOptions(steps=2, dtype=d)) for d in ("float32", "bfloat16"))
    moved = (exact.generate(SEEDS).float() - half.generate(SEEDS).float()).abs()
    assert 0 < moved.mean() < 10


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("name", sorted(BUILDS))
def test_training_files_load_by_name_and_preset(name, weights, tmp_path):
    _, network, config, *_ = BUILDS[name]
    trained, averaged = bare(network(config)), bare(network(config))
    wrapped = {f"module.{key}": tensor for key, tensor in trained.items()}
    path = tmp_path / "ckpt.pth"
    if name == "ddim-pesser":
        torch.save([wrapped, {"state": {}}, 3, 5000, averaged], path)
    else:
        torch.save({"net_model": trained, "ema_model": averaged, "step": 5000, "x_T": torch.zeros(1)}, path)
    preset = next(iter(next(facts for facts in FACTS if facts.name == name).presets))
    options = SamplingOptions(sampler="ddim", steps=1)
    generator = load_generator(name, path, options=options, preset=preset, weights=weights)
    assert generator.resolution == 32
    held = generator.network.state_dict()
    expected = averaged if weights == "ema" else trained
    assert all(torch.equal(held[key], tensor) for key, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "preset", "build"),
    [
        ("ddim-cifar10", "ddim-cifar10", build_ddim),
        ("pytorch-ddpm-cifar10", "pytorch-ddpm-cifar10", build_pytorch_ddpm),
    ],
)
def test_the_cifar10_layouts_load_strictly_and_sample(layout, preset, build):
    held = strided(layout)
    generator = build(checkpoint(held, **PRESETS[preset]), SamplingOptions(sampler="ddim", steps=1))
    stored = 128_000 if layout.startswith("pytorch") else 0  # the table of time embeddings
    assert generator.parameter_count == 35_746_307 + stored
    images = generator.generate(SEEDS[:1])
    assert images.shape == (1, 3, 32, 32)
    assert images.float().std() > 1


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_evalkits_own_format_needs_nothing_given(name):
    build, network, config, _, _ = BUILDS[name]
    held = Checkpoint(
        tensors=bare(network(config)), sha256="0" * 64, format="evalkit", config=dict(vars(config))
    )
    assert build(held, SamplingOptions(steps=1)).network.config == config
