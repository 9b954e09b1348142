"""`evalkit pairs` from the shell: what it prints, its exit codes, and that help is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalkit.cli import main

_ENTRY = ("evalkit.cli.pairs", "Compare each generated image with its own reference image.")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(main._COMMANDS, "pairs", main._COMMANDS.get("pairs", _ENTRY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(9):
        truth = rng.integers(0, 200, (32, 36, 3), dtype=np.uint8)
        for folder, pixels in (("out", truth + rng.integers(1, 9 + number, truth.shape)), ("truth", truth)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def run(*arguments: str) -> int:
    return main.run(["pairs", *arguments, "--device", "cpu"])


def test_help_loads_no_torch():
    code = "import sys; from evalkit.cli.pairs import pairs; pairs.main(['--help'], standalone_mode=False)"
    probe = f"{code}; print('loaded', *{{'torch', 'pandas', 'scipy'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "--per-pair" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded"


def test_a_table_a_record_and_files(images, capsys):
    assert run("out", "truth", "--metrics", "psnr,ssim", "--per-pair", "v.csv", "--worst", "w.png") == 0
    shown = capsys.readouterr()
    assert "psnr" in shown.out
    assert "dB" in shown.out
    assert "9 worst pairs by ssim" in shown.err
    assert len((images / "v.csv").read_text().splitlines()) == 10
    assert (images / "w.png").stat().st_size > 1000
    assert len(list((images / "evalkit-runs").glob("*.json"))) == 1


def test_json_is_the_record_and_a_manifest_has_its_own_name(images, capsys):
    (images / "edits.csv").write_text("edited,target\nout/1.png,truth/1.png\nout/2.png,truth/2.png\n")
    assert run("--manifest", "edits.csv", "--metrics", "psnr", "--format", "json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"]["id"] == "edits"
    assert record["results"][0]["variant"] == "whole"
    assert record["protocol"]["fields"]["matching"] == "manifest"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["out"], 2, "two image sets are needed"),
        (["out", "nowhere"], 2, "does not exist"),
        (["out", "truth", "--metrics", "snr"], 2, "did you mean 'psnr'?"),
        (["out", "truth", "--metrics", "ms-ssim"], 6, "161 x 161"),
        (["out", "truth", "--metrics", "lpips"], 75, "alexnet-owt-7be5be79.pth"),
        (["out", "truth", "--regions", "inside"], 2, "needs masks"),
        (["out", "truth", "--match", "names"], 2, "'names'"),
        (["truth", "truth", "--metrics", "psnr"], 5, "identical"),
        (["--manifest", "bad.csv"], 6, "bad.csv: line 2"),
        (["out", "truth", "--worst", "w.png", "-k", "0"], 2, "-k"),
        (["out", "truth", "--batch-size", "0"], 2, "auto"),
    ],
)
def test_exit_codes(images, capsys, arguments, code, message):
    (images / "bad.csv").write_text("generated,reference\n../x,b\n")
    assert run(*arguments) == code
    assert message in capsys.readouterr().err


def test_unmatched_names_say_how_to_go_on(images, capsys):
    (images / "out" / "3.png").rename(images / "out" / "x3.png")
    assert run("out", "truth") == 6
    told = capsys.readouterr().err
    assert "'x3.png'" in told
    assert "--match index" in told
    assert run("out", "truth", "--match", "index", "--metrics", "psnr") == 0
    assert run("out", "truth", "--allow-unmatched", "--metrics", "psnr") == 0
    assert "1 generated, 1 reference" in capsys.readouterr().err
