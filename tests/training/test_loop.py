"""Training resumes as if nothing had happened, and every recipe learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators import load_generator
from evalkit.generators.diffusion.unet import DDPMConfig
from evalkit.generators.gan.cgan import CGANConfig
from evalkit.generators.gan.style import StyleGANConfig
from evalkit.generators.sampling import SamplingOptions
from evalkit.generators.vae.conv_vae import VAEConfig
from evalkit.training.diffusion import DDPMTask
from evalkit.training.gan import CGANTask, differentiable_augmentation
from evalkit.training.loop import FitOptions, MovingAverage, TrainingSet, fit, save_grid
from evalkit.training.recipes import RECIPES, export
from evalkit.training.style_gan import StyleGANTask
from evalkit.training.vae import VAETask

STEPS = 6


def _task(name: str):
    return {
        "ddpm": lambda: DDPMTask(
            config=DDPMConfig(resolution=8, channels=(16, 16), groups=4, head_dim=8),
            steps=STEPS,
            device="cpu",
            warmup=2,
        ),
        "cgan": lambda: CGANTask(
            config=CGANConfig(latent_dim=8, channels=(16, 8)), steps=STEPS, device="cpu"
        ),
        "stylegan": lambda: StyleGANTask(
            config=StyleGANConfig(latent_dim=8, style_dim=8, mapping_layers=2, channels=(16, 8)),
            device="cpu",
            widths=(8, 16),
            augmentation_ramp=40.0,
        ),
        "vae": lambda: VAETask(
            config=VAEConfig(latent_dim=4, width=8, resolution=8), steps=STEPS, device="cpu"
        ),
    }[name]()


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    return TrainingSet(
        rng.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, 40).astype(np.int64)
    )


def _options(steps: int) -> FitOptions:
    return FitOptions(steps=steps, batch_size=8, preview_every=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "cgan", "stylegan", "vae"])
def test_resumed_training_is_identical_and_exports(tmp_path, data, name):
    whole = _task(name)
    facts = fit(whole, data, _options(STEPS), out=tmp_path / "whole")
    assert facts["images_seen"] == STEPS * 8
    fit(_task(name), data, _options(3), out=tmp_path / "halves")
    resumed = _task(name)
    fit(resumed, data, _options(STEPS), out=tmp_path / "halves")
    expected, got = whole.export()[1], resumed.export()[1]
    assert all(torch.equal(expected[key], got[key]) for key in expected)

    path = tmp_path / f"{name}.safetensors"
    export(whole, path, dict(facts))
    generator = load_generator(name, path, options=SamplingOptions(steps=2 if name == "ddpm" else None))
    labels = np.zeros(2, dtype=np.int64) if generator.num_classes else None
    assert generator.generate(np.array([1, 2]), labels=labels).shape == (2, 3, 8, 8)
    assert (tmp_path / "whole" / "preview-final.png").is_file()


@pytest.mark.parametrize("name", ["cgan", "vae", "ddpm"])
def test_checkpoints_on_the_way_are_those_of_shorter_trainings_and_change_nothing(tmp_path, data, name):
    kept = {}
    whole = _task(name)
    options = replace(_options(4), keep=(2,))

    def keep(facts):
        kept[facts["steps"]] = {key: value.clone() for key, value in whole.export()[1].items()}

    fit(whole, data, options, out=tmp_path / "whole", keep=keep)
    assert list(kept) == [2]
    plain, short = _task(name), _task(name)
    fit(plain, data, _options(4), out=tmp_path / "plain")
    fit(short, data, _options(2), out=tmp_path / "short")
    assert all(torch.equal(value, plain.export()[1][key]) for key, value in whole.export()[1].items())
    assert all(torch.equal(value, short.export()[1][key]) for key, value in kept[2].items())


def test_the_large_ddpm_is_a_ddpm(tmp_path, data):
    task = RECIPES["ddpm-large"].task(1, "cpu", 0)
    images, labels = data.batch(FitOptions(steps=1, batch_size=2), 0, torch.Generator())
    logged = task.step(images, labels, step=0, rng=torch.Generator().manual_seed(0))
    assert np.isfinite(logged["loss"])
    export(task, tmp_path / "x.safetensors", {})
    generator = load_generator("ddpm", tmp_path / "x.safetensors", options=SamplingOptions(steps=1))
    assert generator.parameter_count == 4_440_515
    assert generator.generate(np.array([1]), labels=np.array([3])).shape == (1, 3, 32, 32)


@pytest.mark.slow
def test_a_vae_learns(data):
    task = VAETask(
        config=VAEConfig(latent_dim=4, width=8, resolution=8), steps=40, device="cpu", bfloat16=False
    )
    first = task.step(*data.batch(_options(40), 0, torch.Generator()), step=0, rng=torch.Generator())
    for step in range(1, 40):
        last = task.step(*data.batch(_options(40), step, torch.Generator()), step=step, rng=torch.Generator())
    assert last["mse"] < 0.9 * first["mse"]


def test_every_epoch_holds_every_image_once(data):
    options = FitOptions(steps=10, batch_size=8, flip=False)
    seen = [data.batch(options, step, torch.Generator())[0] for step in range(5)]
    rebuilt = torch.cat(seen).add(1).mul(127.5).round().to(torch.uint8).numpy()
    assert {image.tobytes() for image in rebuilt} == {image.tobytes() for image in data.images}


def test_a_run_of_another_data_order_is_not_resumed(tmp_path, data):
    fit(_task("vae"), data, _options(1), out=tmp_path)
    with pytest.raises(UsageError, match="was begun with"):
        fit(_task("vae"), data, FitOptions(steps=2, batch_size=4), out=tmp_path)


def test_a_killed_run_does_not_log_its_last_steps_twice(tmp_path, data):
    class Idle:
        """Learns nothing, and is killed at step 120 where asked."""

        def __init__(self, *, killed: bool) -> None:
            self.killed, self.modules, self.optimizers = killed, {}, {}

        def step(self, images, labels, *, step, rng):
            if self.killed and step == 120:
                raise KeyboardInterrupt
            return {"loss": float(step)}

        def finish(self, batches):
            pass

        def preview(self, rng):
            return torch.zeros(1, 3, 4, 4)

    fit(Idle(killed=False), data, _options(60), out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(Idle(killed=True), data, _options(150), out=tmp_path)
    fit(Idle(killed=False), data, _options(150), out=tmp_path)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows == ["step,loss", "50,49", "100,99", "150,149"]


def test_fewer_images_than_a_batch(data):
    with pytest.raises(InvalidInputError, match="fewer than one batch"):
        data.batch(FitOptions(steps=1, batch_size=41), 0, torch.Generator())


def test_the_moving_average_halves_the_distance_after_a_half_life():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, half_life_images=32.0)
    torch.nn.init.ones_(network.weight)
    for _ in range(4):
        average.update(network, images_seen=10_000, batch_size=8)
    assert float(average.network.weight) == pytest.approx(0.5)


def test_augmentation_shifts_and_cuts_but_never_invents():
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 1.0
    augmented = differentiable_augmentation(images, torch.Generator().manual_seed(0))
    assert augmented.shape == images.shape
    for before, after in zip(images, augmented, strict=True):
        kept = after[after != 0]
        assert 0 < len(kept) < before.numel()
        assert bool(torch.isin(kept, before).all())


def test_preview_grid(tmp_path):
    save_grid(torch.zeros(16, 3, 4, 4), tmp_path / "grid.png")
    from PIL import Image

    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (32, 8)
        assert grid.getpixel((0, 0)) == (128, 128, 128)


def test_each_recipe_trains_a_registered_model():
    bundled = {"cgan", "ddpm", "gated-pixelcnn", "sngan", "stylegan", "vae", "vq-vae"}
    assert set(RECIPES) == bundled | {"ddpm-large"}
    for name in RECIPES:
        assert RECIPES[name].name == name
        assert RECIPES[name].steps > 0
