"""`evalkit bench`: speeds as a table and as data, curves, figures and refusals."""

from __future__ import annotations

import csv
import io
import json

import pytest
from PIL import Image

from evalkit.cli.main import run

FAST = ["--min-seconds", "0.01", "--device", "cpu"]


def _bench(capsys, *arguments):
    code = run(["bench", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_speeds_of_two_models(capsys, tmp_path):
    code, out, _ = _bench(capsys, "cgan", "vae", "--batch-sizes", "1,4", "--out", str(tmp_path), *FAST)
    assert code == 0
    assert out.count("single-stream") == 2
    assert "Fastest offline: cgan" in out
    assert run(["compare", str(tmp_path)]) == 0
    assert "images/s" in capsys.readouterr().out


def test_csv_has_a_row_for_each_trial(capsys, tmp_path):
    code, out, _ = _bench(
        capsys, "cgan", "--batch-sizes", "1,4", "--scenario", "offline", "--format", "csv",
        "--out", str(tmp_path), *FAST,
    )  # fmt: skip
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["batch_size"] for row in rows] == ["1", "4"]
    assert all(float(row["throughput"]) > 0 and row["latency_p99_ms"] == "" for row in rows)


def test_a_curve_scores_every_point_and_is_drawn(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "curve.png"
    code, out, err = _bench(
        capsys, "ddpm", "--curve", "1,3", "--num-samples", "32", "--metrics", "kd", "--protocol", "embedded",
        "--figure", str(figure), "--out", str(tmp_path), "--format", "json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)["rows"] if isinstance(json.loads(out), dict) else json.loads(out)
    assert [(row["nfe"], row["steps"]) for row in rows] == [(1, 1), (3, 3)]
    assert all(row["seconds_per_image"] > 0 and row["se"] > 0 for row in rows)
    with Image.open(figure) as image:
        assert image.width > 600


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cgan", "--curve", "1,2"], "its curve is one point"),
        (["cgan", "--batch-sizes", "1,x"], "list of numbers"),
        (["cgan", "--figure", "x.png"], "--figure goes with --curve"),
        (["nothing"], "unknown model"),
        (["cgan", "--ckpt", "a", "--ckpt", "b"], "2 --ckpt for 1"),
    ],
)
def test_refusals(capsys, arguments, says):
    code, _, err = _bench(capsys, *arguments)
    assert code == 2
    assert says in err
