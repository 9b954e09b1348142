"""The model card says what the header and the records say, and refuses records of other weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from evalkit.cli.main import run
from evalkit.digests import file_sha256
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.record import ModelInfo

TRAINING = {
    "recipe": "vae", "data": "train.parquet", "images": 50_000, "images_sha256": "ab" * 32, "seed": 0,
    "device": "cpu", "threads": 1, "steps": 10, "images_seen": 1280, "seconds": 7, "batch_size": 128,
    "commit": "0" * 40,
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    config = VAEConfig(latent_dim=4, width=8)
    torch.manual_seed(0)
    path = tmp_path / "vae.safetensors"
    save_checkpoint(
        path,
        ConvVAE(config).state_dict(),
        architecture="vae",
        config=dataclasses.asdict(config),
        training=TRAINING,
    )
    return path


def _record(make, path, sha256):
    model = ModelInfo(id="vae", family="vae", format="evalkit", sha256=sha256, n_params=1234)
    result = make.result("kd:efficientnet-lite0", 0.25, 0.01)
    make.record("vae", result, model=model, command=("evalkit", "score", "--model", "vae")).write(path)
    return path


def test_card(make, checkpoint, tmp_path, capsys):
    record = _record(make, tmp_path / "record.json", file_sha256(checkpoint))
    assert run(["card", str(checkpoint), str(record)]) == 0
    text = capsys.readouterr().out
    for expected in (
        "# vae",
        "1,234 parameters",
        "(1,280 seen)",
        "`evalkit score --model vae`",
        "0.250 ± 0.010",
    ):
        assert expected in text
    assert run(["card", str(checkpoint), str(record), "--out", str(tmp_path / "vae.md")]) == 0
    assert (tmp_path / "vae.md").read_text() == text


def test_a_record_of_other_weights_is_refused(make, checkpoint, tmp_path, capsys):
    record = _record(make, tmp_path / "record.json", "f" * 64)
    assert run(["card", str(checkpoint), str(record)]) == 6
    assert "another checkpoint" in capsys.readouterr().err
