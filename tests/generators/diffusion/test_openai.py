"""improved-diffusion and guided-diffusion: layouts, configuration, and every place where a port goes wrong.

The golden numbers come from the official code (package guided-diffusion-sdk 1.0.0 on PyPI, which holds
openai/guided-diffusion; improved-diffusion's U-Net is its case of no resampling blocks and the older order of
attention), run on the weights of ``waves``.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D

from evalkit.errors import CheckpointError, UsageError
from evalkit.generators import load_generator
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.configuration import UnrevealedError
from evalkit.generators.diffusion.openai.classifier import ClassifierConfig, NoisyClassifier, load_classifier
from evalkit.generators.diffusion.openai.facts import CLASSIFIER, FACTS, GUIDED, IMPROVED, LAYOUTS
from evalkit.generators.diffusion.openai.layers import (
    AttentionBlock,
    Downsample,
    ResidualBlock,
    timestep_embedding,
)
from evalkit.generators.diffusion.openai.paths import Shape
from evalkit.generators.diffusion.openai.reading import read_encoder, read_unet
from evalkit.generators.diffusion.openai.sampling import build_guided, build_improved, load_unet, process_of
from evalkit.generators.diffusion.openai.unet import OpenAIConfig, OpenAIUNet
from evalkit.generators.recognition import recognise
from evalkit.generators.sampling import SamplingOptions
from tests.generators.diffusion.waves import INPUTS, bare, fill, probed
from tests.generators.layouts import shapes

PRESETS = {name: dict(values) for facts in FACTS for name, values in facts.presets.items()}
SEEDS = np.array([3, 5, 8], dtype=np.int64)
TIMES = torch.tensor([3.0, 712.25])
GIVEN = {"image_size": 8, "num_heads": 4, "diffusion_steps": 1000, "noise_schedule": "linear"}
TINY = OpenAIConfig(
    num_channels=32,
    levels=(32, 64),
    num_res_blocks=2,
    attention_levels=(False, True),
    use_scale_shift_norm=True,
    resblock_updown=False,
    class_cond=False,
    num_classes=0,
    learn_sigma=True,
    use_new_attention_order=False,
    **GIVEN,
)


def config(**changes: object) -> OpenAIConfig:
    return OpenAIConfig(**{**vars(TINY), **changes})


UPDOWN = config(
    resblock_updown=True, class_cond=True, num_classes=5, num_heads=-1, num_head_channels=16,
    use_new_attention_order=True,
)  # fmt: skip
LSUN = config(
    levels=(32, 32, 64), num_res_blocks=1, attention_levels=(True, False, True), num_heads=1,
    use_scale_shift_norm=False,
)  # fmt: skip
ENCODER = ClassifierConfig(
    Shape(64, (64, 128), 2, (False, True), scale_shift=True, resblock_updown=True), 5, 8
)


def checkpoint(held, **given: object) -> Checkpoint:
    return Checkpoint(tensors=held, sha256="0" * 64, format="torch", given=given)


def steps(count: int, sampler: str = "ancestral", **more: object) -> SamplingOptions:
    return SamplingOptions(sampler=sampler, steps=count, **more)


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        (TINY, None, (-0.8974, 0.876165, -0.725255, 0.559908)),
        (LSUN, None, (0.381348, -0.423856, 0.192657, 0.197683)),
        (UPDOWN, torch.tensor([1, 4]), (0.467369, -0.434491, -0.389943, -0.117477)),
    ],
    ids=["improved", "lsun", "guided"],
)
def test_the_official_network_gives_these_numbers(kind, labels, expected, monkeypatch):
    # In float64: these weights amplify float32 rounding, so that another processor ends 5e-5 away and two
    # threads 1.0e-4. What the network widens to float32 in places, it must not narrow here.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    network = fill(OpenAIUNet(kind)).double()
    output = network(INPUTS.double(), TIMES.double(), labels)
    assert output.shape == (2, 6, 8, 8)
    assert output.dtype == torch.float64
    assert probed(output) == pytest.approx(expected, abs=2e-5)


def test_the_official_classifier_gives_these_numbers():
    logits = fill(NoisyClassifier(ENCODER))(INPUTS, TIMES)
    assert logits.shape == (2, 5)
    assert probed(logits) == pytest.approx((-1.225964, 0.114221, -1.236175, 0.515426), abs=2e-5)


def test_time_embedding_is_cosines_first_over_half():
    t, width = 250.25, 10
    angles = [t * 10000 ** (-i / 5) for i in range(5)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    embedded = timestep_embedding(torch.tensor([t]), width)[0]
    assert embedded.tolist() == pytest.approx(expected, abs=2e-5)
    theirs = get_timestep_embedding(TIMES, 128, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_embedding(TIMES, 128), theirs, rtol=0, atol=1e-5)


def test_time_embedding_of_odd_width_ends_in_zero():
    embedded = timestep_embedding(TIMES, 7)
    assert embedded.shape == (2, 7)
    assert not embedded[:, -1].any()


@pytest.mark.parametrize("resample", ["none", "up", "down"])
@pytest.mark.parametrize("scale_shift", [True, False])
def test_residual_blocks_are_those_of_diffusers(resample, scale_shift):
    ours = fill(ResidualBlock(32, 64, 24, scale_shift=scale_shift, resample=resample))
    theirs = ResnetBlock2D(
        in_channels=32,
        out_channels=64,
        temb_channels=24,
        eps=1e-5,
        time_embedding_norm="scale_shift" if scale_shift else "default",
        up=resample == "up",
        down=resample == "down",
    ).eval()
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    state = bare(ours)
    theirs.load_state_dict(
        {f"{new}.{part}": state[f"{old}.{part}"] for new, old in names.items() for part in ("weight", "bias")}
    )
    x, embedding = torch.randn(2, 32, 8, 8), torch.randn(2, 24)
    torch.testing.assert_close(ours(x, embedding), theirs(x, embedding), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("new_order", [True, False])
def test_attention_is_diffusers_with_the_packed_channels_unpacked(new_order):
    heads, width = 4, 8
    ours = fill(AttentionBlock(heads * width, heads=heads, new_order=new_order))
    theirs = Attention(
        heads * width, heads=heads, dim_head=width, bias=True, norm_num_groups=32, residual_connection=True
    ).eval()
    state = bare(ours)
    packed = (3, heads, width) if new_order else (heads, 3, width)
    for position, name in enumerate(("to_q", "to_k", "to_v")):
        for part in ("weight", "bias"):
            rows = state[f"qkv.{part}"].squeeze(-1) if part == "weight" else state[f"qkv.{part}"]
            own = rows.reshape(*packed, *rows.shape[1:]).select(0 if new_order else 1, position)
            getattr(getattr(theirs, name), part).data = own.reshape(heads * width, *rows.shape[1:])
    theirs.group_norm.load_state_dict({p: state[f"norm.{p}"] for p in ("weight", "bias")})
    theirs.to_out[0].weight.data = state["proj_out.weight"].squeeze(-1)
    theirs.to_out[0].bias.data = state["proj_out.bias"]
    x = torch.randn(2, heads * width, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_two_orders_of_attention_differ_and_agree_with_one_head():
    x, state = torch.randn(1, 32, 4, 4), bare(fill(AttentionBlock(32, heads=1, new_order=True)))

    def attended(heads: int, *, new_order: bool) -> torch.Tensor:
        block = AttentionBlock(32, heads=heads, new_order=new_order)
        block.load_state_dict(state)
        return block(x)

    torch.testing.assert_close(attended(1, new_order=True), attended(1, new_order=False), rtol=0, atol=0)
    assert (attended(4, new_order=True) - attended(4, new_order=False)).abs().max() > 1e-4


def test_downsampling_pads_both_sides():
    layer = Downsample(1)
    layer.op.weight.data.fill_(1.0)
    layer.op.bias.data.zero_()
    corner = layer(torch.ones(1, 1, 4, 4))[0, 0]
    assert corner.tolist() == [[4.0, 6.0], [6.0, 9.0]]


def test_half_precision_normalises_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        output = fill(OpenAIUNet(TINY))(INPUTS, TIMES)
    exact = fill(OpenAIUNet(TINY))(INPUTS, TIMES)
    assert (output.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("kind", [TINY, UPDOWN, LSUN, config(levels=(32,), attention_levels=(True,))])
def test_shapes_show_the_architecture(kind):
    inferred = read_unet(bare(OpenAIUNet(kind)))
    assert inferred == {name: getattr(kind, name) for name in inferred}
    assert len(inferred) == 9


@pytest.mark.parametrize(
    ("levels", "attends", "updown"),
    [
        ((64, 128), (False, True), True),
        ((64, 64, 128), (False, True, True), True),
        ((64, 128), (True, False), False),
    ],
)
def test_shapes_show_the_classifier(levels, attends, updown):
    shape = Shape(64, levels, 3, attends, scale_shift=False, resblock_updown=updown)
    held = bare(NoisyClassifier(ClassifierConfig(shape, 7, 4 * 2 ** (len(levels) - 1))))
    assert read_encoder(held) == (shape, 7, 4)
    assert load_classifier(checkpoint(held)).config.image_size == 4 * 2 ** (len(levels) - 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_heads": None}, "num_head_channels, num_heads"),
        ({"diffusion_steps": None}, "diffusion_steps"),
        ({"image_size": None}, "image_size"),
        ({"noise_schedule": None}, "noise_schedule"),
        ({"diffusion_steps": 400}, "rescale_timesteps"),
        ({}, "use_new_attention_order"),
    ],
)
def test_what_the_tensors_do_not_reveal_is_asked_for(change, named):
    given = {key: value for key, value in (GIVEN | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=f"do not reveal: .*{named}"):
        build_guided(checkpoint(bare(OpenAIUNet(TINY)), **given), steps(1))


def test_all_that_is_missing_is_named_at_once():
    held = bare(OpenAIUNet(TINY))
    with pytest.raises(UnrevealedError) as refused:
        build_guided(checkpoint(held), steps(1))
    everything = {*GIVEN, "num_head_channels", "rescale_timesteps", "use_new_attention_order"}
    assert set(refused.value.fields) == everything
    with pytest.raises(UnrevealedError) as refused:
        build_improved(checkpoint(held), steps(1))
    assert set(refused.value.fields) == {*GIVEN, "rescale_timesteps"}
    for name, preset in PRESETS.items():
        assert set(refused.value.fields) <= set(preset), name
        assert name.startswith("improved") or everything <= set(preset)


def test_the_flags_of_the_readme_are_enough():
    flags = {
        "diffusion_steps": 1000,
        "noise_schedule": "cosine",
        "learn_sigma": True,
        "num_head_channels": 16,
    }
    flags |= {"use_new_attention_order": True, "class_cond": True, "resblock_updown": True, "image_size": 8}
    held = checkpoint(bare(OpenAIUNet(UPDOWN)), **flags, use_scale_shift_norm=True, num_res_blocks=2)
    assert load_unet(held, name="guided-diffusion").config.num_head_channels == 16


def test_improved_diffusion_knows_one_order_of_attention():
    build_improved(checkpoint(bare(OpenAIUNet(TINY)), **GIVEN), steps(1))


def test_a_given_field_that_the_tensors_contradict_is_refused():
    with pytest.raises(CheckpointError, match="learn_sigma is given as False, but the tensors show True"):
        build_improved(checkpoint(bare(OpenAIUNet(TINY)), **GIVEN, learn_sigma=False), steps(1))


def test_channels_that_heads_do_not_divide_are_refused():
    with pytest.raises(CheckpointError, match="64 channels cannot be split"):
        config(num_heads=5)


def test_an_upsampler_is_refused():
    held = dict(bare(OpenAIUNet(TINY)))
    held["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
    with pytest.raises(CheckpointError, match="reads 6 channels"):
        build_guided(checkpoint(held, **GIVEN), steps(1))


@pytest.mark.parametrize("missing", ["time_embed.0.weight", "out.2.weight", "output_blocks"])
def test_a_file_that_lacks_tensors_is_refused(missing):
    held = {name: tensor for name, tensor in bare(OpenAIUNet(TINY)).items() if not name.startswith(missing)}
    with pytest.raises(CheckpointError):
        build_improved(checkpoint(held, **GIVEN), steps(1))


def test_process_follows_the_flags():
    four = process_of(config(diffusion_steps=4000, noise_schedule="cosine", rescale_timesteps=True))
    assert (len(four.betas), four.time_scale, four.variance) == (4000, 0.25, "learned-range")
    kept = [math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (0.0, 1 / 4000, 2 / 4000)]
    assert four.betas[:2] == pytest.approx((1 - kept[1] / kept[0], 1 - kept[2] / kept[1]))
    plain = process_of(config(learn_sigma=False))
    assert (plain.betas[0], plain.betas[-1]) == pytest.approx((1e-4, 0.02))
    assert (plain.time_scale, plain.variance, plain.prediction) == (1.0, "fixed-large", "epsilon")
    assert process_of(config(learn_sigma=False, sigma_small=True)).variance == "fixed-small"
    assert process_of(config(predict_xstart=True)).prediction == "sample"


def test_layouts_are_told_apart_by_what_resamples():
    held = {
        IMPROVED: [shapes("improved-diffusion-cifar10-uncond-50M"), bare(OpenAIUNet(LSUN))],
        GUIDED: [shapes("guided-diffusion-imagenet64"), bare(OpenAIUNet(UPDOWN))],
        CLASSIFIER: [bare(NoisyClassifier(ENCODER))],
    }
    for name, files in held.items():
        for names in files:
            found = recognise({"": set(names)}, LAYOUTS)
            assert found is not None
            assert found.layout.name == name
            prefixed = recognise({"": {f"module.{n}" for n in names}}, LAYOUTS)
            assert prefixed is not None
            assert prefixed.prefix == "module."


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_hold_known_fields_and_leave_nothing_open(name):
    inferred = {
        "num_channels", "levels", "num_res_blocks", "attention_levels", "use_scale_shift_norm",
        "resblock_updown", "class_cond", "num_classes", "learn_sigma",
    }  # fmt: skip
    preset = PRESETS[name] | ({"use_new_attention_order": False} if name.startswith("improved") else {})
    shown = {field: getattr(TINY, field) for field in inferred}
    full = OpenAIConfig(**shown | {"levels": (64, 128)} | preset)
    assert process_of(full).betas
    assert str(full.image_size) in name or "cifar10" in name or "lsun" in name


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++", "heun"])
def test_an_image_does_not_depend_on_its_batch(sampler):
    labels = np.array([0, 4, 2])
    generator = build_guided(checkpoint(bare(fill(OpenAIUNet(UPDOWN))), **_given(UPDOWN)), steps(2, sampler))
    together = generator.generate(SEEDS, labels=labels)
    alone = torch.cat([generator.generate(SEEDS[i : i + 1], labels=labels[i : i + 1]) for i in range(3)])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert together.float().std() > 1
    assert generator.evaluations_per_image == (4 if sampler == "heun" else 2)


def _given(kind: OpenAIConfig) -> dict[str, object]:
    names = ("image_size", "num_heads", "num_head_channels", "use_new_attention_order", "diffusion_steps")
    return {name: getattr(kind, name) for name in (*names, "noise_schedule")}


def test_half_precision_computes_in_it_and_moves_little(classifier_file):
    """The classifier's gradient too."""
    held = checkpoint(bare(fill(OpenAIUNet(UPDOWN))), **_given(UPDOWN), classifier=str(classifier_file))
    exact, half = (build_guided(held, steps(2, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    labels = np.array([0, 4, 2])
    moved = exact.generate(SEEDS, labels=labels).float() - half.generate(SEEDS, labels=labels).float()
    assert 0 < moved.abs().mean() < 10


def test_images_are_translated_without_a_class_or_not_at_all(classifier_file):
    """A classifier that guides a network without labels has no say where there is no class."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8))
    photos = torch.from_numpy(images).to(torch.uint8)
    kind = config(num_heads=1)
    held = checkpoint(bare(fill(OpenAIUNet(kind))), **_given(kind), classifier=str(classifier_file))
    close = build_guided(held, steps(2, reference_factor=1)).translate(photos, seeds=SEEDS)
    assert (close.int() - photos.int()).abs().max() <= 1
    classes = checkpoint(bare(fill(OpenAIUNet(UPDOWN))), **_given(UPDOWN))
    with pytest.raises(UsageError, match="translates no images"):
        build_guided(classes, steps(2)).translate(photos, seeds=SEEDS)


def test_labels_matter_and_are_needed():
    generator = build_guided(checkpoint(bare(fill(OpenAIUNet(UPDOWN))), **_given(UPDOWN)), steps(2))
    first, second = (generator.generate(SEEDS, labels=np.full(3, label)) for label in (0, 3))
    assert not torch.equal(first, second)
    with pytest.raises(UsageError, match="needs labels"):
        generator.generate(SEEDS)


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "classifier.pt"
    torch.save(fill(NoisyClassifier(ENCODER)).state_dict(), path)
    return path


@pytest.mark.parametrize("kind", [UPDOWN, config(num_heads=1)], ids=["conditional", "unconditional"])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_classifier_guides_by_the_scale_and_its_file_is_part_of_the_identity(
    kind, sampler, classifier_file
):
    held = bare(fill(OpenAIUNet(kind)))

    def guided(**more: object) -> object:
        return build_guided(
            checkpoint(held, **_given(kind), classifier=str(classifier_file)), steps(2, sampler, **more)
        )

    labels = np.array([1, 4])
    none, default, strong = guided(guidance=0.0), guided(), guided(guidance=5.0)
    assert default.num_classes == 5
    assert default.guidance == 1.0
    images = [generator.generate(SEEDS[:2], labels=labels) for generator in (none, default, strong)]
    assert (
        (images[0].int() - images[2].int()).abs().max() > (images[0].int() - images[1].int()).abs().max() > 0
    )
    plain = build_guided(checkpoint(held, **_given(kind)), steps(2, sampler))
    unguided = plain.generate(SEEDS[:2], labels=labels if kind.class_cond else None)
    assert torch.equal(images[0], unguided)
    digest = dict(default.spec.params)["classifier"]
    assert len(digest) == 64
    assert str(classifier_file) not in str(default.spec)


def test_a_preset_scale_holds_unless_told(classifier_file):
    given = {**_given(UPDOWN), "classifier": str(classifier_file), "classifier_scale": 10.0}
    held = bare(OpenAIUNet(UPDOWN))
    assert build_guided(checkpoint(held, **given), steps(1)).guidance == 10.0
    assert build_guided(checkpoint(held, **given), steps(1, guidance=2.0)).guidance == 2.0


def test_guidance_without_a_classifier_is_refused():
    held = bare(OpenAIUNet(UPDOWN))
    with pytest.raises(UsageError, match="takes no --guidance"):
        build_guided(checkpoint(held, **_given(UPDOWN)), steps(1, guidance=2.0))


def test_a_classifier_of_other_images_or_classes_is_refused(classifier_file, tmp_path):
    other = config(class_cond=True, num_classes=4)
    given = {**_given(other), "classifier": str(classifier_file)}
    with pytest.raises(CheckpointError, match="5 classes, the model 4"):
        build_guided(checkpoint(bare(OpenAIUNet(other)), **given), steps(1))
    with pytest.raises(CheckpointError, match="images of 8 pixels, the model for 16"):
        build_guided(checkpoint(bare(OpenAIUNet(TINY)), **given | {"image_size": 16}), steps(1))
    torch.save(bare(OpenAIUNet(TINY)), tmp_path / "unet.pt")
    with pytest.raises(CheckpointError, match="no noisy classifier"):
        build_guided(
            checkpoint(bare(OpenAIUNet(TINY)), **given | {"classifier": str(tmp_path / "unet.pt")}), steps(1)
        )


def test_a_sidecar_beside_the_file_says_the_rest(classifier_file, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(bare(OpenAIUNet(UPDOWN)), path)
    given = {**_given(UPDOWN), "classifier": str(classifier_file), "classifier_scale": 0.5}
    path.with_name("model.pt.json").write_text(json.dumps(given))
    generator = load_generator("guided-diffusion", path, options=steps(1))
    assert (generator.guidance, generator.num_classes, generator.resolution) == (0.5, 5, 8)


def test_evalkits_own_format_needs_nothing_given():
    held = Checkpoint(
        tensors=bare(OpenAIUNet(TINY)),
        sha256="0" * 64,
        format="evalkit",
        config={**vars(TINY), "levels": [32, 64]},
    )
    assert load_unet(held, name="improved-diffusion").config == TINY
