"""What a metric reads is what was asked for: classes by name, prompts by image, state by model."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

import evalkit
from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, UsageError
from evalkit.generators.toy import GaussianTiles
from evalkit.measurement import by_class_names
from evalkit.prompts import read_prompts
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.sources import open_source
from evalkit.sources.subset import SubsetSource


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("measurement") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


def labelled(labels):
    rows = np.zeros((len(labels), 2), dtype=np.float32)
    return FeatureSet((rows,), labels=(np.asarray(labels, dtype=np.int64),))


def test_classes_are_matched_by_name():
    theirs = ("airplane", "bird", "cat", "dog")
    matched = by_class_names(labelled([0, 1, 0]), ("cat", "dog"), theirs)
    assert matched.labels[0].tolist() == [2, 3, 2]
    assert by_class_names(labelled([0, 1]), None, theirs).labels[0].tolist() == [0, 1]
    assert by_class_names(labelled([0, 1]), ("x", "y"), ()).labels[0].tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="'cow' of the images is none of"):
        by_class_names(labelled([0, 1]), ("cat", "cow"), theirs)


def test_logits_of_other_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    settings = {"images": tmp_path / "images", "protocol": "embedded", "out": tmp_path}
    with pytest.raises(UsageError, match="2 classes with 1000 logits"):
        evalkit.score(metrics=["accuracy"], **settings)
    (result,) = evalkit.score(metrics=["cifar10-accuracy"], **settings).results
    assert set(result.details) - {"std"} == {"class cat", "class dog"}


@pytest.mark.parametrize("subset", [False, True])
def test_prompts_follow_their_images_past_rejected_ones(tmp_path, subset):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * number, dtype=np.uint8)).save(folder / f"{number:02}.png")
    (folder / "02.png").write_bytes(b"broken")
    (tmp_path / "prompts.txt").write_text("".join(f"grey {20 * n}\n" for n in range(12)), encoding="utf-8")
    source = open_source(folder, on_bad="skip", max_bad=1)
    chosen = SubsetSource(source, 7, 1) if subset else source
    prompts = read_prompts(tmp_path / "prompts.txt", chosen, found=12)
    batch = chosen.read(np.arange(len(chosen)))
    assert [f"grey {int(image.flatten()[0])}" for image in batch.images] == list(prompts)


MODEL = """
import torch
from pathlib import Path
from evalkit.spec import Spec

SLOPE = {slope}

class Ramp:
    family, num_classes, resolution, spaces = "other", 0, 32, ("z",)
    spec = Spec.of("generator", "ramp")

    def __init__(self, gain):
        self.gain = gain * SLOPE

    def latents(self, seeds):
        rows = [torch.randn(4, generator=torch.Generator().manual_seed(int(s) % 2**31)) for s in seeds]
        return torch.stack(rows)

    def mapping(self, z, *, labels=None):
        raise NotImplementedError

    def synthesis(self, latents, *, space, noise_seeds, labels=None):
        ramp = torch.linspace(-1, 1, 32)
        image = torch.sin(self.gain * (latents[:, :1] + ramp))[:, None, None, :]
        return image.expand(-1, 3, 32, -1).contiguous()

    def generate(self, seeds, *, labels=None):
        images = self.synthesis(self.latents(seeds), space="z", noise_seeds=seeds)
        return images.mul(127.5).add(128).floor().clamp(0, 255).to(torch.uint8)

def make(ckpt=None):
    return Ramp(float(Path(ckpt).read_text()) if ckpt else 1.0)
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A model whose spec says nothing of its checkpoint or code."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(slope):
        (tmp_path / "own_ramp.py").write_text(MODEL.format(slope=slope), encoding="utf-8")
        sys.modules.pop("own_ramp", None)
        return "own_ramp:make"

    yield write
    sys.modules.pop("own_ramp", None)


def test_another_checkpoint_or_other_code_is_another_model(tmp_path, own_model, real):
    def scores(slope, gain, out):
        checkpoint = tmp_path / f"gain-{gain}.txt"
        checkpoint.write_text(str(gain), encoding="utf-8")
        record = evalkit.score(
            model=own_model(slope), ckpt=checkpoint, protocol="pixels", reference=real, num_samples=16,
            metrics=["fd", "ppl:pd-efficientnet-lite0"], params={"ppl": {"space": "z"}}, out=out,
        )  # fmt: skip
        return [result.value for result in record.results]

    shared = tmp_path / "shared"
    for slope, gain in ((1.0, 1.0), (1.0, 2.0), (3.0, 1.0)):
        alone = scores(slope, gain, tmp_path / f"alone-{slope}-{gain}")
        assert scores(slope, gain, shared) == alone


def test_the_order_of_metrics_does_not_move_the_fingerprint(tmp_path, real):
    names = ["kd:pixels@thumbnail", "vendi:efficientnet-lite0@block"]
    settings = {"images": real, "reference": real, "protocol": "adm", "num_samples": 24, "out": tmp_path}
    one, two = (evalkit.score(metrics=order, **settings) for order in (names, names[::-1]))
    assert one.protocol.fingerprint == two.protocol.fingerprint


def test_everything_takes_parameters_and_a_space_at_hand(tmp_path):
    record = evalkit.score(
        model="cgan", protocol="embedded", metrics=["all"], num_samples=72, out=tmp_path,
        params={"precision": {"k": 5}},
    )  # fmt: skip
    labels = {result.metric for result in record.results}
    assert {
        "accuracy:cifar10",
        "ppl:pd-efficientnet-lite0",
        "vendi:efficientnet-lite0",
        "ct:efficientnet-lite0",
    } <= labels
    specs = {metric["name"]: metric["params"] for metric in record.protocol.fields["metrics"]}
    assert specs["precision"]["k"] == 5
    assert specs["ppl"]["space"] == "z"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"attributes": "x.pt"}, "--attributes is not used"),
        ({"held_out": "cifar10-jpeg-test"}, "--held-out is not used"),
        ({"report_at": 5000, "metrics": ["kd"]}, "--report-at is not used"),
        ({"metrics": ["all", "fd"]}, "stands alone"),
        ({"metrics": ["fd@"]}, "ends too early"),
        ({"metrics": ["all"], "params": {"psnr": {"channels": "y"}}}, "not among the metrics"),
        ({"metrics": ["ppl"], "model": "cgan"}, "space 'w'"),
        ({"metrics": ["ct"], "model": "cgan", "held_out": "cifar10-jpeg-train"}, "same images"),
    ],
)
def test_what_nothing_reads_is_refused(tmp_path, flags, message):
    settings = {"model": "vae", "protocol": "embedded", "metrics": ["fd"], "num_samples": 72, "out": tmp_path}
    with pytest.raises((UsageError, InvalidInputError), match=message):
        evalkit.score(**{**settings, **flags})
    assert not list((tmp_path / "state").glob("*/*.safetensors")), "refused before anything was sampled"


def test_the_limit_stands_where_the_number_asked_for_is_not_proven(tmp_path):
    settings = {
        "model": "vae",
        "protocol": "embedded",
        "metrics": ["fd"],
        "num_samples": 640,
        "out": tmp_path,
    }
    plain = evalkit.score(**settings).results[0]
    (low,) = evalkit.score(report_at=100, **settings).results
    assert low.bias_corrected == plain.bias_corrected is not None
    assert any("cannot be predicted at 100" in warning for warning in low.warnings)
    (high,) = evalkit.score(report_at=50_000, **settings).results
    details = high.details
    assert details["predicted_50000_low"] < details["predicted_50000"] < details["predicted_50000_high"]
    assert plain.bias_corrected < details["predicted_50000"] < plain.value
