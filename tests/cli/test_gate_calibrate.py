"""``evalkit gate calibrate``: what it tells, what it goes on with, and how it leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

TOY = "evalkit.generators.toy:make"


@pytest.fixture(scope="module")
def real_images(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(500))).numpy(), labels=None)
    return path


def _cli(capsys, *arguments):
    code = run(["gate", "calibrate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def toy(real_images, tmp_path):
    return [
        "--model", TOY, "--protocol", "pixels", "--reference", real_images, "--num-samples", 64,
        "--metrics", "kd,precision", "--device", "cpu", "--out", tmp_path / "out",
    ]  # fmt: skip


def test_the_command_goes_on_where_it_was_stopped(capsys, toy):
    code, out, err = _cli(capsys, *toy, "--trials", 1, "--synthetic", 2)
    assert code == 0, err
    assert "2 runs of" in err
    assert "0 of 2 are in" in err
    for word in ("Synthetic trials", "Real trials", "Rounding", "Calibrated"):
        assert word in out
    code, out, err = _cli(capsys, *toy, "--trials", 2, "--synthetic", 0, "--format", "json")
    assert code == 0
    assert "2 of 4 are in" in err
    data = json.loads(out)
    assert data["synthetic"] == []
    assert [row["trials"] for row in data["real"]] == [2] * 4
    assert {row["errors"] for row in data["real"][:2]} == {"unpaired"}
    assert all(row["relative"] < data["numeric_floor"] for row in data["rounding"])


def test_the_command_leaves_with_4_where_a_rate_is_too_high(capsys, toy):
    code, out, err = _cli(capsys, *toy, "--trials", 6, "--synthetic", 0, "--rule", "kd abs")
    assert code == 4
    assert "FAILS" in out
    assert "Not calibrated: kd abs" in out
    assert "hint:" in err


def test_synthetic_trials_alone_need_no_model(capsys, tmp_path):
    code, out, _ = _cli(capsys, "--trials", 0, "--synthetic", 5, "--format", "md", "--out", tmp_path / "out")
    assert code == 0
    assert out.startswith("**Synthetic trials")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--trials", "0", "--synthetic", "0"], 2, "nothing to calibrate"),
        (["--num-samples", "8"], 2, "at least 32"),
        (["--rule", "kd rel=5%%"], 2, "kd rel=5%%"),
        (["--alpha", "0.9"], 2, "alpha"),
        (["--model", "cgann", "--synthetic", "0"], 2, "cgan"),
        (["--model", TOY, "--synthetic", "0", "--protocol", "pixels"], 2, "--reference"),
        (["--trial", "3"], 2, "--trials"),
        (["--seed", "-1"], 2, "--seed"),
    ],
)
def test_refusals(capsys, tmp_path, arguments, code, says):
    got, _, err = _cli(capsys, *arguments, "--out", tmp_path)
    assert got == code, err
    assert says in err


def test_a_rule_of_nothing_measured_is_5(capsys, toy):
    code, _, err = _cli(capsys, *toy, "--trials", 1, "--synthetic", 0, "--rule", "fid")
    assert code == 5
    assert "kd:pixels" in err
