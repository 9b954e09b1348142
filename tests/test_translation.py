"""`score --task translate`: what a model makes of images is scored like any other images."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from evalkit.cli.main import run
from evalkit.core import ImageBatch, Translator
from evalkit.errors import InvalidInputError
from evalkit.sources.translated import TranslatedSource
from evalkit.spec import Spec


@dataclass(frozen=True)
class Inverter:
    """Negative images; ``noisy`` adds the parity of the seed."""

    noisy: bool = False
    family: str = "other"

    @property
    def spec(self):
        return Spec.of("translator", "inverter", noisy=self.noisy)

    def translate(self, images, *, seeds):
        added = (
            torch.from_numpy(seeds % 2).to(torch.uint8) if self.noisy else torch.zeros(1, dtype=torch.uint8)
        )
        return 255 - images + added[:, None, None, None] * (images > 0)


class Broken(Inverter):
    def translate(self, images, *, seeds):
        return images.float()


class Ramps:
    """Images of two sizes, so that batches are mixed."""

    spec = Spec.of("source", "ramps")

    def __len__(self):
        return 9

    def read(self, index):
        sizes = [4 if i % 3 else 6 for i in index]
        images = [
            torch.full((3, s, s), 10 * int(i) + 1, dtype=torch.uint8)
            for i, s in zip(index, sizes, strict=True)
        ]
        return ImageBatch(images=images, index=index, labels=index % 2)


def test_images_stay_in_order_and_keep_their_labels():
    source = TranslatedSource(Ramps(), Inverter(), "x")
    batch = source.read(np.arange(9))
    assert [int(image[0, 0, 0]) for image in batch.images] == [254 - 10 * i for i in range(9)]
    assert batch.labels.tolist() == [i % 2 for i in range(9)]


def test_image_i_draws_from_seed_i():
    source = TranslatedSource(Ramps(), Inverter(noisy=True), "x", base_seed=5)
    whole = source.read(np.arange(9)).images
    assert len({int(a[0, 0, 0]) + 10 * i for i, a in enumerate(whole)}) == 2
    for i in (7, 0, 3):
        assert torch.equal(source.read(np.array([i])).images[0], whole[i])


def test_the_spec_tells_models_and_images_apart():
    specs = {
        TranslatedSource(Ramps(), Inverter(), identity, base_seed=seed).spec
        for identity in "xy"
        for seed in (0, 1)
    }
    assert len(specs) == 4
    assert isinstance(Inverter(), Translator)


def test_what_is_no_image_is_refused():
    with pytest.raises(InvalidInputError, match="not uint8"):
        TranslatedSource(Ramps(), Broken(), "x").read(np.arange(2))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "source.npz", arr_0=rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
    return tmp_path


def _score(folder, capsys, *arguments):
    command = ["score", "--images", str(folder / "source.npz"), "--protocol", "embedded", "--metrics", "kd",
               "--device", "cpu", "--out", str(folder / "runs"), "--format", "json", *arguments]  # fmt: skip
    code = run(command)
    return code, capsys.readouterr()


def test_a_translation_is_scored_and_is_not_the_source(folder, capsys, monkeypatch):
    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda _name: Inverter())
    translated = ("--reference", "cifar10-jpeg-test", "--task", "translate", "--model", "mine:model")
    code, captured = _score(folder, capsys, *translated)
    assert code == 0, captured.err
    record = json.loads(captured.out)
    assert record["model"]["family"] == "other"
    code, captured = _score(folder, capsys, "--reference", "cifar10-jpeg-test")
    assert code == 0, captured.err
    assert json.loads(captured.out)["results"][0]["value"] != record["results"][0]["value"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--task", "translate"), "needs a model and images"),
        (
            ("--task", "translate", "--model", "cgan", "--reference", "cifar10-jpeg-test"),
            "does not turn images",
        ),
        (("--model", "cgan"), "exactly one subject"),
    ],
)
def test_refusals(folder, capsys, arguments, says):
    code, captured = _score(folder, capsys, *arguments)
    assert code == 2
    assert says in captured.err


def test_a_translator_draws_nothing_by_itself(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda _name: Inverter())
    assert run(["sample", "--model", "mine:model", "--out", str(tmp_path / "x.npz")]) == 2
    assert "--task translate" in capsys.readouterr().err
