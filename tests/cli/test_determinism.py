"""`--determinism strict`: one score to the last bit, whatever the batch size and the number of threads."""

from __future__ import annotations

import json

import numpy as np
import torch

from evalkit.cli.main import run


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
