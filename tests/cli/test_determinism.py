"""`--determinism strict`: one score to the last bit, whatever the batch size and the number of threads."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch

from evalkit.cli.main import run
from evalkit.seeding import image_seeds


def _score(capsys, out, *arguments):
    command = ["score", "--model", "vae", "--num-samples", "24", "--metrics", "kd", "--protocol", "embedded",
               "--device", "cpu", "--out", str(out), "--format", "json", *arguments]  # fmt: skip
    code = run(command)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def test_one_score_for_every_batch_size_and_number_of_threads(capsys, tmp_path):
    threads = torch.get_num_threads()
    whole, err = _score(capsys, tmp_path / "a", "--determinism", "strict")
    assert "not used" not in err
    assert whole["env"]["determinism"] == "strict"
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other, err = _score(capsys, tmp_path / "b", "--determinism", "strict", "--batch-size", "7")
    finally:
        torch.set_num_threads(threads)
    assert "--batch-size is not used" in err
    assert other["results"] == whole["results"]


def test_strict_and_standard_agree_within_rounding_and_share_no_state(capsys, tmp_path):
    strict, _ = _score(capsys, tmp_path, "--determinism", "strict")
    standard, err = _score(capsys, tmp_path)
    assert "continued" not in err
    assert standard["protocol"]["fingerprint"] == strict["protocol"]["fingerprint"]
    a, b = strict["results"][0], standard["results"][0]
    assert abs(a["value"] - b["value"]) < 0.01 * a["se"]


def test_samples_are_written_alike_for_every_batch_size(capsys, tmp_path):
    for size in ("1", "7", "64"):
        command = ["sample", "--model", "cgan", "-n", "20", "--determinism", "strict", "--batch-size", size]
        assert run([*command, "--out", str(tmp_path / f"{size}.npz")]) == 0
    capsys.readouterr()
    images = [np.load(tmp_path / f"{size}.npz")["arr_0"] for size in ("1", "7", "64")]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_the_manifest_names_every_sample(capsys, tmp_path):
    command = ["sample", "--model", "cgan", "-n", "6", "--seed", "3"]
    assert run([*command, "--out", str(tmp_path / "x.npz")]) == 0
    assert run([*command, "--batch-size", "1", "--out", str(tmp_path / "folder")]) == 0
    assert "x.manifest.json" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "x.manifest.json").read_text())
    with np.load(tmp_path / "x.npz") as samples:
        for row in manifest["samples"]:
            image = samples["arr_0"][row["index"]].transpose(2, 0, 1)
            assert row["sha256"] == hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
            assert row["label"] == samples["arr_1"][row["index"]]
    seeds = image_seeds(3, np.arange(6))
    assert [row["seed"] for row in manifest["samples"]] == seeds.tolist()
    assert manifest["generator"]["name"] == "cgan"
    other = json.loads((tmp_path / "folder.manifest.json").read_text())
    assert [(r["index"], r["seed"], r["label"]) for r in other["samples"]] == [
        (r["index"], r["seed"], r["label"]) for r in manifest["samples"]
    ]
