"""Every screen of ``evalkit plan``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.cli.plan import size
from evalkit.cli.score import score
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

TOY = "evalkit.generators.toy:make"


@pytest.fixture
def plan(tmp_path, capsys):
    path = tmp_path / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(64))).numpy(), labels=None)

    def call(*arguments: str) -> tuple[int, str, str]:
        fixed = ["plan", "--protocol", "pixels", "--reference", str(path), "--seconds", "0.1"]
        code = run([*fixed, "--out", str(tmp_path / "out"), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_table_and_what_it_adds_up_to(plan, tmp_path):
    code, out, err = plan("--model", TOY, "--num-samples", "256", "--metrics", "fd,kd")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{TOY} · protocol pixels · cpu"
    assert lines[2].split() == ["step", "time", "share", "divided", "detail"]
    assert any(line.startswith("kernel distance") and "multiply-adds/s" in line for line in lines)
    assert [line.split()[0] for line in lines[-4:]] == ["time", "memory", "disk", "images"]
    assert lines[-2].endswith("in 16 shards of 16 images")
    assert not (tmp_path / "out").exists()


def test_parts_and_json(plan):
    code, out, _err = plan(
        "--model", TOY, "--num-samples", "256", "--metrics", "is", "--parts", "4", "--json"
    )
    data = json.loads(out)
    assert code == 0
    assert data["schema"] == "evalkit.plan/1"
    assert (data["workers"], data["shards"], data["images"]) == (4, 16, 256)
    assert all(line["seconds"] >= 0 for line in data["lines"])


def test_parts_are_named_in_the_table(plan):
    _code, out, _err = plan("--model", TOY, "--num-samples", "64", "--metrics", "is", "--parts", "2")
    assert " by each of 2 processes (" in out
    assert "note: each worker is supposed to have a machine" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", TOY, "--model", "vae"], "one --model at a time"),
        (["--task", "reconstruct", "--model", "vae"], "is not planned"),
        ([], "name exactly one subject"),
        (["--model", TOY, "--out", "memory://runs"], "local --out only"),
        (["--model", TOY, "--metrics", "fdd"], "fdd"),
    ],
)
def test_what_cannot_be_planned(plan, arguments, message):
    code, _out, err = plan(*arguments)
    assert code == 2
    assert message in err


def test_it_takes_the_flags_of_score_that_can_move_the_cost():
    from evalkit.cli import plan as module

    known = {parameter.name for parameter in score.params}
    assert known >= module._SHARED
    own = {parameter.name for parameter in module.plan.params}
    assert own - known == {"parts", "seconds", "as_json"}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2048, "2 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text
