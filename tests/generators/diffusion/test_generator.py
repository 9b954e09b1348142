"""A diffusion model as a generator: index-keyed images, evaluations, guidance, references, its spec."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from evalkit.cli.main import run
from evalkit.core import Translator
from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.generators import GENERATOR_FACTS
from evalkit.generators.checkpoint import Checkpoint
from evalkit.generators.diffusion.ddpm import ddim_sample, process_of
from evalkit.generators.diffusion.generator import DiffusionGenerator, SamplerSettings
from evalkit.generators.diffusion.guidance import low_pass
from evalkit.generators.diffusion.heun import Churn
from evalkit.generators.diffusion.karras import KarrasProcess
from evalkit.generators.diffusion.process import discrete_process
from evalkit.generators.diffusion.sampler_facts import ANCESTRAL, DDIM, DPM_SOLVER, HEUN, with_steps
from evalkit.generators.diffusion.unet import DDPMConfig
from evalkit.generators.sampling import SamplingOptions
from evalkit.seeding import image_seeds

SAMPLERS = ["ancestral", "ddim", "dpm-solver++", "heun"]
SEEDS = image_seeds(0, np.arange(5))
LABELS = np.array([0, 1, 2, 3, 0])
OPTIONS = {"steps", "guidance", "eta", "dtype", "reference_factor"}


class Network(nn.Module):
    """A small network of the contract that remembers what it was called with."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)
        self.classes = nn.Embedding(5, 8)
        self.seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def forward(self, x, t, labels):
        self.seen.append((t, labels))
        hidden = self.first(x) + torch.cos(t / 300.0).view(-1, 1, 1, 1)
        if labels is not None:
            hidden = hidden + self.classes(labels)[:, :, None, None]
        return self.second(torch.tanh(hidden))


class Classifier(nn.Module):
    """Logits from an image and its time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Conv2d(3, 4, 8)

    def forward(self, x, t):
        return self.head(x).flatten(1) * torch.cos(t / 2000.0).view(-1, 1)


def _make(sampler="ddim", *, process=None, network=None, stored="torch", classes=4, null=True, **given):
    chosen = {name: given.pop(name) for name in OPTIONS & given.keys()}
    options = SamplingOptions(sampler=sampler, **{"steps": 6, **chosen})
    return DiffusionGenerator(
        name="ddpm",
        network=network or Network(),
        process=process or discrete_process("cosine", 100, prediction="v", spacing="trailing"),
        checkpoint=Checkpoint(tensors={}, sha256="0" * 64, format=stored),
        options=options,
        num_classes=classes,
        resolution=8,
        null_label=null,
        **given,
    )


def _learned():
    process = discrete_process("linear", 1000, prediction="epsilon", variance="learned-range")
    return {"process": process, "network": Network(6)}


def _churned():
    return {"process": KarrasProcess(), "settings": SamplerSettings(churn=Churn(amount=20.0))}


CASES = {
    **{sampler: lambda sampler=sampler: _make(sampler) for sampler in SAMPLERS},
    **{f"{s} guided": lambda s=s: _make(s, guidance=2.0) for s in SAMPLERS},
    **{f"{s} classifier": lambda s=s: _make(s, guidance=2.0, classifier=Classifier()) for s in SAMPLERS},
    "ddim eta": lambda: _make("ddim", eta=0.8),
    "ancestral learned": lambda: _make("ancestral", **_learned()),
    "heun churned": lambda: _make("heun", **_churned()),
    "heun karras": lambda: _make("heun", process=KarrasProcess()),
}


@pytest.mark.parametrize("case", CASES)
def test_an_image_does_not_depend_on_its_batch(case):
    generator = CASES[case]()
    together = generator._sample(SEEDS, torch.from_numpy(LABELS))
    apart = [
        generator._sample(SEEDS[part], torch.from_numpy(LABELS[part])) for part in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(torch.cat(apart), together, rtol=0, atol=1e-5)
    assert torch.isfinite(together).all()
    assert float(together.abs().max()) <= 1
    assert float((together[0] - together[4]).abs().mean()) > 1e-3  # the same label, another seed
    assert torch.equal(generator.generate(SEEDS, labels=LABELS), generator.generate(SEEDS, labels=LABELS))


EVALUATIONS = {
    "ancestral": 6,
    "ddim": 6,
    "dpm-solver++": 6,
    "heun": 12,  # one step of DDIM to the first level, then 2 * 6 - 1
    "ancestral guided": 12,
    "heun guided": 24,
    "ddim classifier": 6,  # the classifier's are not the network's
    "heun karras": 11,
    "heun churned": 11,
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_evaluations_are_counted_as_they_happen(case):
    generator = CASES[case]()
    generator.generate(SEEDS, labels=LABELS)
    assert generator.evaluations_per_image == len(generator.network.seen) == EVALUATIONS[case]


def test_guidance_scales():
    plain, one = _make(), _make(guidance=1.0)
    none, strong = _make(guidance=0.0), _make(guidance=3.0)
    images = [g.generate(SEEDS, labels=LABELS) for g in (plain, one, none, strong)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[3])
    # Scale 0 never shows the labels: every call has the null label.
    assert torch.equal(images[2], none.generate(SEEDS, labels=(LABELS + 1) % 4))
    assert all((labels == 4).all() for _, labels in none.network.seen)


def test_what_a_network_sees():
    time_scale = 1000 / 4000
    process = discrete_process("linear", 4000, prediction="epsilon", time_scale=time_scale)
    generator = _make("ancestral", process=process, classes=0, null=False, steps=5)
    generator.generate(SEEDS)
    assert [float(t[0]) for t, _ in generator.network.seen] == [999.75, 749.75, 500.0, 250.0, 0.0]
    assert all(labels is None and t.dtype == torch.float32 for t, labels in generator.network.seen)


def test_a_classifier_may_guide_a_network_without_labels():
    settings = SamplerSettings(labelled_network=False, guidance=5.0, classifier_sha256="abc")
    generator = _make("ddim", classifier=Classifier(), settings=settings, null=False)
    images = generator.generate(SEEDS, labels=LABELS)
    assert all(labels is None for _, labels in generator.network.seen)
    assert not torch.equal(images, generator.generate(SEEDS, labels=(LABELS + 1) % 4))
    off = _make("ddim", classifier=Classifier(), settings=settings, null=False, guidance=0.0)
    assert torch.equal(off.generate(SEEDS, labels=LABELS), off.generate(SEEDS, labels=(LABELS + 1) % 4))
    assert _stated(generator)["classifier"] == "abc"


def test_guidance_that_a_checkpoint_cannot_give_is_refused():
    with pytest.raises(UsageError, match="takes no --guidance"):
        _make(guidance=2.0, null=False)
    with pytest.raises(UsageError, match="takes no --guidance"):
        _make(guidance=2.0, classes=0)
    assert _make(guidance=1.0, null=False).guidance == 1.0
    with pytest.raises(UsageError, match="at most 100"):
        _make("heun", steps=101)
    with pytest.raises(ValueError, match="num_classes"):
        _make(classes=0, classifier=Classifier())


def test_samplers_that_choose_other_steps():
    process = discrete_process("linear", 1000, prediction="epsilon")
    settings = SamplerSettings(spacings={"ddim": "ddim", "heun": "trailing"})
    times = {
        sampler: [level.time for level in _make(sampler, process=process, steps=4, settings=settings).levels]
        for sampler in ("ddim", "ancestral", "heun")
    }
    assert times["ddim"] == [750, 500, 250, 0, 0]
    assert times["ancestral"] == [999, 666, 333, 0, 0]
    assert times["heun"] == [999, 749, 499, 249, 0]


def test_references_decide_the_low_frequencies():
    generator = _make("ancestral", steps=20)
    references = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    images = generator.generate_like(SEEDS, references, factor=1, labels=LABELS)
    # With factor 1 nothing is left free: uint8 to [-1, 1] and back is exact up to the two conventions.
    assert int((images.int() - references.int()).abs().max()) <= 1
    freed = generator.generate_like(SEEDS, references, factor=4, labels=LABELS)
    plain = generator.generate(SEEDS, labels=LABELS)
    smooth = [low_pass(batch.float(), 4) for batch in (references, freed, plain)]
    assert (smooth[1] - smooth[0]).square().mean() < 0.2 * (smooth[2] - smooth[0]).square().mean()
    never = generator.generate_like(SEEDS, references, factor=4, labels=LABELS, down_to=1e6)
    assert torch.equal(never, plain)
    part = generator.generate_like(SEEDS[1:3], references[1:3], factor=4, labels=LABELS[1:3])
    assert int((part.int() - freed[1:3].int()).abs().max()) <= 1


def test_references_that_do_not_fit():
    generator, references = _make(), torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UsageError, match="needs labels"):
        generator.generate_like(SEEDS, references, factor=2)
    with pytest.raises(UsageError, match=r"not torch.uint8 \[2, 3, 8, 8\]"):
        generator.generate_like(SEEDS[:2], references, factor=2, labels=LABELS[:2])
    with pytest.raises(UsageError, match="does not divide"):
        generator.generate_like(SEEDS, references, factor=3, labels=LABELS)


def _photos(count=5):
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_translation_keeps_the_low_frequencies_of_its_image(sampler):
    """By the protocol of translators, without labels, each image by itself."""
    generator, photos = _make(sampler, reference_factor=2), _photos()
    assert isinstance(generator, Translator)
    images = generator.translate(photos, seeds=SEEDS)
    assert all((labels == 4).all() for _, labels in generator.network.seen)
    plain = _make(sampler, guidance=0.0).generate(SEEDS, labels=LABELS)
    error = [(low_pass(batch.float() - photos, 2)).square().mean() for batch in (images, plain)]
    assert error[0] < 0.5 * error[1]
    alone = generator.translate(photos[2:3], seeds=SEEDS[2:3])
    assert int((alone.int() - images[2:3].int()).abs().max()) <= 1
    other = generator.translate(photos, seeds=SEEDS[::-1].copy())
    assert not torch.equal(images, other)


def test_the_reference_factor_decides_how_much_is_kept():
    photos = _photos()
    kept, four, usual = (
        _make(reference_factor=factor).translate(photos, seeds=SEEDS) for factor in (1, 4, None)
    )
    assert int((kept.int() - photos.int()).abs().max()) <= 1
    assert torch.equal(four, usual)  # REFERENCE_FACTOR
    assert not torch.equal(kept, four)
    assert _stated(_make(reference_factor=2)) != _stated(_make(reference_factor=4))
    assert "reference_factor" not in _stated(_make())


def test_unconditional_models_translate_and_conditional_ones_need_a_label_of_none():
    settings = SamplerSettings(labelled_network=False, guidance=5.0)
    for free in (
        _make(classes=0, null=False),
        _make(null=False, classifier=Classifier(), settings=settings),
    ):
        assert free.translate(_photos(), seeds=SEEDS).shape == (5, 3, 8, 8)
        assert all(labels is None for _, labels in free.network.seen)
    for bound in (_make(null=False), _make(classifier=Classifier())):
        with pytest.raises(UsageError, match="needs a class") as refused:
            bound.translate(_photos(), seeds=SEEDS)
        assert refused.value.hint


def test_options_that_a_translation_or_a_drawing_has_no_use_for_are_refused():
    with pytest.raises(UsageError, match="--guidance"):
        _make(guidance=2.0).translate(_photos(), seeds=SEEDS)
    with pytest.raises(UsageError, match="--reference-factor"):
        _make(reference_factor=2).generate(SEEDS, labels=LABELS)
    with pytest.raises(UsageError, match="does not divide"):
        _make(reference_factor=16)
    for factor in (0, -4, 3):
        with pytest.raises(UsageError, match="power of two"):
            _make(reference_factor=factor)
    with pytest.raises(UsageError, match="takes no --reference-factor"):
        SamplingOptions(reference_factor=4).resolve("cgan")
    generator = _make()
    for wrong in (_photos().float(), torch.zeros(5, 3, 16, 16, dtype=torch.uint8)):
        with pytest.raises(UsageError, match="references are"):
            generator.translate(wrong, seeds=SEEDS)


def test_score_translates_by_a_diffusion_model(tmp_path, capsys):
    """The factor reaches the model, and is part of what was scored."""
    rng = np.random.default_rng(0)
    for name in ("photos", "paintings"):
        np.savez(tmp_path / f"{name}.npz", arr_0=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    told = "--task translate --model ddpm --sampler ddim --steps 1 --metrics kd --protocol embedded"
    values = []
    for factor in ("1", "8"):
        command = ["score", *told.split(), "--images", str(tmp_path / "photos.npz"), "--reference",
                   str(tmp_path / "paintings.npz"), "--reference-factor", factor, "--device", "cpu",
                   "--out", str(tmp_path / "runs"), "--format", "json"]  # fmt: skip
        code = run(command)
        captured = capsys.readouterr()
        assert code == 0, captured.err
        values.append(json.loads(captured.out)["results"][0]["value"])
    assert values[0] != values[1]


def test_half_precision_is_the_network_s_alone():
    """What the samplers add up stays float32."""

    class Watched(Network):
        def forward(self, x, t, labels):
            assert (x.dtype, t.dtype) == (torch.float32, torch.float32)
            out = super().forward(x, t, labels)
            assert out.dtype == torch.bfloat16
            return out

    images = [
        _make(sampler, network=Watched(), dtype="bfloat16", guidance=2.0).generate(SEEDS, labels=LABELS)
        for sampler in SAMPLERS
    ]
    assert all(batch.dtype == torch.uint8 for batch in images)


def test_images_that_are_not_finite_are_refused():
    """They would come out black, and be scored."""

    class Overflowing(Network):
        def forward(self, x, t, labels):
            return super().forward(x, t, labels) * math.inf

    with pytest.raises(InvalidInputError, match="not finite") as refused:
        _make(network=Overflowing()).generate(SEEDS, labels=LABELS)
    assert "overflow" in refused.value.hint


def _stated(generator) -> dict:
    return generator.spec.to_json()["params"]


def test_the_spec_says_what_decides_the_images():
    assert "noise" not in _stated(_make("ddim"))
    assert _stated(_make("ddim", eta=0.5))["noise"] == _stated(_make("ancestral"))["noise"]
    assert "amount=20.0" in str(_stated(CASES["heun churned"]())["churn"])
    linear = discrete_process("linear", 100, prediction="v", spacing="trailing")
    assert _stated(_make())["levels"] != _stated(_make(process=linear))["levels"]
    assert "levels" not in _stated(_make(stored="evalkit"))  # its header says it all


def test_the_process_of_a_configuration():
    process = process_of(DDPMConfig())
    assert len(process.betas) == 1000
    assert (process.prediction, process.spacing, process.rederive_noise) == ("v", "trailing", False)
    for wrong in ({"schedule": "exp"}, {"prediction": "flow"}):
        with pytest.raises(CheckpointError, match="no diffusion with"):
            process_of(dataclasses.replace(DDPMConfig(), **wrong))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_recover_a_point_mass(sampler):
    """With the exact predictor of a distribution at one point, every sampler must end at that point."""
    process = process_of(DDPMConfig())
    point = torch.linspace(-0.9, 0.9, 3 * 8 * 8).view(1, 3, 8, 8)

    class Exact(nn.Module):
        def forward(self, x, t, labels):
            level = process.level(int(t[0]))
            noise = (x - level.alpha * point) / level.sigma
            return level.alpha * noise - level.sigma * point

    generator = _make(sampler, process=process, network=Exact(), classes=0, null=False, steps=25)
    assert float((generator._sample(SEEDS, None) - point).abs().max()) < 1e-3


def test_ddim_while_training_is_the_generator_s():
    class Configured(Network):
        config = DDPMConfig()

    generator = _make("ddim", process=process_of(DDPMConfig()), network=Configured())
    noise = torch.randn(3, 3, 8, 8)
    labels = torch.tensor([0, 1, 2])
    images = ddim_sample(generator.network, noise, labels, steps=6)
    assert images.shape == noise.shape
    assert [float(t[0]) for t, _ in generator.network.seen] == [lv.time for lv in generator.levels[:-1]]


def test_facts():
    assert [s.name for s in GENERATOR_FACTS["ddpm"].samplers] == ["dpm-solver++", "ddim", "heun", "ancestral"]
    assert [s.name for s in (ANCESTRAL, DDIM, DPM_SOLVER, HEUN)] == SAMPLERS
    assert with_steps(ANCESTRAL, 4000).default_steps == 4000
    assert DDIM.takes_eta
