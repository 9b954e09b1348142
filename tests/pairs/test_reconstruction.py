"""A model's reconstructions as the generated side of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalkit.console import Silent
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators import SamplingOptions
from evalkit.pairs.reconstruction import ReconstructedPairs, reconstruct_pairs, score_reconstruction
from evalkit.request import ScoreRequest
from evalkit.spec import Spec
from evalkit.subjects import ImageOptions


class Generating:
    """A model without an encoder."""

    family = "vae"
    resolution = 16

    def __init__(self, num_classes: int = 0) -> None:
        self.num_classes = num_classes

    @property
    def spec(self) -> Spec:
        return Spec.of("generator", "darkener", classes=self.num_classes)

    def generate(self, seeds, *, labels=None):
        raise AssertionError


class Darkener(Generating):
    """Reconstructs an image at half its brightness; with classes, minus the class."""

    def reconstruct(self, images, *, labels=None):
        shift = 0 if labels is None else torch.from_numpy(labels).view(-1, 1, 1, 1)
        return (images // 2 - shift).to(torch.uint8)


class Liar(Darkener):
    def reconstruct(self, images, *, labels=None):
        return images.float()


class Failing(Darkener):
    def reconstruct(self, images, *, labels=None):
        raise RuntimeError("no such layer")


def darkener() -> Darkener:
    return Darkener()


def failing() -> Darkener:
    return Failing()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("a", "b"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(9):
            pixels = rng.integers(10, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{number}.png")
    return tmp_path / "images"


def open_pairs(model, images: Path, **fields) -> ReconstructedPairs:
    return reconstruct_pairs(model, images, options=ImageOptions(), **fields)[0]


def test_the_generated_side_is_the_reconstruction(images):
    pairs = open_pairs(Darkener(), images)
    batch = pairs.read(np.array([3, 17]))
    for ours, theirs in zip(batch.generated, batch.reference, strict=True):
        assert torch.equal(ours, theirs // 2)
    assert pairs.names(17) == ("b/8.png", "b/8.png")
    assert len(pairs) == 18
    assert len(open_pairs(Darkener(), images, num_samples=5)) == 5


def test_labels_reach_a_conditional_model(images):
    batch = open_pairs(Darkener(2), images).read(np.array([0, 9]))
    assert torch.equal(batch.generated[0], batch.reference[0] // 2)
    assert torch.equal(batch.generated[1], batch.reference[1] // 2 - 1)
    for path in images.rglob("*.png"):
        path.rename(images / f"{path.parent.name}{path.name}")
    with pytest.raises(UsageError, match="no labels"):
        open_pairs(Darkener(2), images).read(np.array([0]))


def test_models_without_an_encoder_and_liars_are_refused(images):
    with pytest.raises(UsageError, match="'darkener' has no encoder") as caught:
        open_pairs(Generating(), images)
    assert "vae" in (caught.value.hint or "")
    with pytest.raises(InvalidInputError, match=r"torch\.float32"):
        open_pairs(Liar(), images).read(np.array([0]))


def test_images_of_another_size_are_refused(images):
    Image.new("RGB", (8, 16)).save(images / "a" / "0.png")
    with pytest.raises(InvalidInputError, match=r"'a/0.png' is 8 x 16, the model reconstructs 16 x 16"):
        open_pairs(Darkener(), images).read(np.array([0]))


def score(model: str, images: Path | None, **fields):
    request = ScoreRequest(model=model, images=images, device="cpu", **fields)
    return score_reconstruction(request, console=Silent())


def test_a_record_of_reconstructions(tmp_path, images, monkeypatch):
    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda _path: darkener)
    record = score("tests:darkener", images, metrics=("psnr", "ssim"), out=tmp_path / "runs", name="half")
    assert record.model.id == "half"
    assert record.model.family == "vae"
    assert record.protocol.name == "reconstruct"
    assert record.data.resolution == 16
    assert {result.metric for result in record.results} == {"psnr", "ssim"}
    assert record.results[0].n_gen == 18
    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda _path: failing)
    with pytest.raises(InvalidInputError, match="RuntimeError: no such layer"):
        score("tests:failing", images, metrics=("psnr",), out=tmp_path / "runs", name="bad")


@pytest.mark.parametrize(
    "fields",
    [
        {"reference": "x"},
        {"protocol": "standard"},
        {"params": {"kd": {"subsets": 1}}},
        {"report_at": 10},
        {"held_out": "x"},
        {"prompts": Path("p")},
        {"sampling": SamplingOptions(steps=3)},
        {"num_samples": 0},
    ],
)
def test_options_that_do_not_apply_are_refused(images, fields):
    with pytest.raises(UsageError):
        score("vae", images, **fields)
    with pytest.raises(UsageError, match="needs a model and images"):
        score("vae", None)


def test_the_bundled_vae_reconstructs_and_the_gan_does_not(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse]
    np.savez(tmp_path / "x.npz", np.stack(smooth))
    one = score("vae", tmp_path / "x.npz", metrics=("psnr",), out=tmp_path / "runs")
    assert one.results[0].value > 15  # a mean colour scores about 12
    other = score("vae", tmp_path / "x.npz", metrics=("psnr",), out=tmp_path / "other", batch_size=3)
    assert other.results[0].value == pytest.approx(one.results[0].value, rel=1e-3)
    with pytest.raises(UsageError, match="'cgan' has no encoder"):
        score("cgan", tmp_path / "x.npz")
