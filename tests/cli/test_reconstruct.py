"""`evalkit score --task reconstruct` from the shell, with the bundled VAE."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalkit.cli.main import run


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coarse = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse]
    np.savez(tmp_path / "x.npz", np.stack(smooth))


def score(*arguments: str) -> int:
    return run(["score", "--task", "reconstruct", "--images", "x.npz", "--device", "cpu", *arguments])


def test_a_table_a_record_and_files(capsys):
    files = ["--per-pair", "v.csv", "--worst", "w.png", "-k", "2"]
    assert score("--model", "vae", "--metrics", "psnr,ssim", *files) == 0
    shown = capsys.readouterr()
    assert "psnr ↑" in shown.out
    assert "standard error of the mean" in shown.out
    assert "protocol reconstruct" in shown.out
    (path,) = Path("evalkit-runs").glob("*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "complete"
    assert record["results"][0]["n_gen"] == 6
    assert len(Path("v.csv").read_text().splitlines()) == 7
    assert Path("w.png").stat().st_size > 1000


def test_several_models_give_one_table(capsys):
    assert score("--model", "vae", "--model", "vae", "--metrics", "psnr") == 0
    out = capsys.readouterr().out
    assert "2 models" in out
    assert "psnr" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "cgan"], 2, "no encoder"),
        ([], 2, "needs a model and images"),
        (["--model", "vae", "--reference", "x"], 2, "--reference does not apply"),
        (["--model", "vae", "--steps", "3"], 2, "do not apply"),
        (["--model", "vae", "--attributes", "x"], 2, "--attributes does not apply"),
        (["--model", "vae", "--metrics", "fid"], 2, "unknown pair measure"),
        (["--model", "vae", "--metrics", "clip-directional"], 2, "--manifest"),
        (["--model", "vae", "--model", "vae", "--worst", "w.png"], 2, "one --model"),
        (["--model", "vae", "--per-pair", "v.txt"], 2, "unknown kind"),
    ],
)
def test_what_cannot_work_is_told(capsys, arguments, code, message):
    assert score(*arguments) == code
    assert message in capsys.readouterr().err


def test_files_of_pairs_belong_to_the_task(capsys):
    assert run(["score", "--model", "vae", "--worst", "w.png"]) == 2
    assert "--task reconstruct" in capsys.readouterr().err
