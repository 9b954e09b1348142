"""The bundled models and references are there, whole, and score in a sensible order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import evalkit
from evalkit.generators import GENERATOR_FACTS
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.references import bundled_references
from evalkit.sample_files import write_samples

NAMES = ("cgan", "ddpm", "gated-pixelcnn", "sngan", "stylegan", "vae", "vq-vae")


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_ships_small_and_describes_itself(name):
    path = GENERATOR_FACTS[name].checkpoint
    assert path.is_file()
    assert path.stat().st_size <= 10_000_000
    checkpoint = read_checkpoint(path)
    assert checkpoint.architecture == name
    assert {"data", "images_seen", "seconds", "recipe", "seed"} <= set(checkpoint.training)
    assert all(t.dtype == torch.float16 for t in checkpoint.tensors.values() if t.is_floating_point())
    card = path.with_suffix(".md").read_text()
    for heading in ("Data", "Compute", "Scores"):
        assert f"## {heading}" in card


@pytest.mark.parametrize("name", ["cifar10-jpeg-train", "cifar10-jpeg-test"])
def test_reference_ships_whole(name):
    assert name in bundled_references()
    reference = evalkit.load_reference(name)
    assert reference.count == (50_000 if name.endswith("train") else 10_000)
    assert len(reference.head("block").bank) == 5000
    assert reference.head("pooled").covariance.shape == (1280, 1280)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_plain_torch_copy_scores_the_same(name, tmp_path):
    settings = {"protocol": "embedded", "metrics": ["fd", "kd"], "num_samples": 32, "out": tmp_path}
    if name == "ddpm":
        settings["sampling"] = evalkit.SamplingOptions(steps=4)
    original = evalkit.score(model=name, **settings)
    path = tmp_path / "x.pt"
    state = evalkit.load_generator(name).network.state_dict()
    torch.save(state, path)
    # Files of torch-mimicry have the same names as sngan and other up-sampling: nothing is guessed.
    copy = evalkit.score(model=name, ckpt=path, preset="nearest" if name == "sngan" else None, **settings)
    assert [r.value for r in copy.results] == [r.value for r in original.results]
    assert copy.model.sha256 != original.model.sha256
    assert copy.protocol.fingerprint == original.protocol.fingerprint


@pytest.mark.slow
def test_noise_scores_far_worse_than_a_model(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (128, 3, 32, 32), dtype=np.uint8)
    write_samples(tmp_path / "noise.npz", noise, labels=None)
    settings = {"protocol": "embedded", "metrics": ["kd"], "reference": "cifar10-jpeg-train", "out": tmp_path}
    (bad,) = evalkit.score(images=tmp_path / "noise.npz", num_samples=128, **settings).results
    (good,) = evalkit.score(model="cgan", num_samples=128, **settings).results
    assert bad.value > 3 * good.value
