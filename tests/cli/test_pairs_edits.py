"""`evalkit pairs --metrics clip-directional` from the shell, on a small CLIP with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

from evalkit.cli.main import run
from evalkit.digests import file_sha256
from evalkit.extractors.clip import random_network

TINY = "evalkit-tiny-edits"
CONFIG: dict[str, Any] = {
    "embed_dim": 512,  # of ViT-B/32, whose name it goes by here
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
COUNT = 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{TINY}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = open_clip.create_model(TINY, force_quick_gelu=True)
    path = folder / "tiny.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Edits of two sizes without targets; the last changes nothing, and captions differ."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    monkeypatch.setattr(
        "evalkit.extractors.clip.random_network",
        lambda _architecture, *, quick_gelu: random_network(TINY, quick_gelu=quick_gelu),
    )
    rng = np.random.default_rng(0)
    rows = ["edited,source,source_prompt,prompt"]
    for i in range(COUNT):
        pixels = rng.integers(0, 256, (24, 30 + i, 3), dtype=np.uint8)
        changed = pixels if i == COUNT - 1 else pixels[:, :24] // 2
        for folder, image in (("in", pixels), ("out", changed)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
        rows.append(f'out/{i}.png,in/{i}.png,"a photo, {i}",a dark photo {i}')
    path = tmp_path / "edits.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def pairs(*arguments: str) -> int:
    return run(["pairs", "--manifest", "edits.csv", "--device", "cpu", *arguments])


def record_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert pairs("--format", "json", *arguments) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_score_a_table_and_a_sheet(edits, weights, capsys):
    arguments = ["--metrics", "clip-directional", "--weights", f"clip-vit-b-32={weights}"]
    record = record_of(capsys, *arguments, "--per-pair", "v.csv", "--worst", "w.png", "-k", "3")
    (result,) = record["results"]
    label = f"clip-directional:clip-vit-b-32@{file_sha256(weights)[:8]}"
    assert result["metric"] == label
    assert result["direction"] == "higher"
    assert -1 <= result["value"] <= 1
    assert result["details"]["undefined"] == 1
    assert "1 of 8 edits" in result["warnings"][0]
    table = pd.read_csv("v.csv")
    assert table[label].isna().sum() == 1
    assert table[label].mean() == pytest.approx(result["value"], rel=1e-6)
    assert table["reference"].tolist() == [f"in/{i}.png" for i in range(COUNT)]
    assert Path("w.png").stat().st_size > 1000
    (metric,) = record["protocol"]["fields"]["metrics"]
    assert metric["measure"]["sha256"] == file_sha256(weights)
    assert pairs(*arguments) == 0
    shown = capsys.readouterr()
    assert "standard error of the mean" in shown.out
    assert "continued: 8 of 8" in shown.err


def test_captions_images_and_network_are_in_the_fingerprint(edits, weights, capsys):
    arguments = ["--metrics", "clip-directional:clip-vit-b-32", "--weights", f"clip-vit-b-32={weights}"]
    one = record_of(capsys, *arguments)["protocol"]["fingerprint"]
    assert record_of(capsys, *arguments, "--batch-size", "3")["protocol"]["fingerprint"] == one
    few = record_of(capsys, *arguments, "--num-samples", "5")
    assert few["results"][0]["n_gen"] == 5
    assert few["protocol"]["fingerprint"] != one
    text = edits.read_text()
    edits.write_text(text.replace("a dark photo 3", "a red photo 3"))
    captions = record_of(capsys, *arguments)["protocol"]["fingerprint"]
    edits.write_text(text)
    Image.new("RGB", (30, 24)).save("in/0.png")
    sources = record_of(capsys, *arguments)["protocol"]["fingerprint"]
    assert len({one, captions, sources}) == 3


def test_beside_measures_of_a_target(edits, weights, capsys):
    lines = edits.read_text().splitlines()
    for i in range(COUNT):
        with Image.open(f"out/{i}.png") as edited:
            Image.new("RGB", edited.size).save(f"target{i}.png")
        lines[i + 1] += f",target{i}.png"
    edits.write_text("\n".join([lines[0] + ",target", *lines[1:]]))
    arguments = ["--metrics", "psnr,clip-directional", "--weights", f"clip-vit-b-32={weights}"]
    both = record_of(capsys, *arguments)["results"]
    assert [result["metric"].partition(":")[0] for result in both] == ["psnr", "clip-directional"]
    assert record_of(capsys, "--metrics", "psnr")["results"][0]["value"] == both[0]["value"]


def test_what_is_missing_is_named(edits, weights, capsys):
    assert pairs("--metrics", "clip-directional") == 75
    told = capsys.readouterr().err
    assert "--weights clip-vit-b-32=FILE" in told
    assert "ViT-B-32.pt" in told
    assert pairs("--metrics", "psnr") == 6
    assert "no column 'reference'" in capsys.readouterr().err
    assert pairs("--metrics", "clip-directionl") == 2
    assert "did you mean 'clip-directional'" in capsys.readouterr().err
    assert run(["pairs", "in", "in", "--metrics", "clip-directional", "--device", "cpu"]) == 2
    assert "--manifest" in capsys.readouterr().err
    assert pairs("--metrics", "clip-directional", "--weights", f"clip-vit-l-14={weights}") == 2
    assert "not used" in capsys.readouterr().err


def test_bad_sources_take_their_edits_with_them(edits, weights, capsys):
    Path("in/2.png").write_bytes(b"no image")
    arguments = ["--metrics", "clip-directional", "--weights", f"clip-vit-b-32={weights}"]
    assert pairs(*arguments) == 6
    capsys.readouterr()
    record = record_of(capsys, *arguments, "--on-bad", "skip", "--max-bad", "1")
    assert record["results"][0]["n_gen"] == COUNT - 1
    assert "in/2.png" in record["inputs"]["rejected"][0]
