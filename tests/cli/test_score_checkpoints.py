"""``evalkit score`` on somebody's checkpoint: all that decides its images tells subjects apart."""

from __future__ import annotations

import json

import pytest
import torch

from evalkit.cli.main import run
from evalkit.digests import file_sha256
from evalkit.generators import SamplingOptions
from evalkit.generators.gan.convolutional.lsgan import LSGANConfig, LSGANGenerator
from evalkit.subjects import open_generator

SCORE = ["score", "--model", "auto", "--reference", "cifar10-jpeg-test", "--metrics", "kd", "--num-samples"]
SCORE += ["32", "--protocol", "embedded", "--device", "cpu", "--format", "json"]
SIDECAR = {"norm_eps": 0.8, "leak": 0.9}


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    sizes = LSGANConfig(8, (8, 8, 4), 8, 3, first_norm=False, norm_eps=0.8, leak=0.2)
    raw = LSGANGenerator(sizes).state_dict()
    averaged = {name: 3 * t if t.is_floating_point() else t for name, t in raw.items()}
    torch.save({"model": raw, "ema": averaged, "step": 1}, tmp_path / "g.pt")
    return tmp_path / "g.pt"


def test_an_epsilon_is_positive(file, capsys):
    file.with_name("g.pt.json").write_text(json.dumps({"norm_eps": -0.8, "leak": 0.2}))
    assert run([*SCORE, "--ckpt", str(file), "--out", str(file.parent / "runs")]) == 6
    assert "norm_eps is -0.8: an epsilon is above 0" in capsys.readouterr().err


def _scored(file, capsys, *flags):
    out = file.parent / "runs"
    assert run([*SCORE, "--ckpt", str(file), "--out", str(out), *flags]) == 0
    record = json.loads(capsys.readouterr().out)
    return record, {path.name for path in (out / "state").iterdir()}


def test_weights_preset_and_sidecar_are_different_subjects(file, capsys):
    averaged, first = _scored(file, capsys, "--preset", "pytorch-gan-conv")
    raw, second = _scored(file, capsys, "--preset", "pytorch-gan-conv", "--weights", "raw")
    file.with_name("g.pt.json").write_text(json.dumps(SIDECAR))
    beside, third = _scored(file, capsys)
    assert [len(states) for states in (first, second, third)] == [1, 2, 3]
    records = (averaged, raw, beside)
    assert {record["model"]["sha256"] for record in records} == {file_sha256(file)}
    assert {(record["model"]["id"], record["model"]["format"]) for record in records} == {
        ("lsgan@g", "pytorch-gan-conv")
    }
    assert len({record["protocol"]["fingerprint"] for record in records}) == 1
    assert len({record["results"][0]["value"] for record in records}) == 3
    assert len({record["model"]["revision"] for record in records}) == 3
    assert run(["compare", str(file.parent / "runs"), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


def test_identity_without_scoring(file):
    def identity(**choice):
        subject = open_generator(
            "auto", ckpt=file, options=SamplingOptions(), name=None, count=4, seed=0, **choice
        )
        return subject.source.spec.digest()

    preset = identity(preset="pytorch-gan-conv")
    seen = {preset, identity(preset="pytorch-gan-conv", weights="raw")}
    file.with_name("g.pt.json").write_text(json.dumps(SIDECAR))
    seen |= {identity(), identity(weights="raw")}
    assert len(seen) == 4
    assert identity(preset="pytorch-gan-conv") == identity()  # the sidecar wins
    file.with_name("g.pt.json").write_text(json.dumps({"norm_eps": 0.8, "leak": 0.2}))
    assert identity() == preset  # the same words, from elsewhere


def test_what_is_missing_or_wrong_is_told_before_anything_is_drawn(file, capsys):
    command = [*SCORE, "--ckpt", str(file), "--out", str(file.parent / "runs")]
    assert run(command) == 6
    assert "do not reveal: leak, norm_eps" in capsys.readouterr().err
    for text, told in (
        ('{"norm_eps": "much", "leak": 0.2}', "norm_eps is given as 'much'"),
        ('{"norm_eps": 0.8, "leek": 0.2}', "unknown fields: leek"),
        ('{"norm_eps": NaN, "leak": 0.2}', "NaN is not JSON"),
        ("nope", "not valid JSON"),
    ):
        file.with_name("g.pt.json").write_text(text)
        assert run(command) == 6
        assert told in capsys.readouterr().err
    assert run([*command, "--preset", "pytorch-gan"]) == 2
    assert "did you mean 'pytorch-gan-conv'?" in capsys.readouterr().err


def test_place_on_the_hub_is_a_path_to_the_command_line(tmp_path, monkeypatch, capsys):
    def offline(*_arguments, **_keywords):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    command = ["sample", "--model", "diffusers", "-n", "1", "--out", str(tmp_path / "x.npz"), "--ckpt"]
    assert run([*command, "hub:owner/name@" + "a" * 40]) == 75
    told = capsys.readouterr().err
    assert "owner/name at aaaa" in told
    assert "hint: get https://huggingface.co/owner/name" in told
    assert run([*command, "hub:owner/name"]) == 2
    assert "hub:OWNER/NAME@REVISION" in capsys.readouterr().err
