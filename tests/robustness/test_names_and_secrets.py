"""Odd locales and names, secrets, and readers that leave early."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from tests.robustness.conftest import TOY, elsewhere, environment

SECRET = "hf_averysecretvalue1234"


@pytest.fixture
def samples(tmp_path):
    """Sixty-four images in an npz of a given name."""

    def write(name: str):
        path = tmp_path / name
        write_samples(
            path.with_suffix(".npz"),
            GaussianTiles().generate(image_seeds(1, np.arange(64))).numpy(),
            labels=None,
        )
        return path.with_suffix(".npz").rename(path)

    return write


@pytest.mark.fault("locale-c", "japanese-name")
def test_japanese_files_are_scored_under_the_locale_c(tmp_path, real, samples, observed):
    images, reference = samples("猫の画像.npz"), tmp_path / "本物.npz"
    shutil.copy(real, reference)
    plain = environment(
        LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING=None, LC_CTYPE=None
    )
    ended = elsewhere(
        "score", "--images", images, "--reference", reference, "--protocol", "pixels", "--metrics", "fd",
        "--out", tmp_path / "出力", env=plain, cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert ended.out.isascii()
    (path,) = (tmp_path / "出力").glob("*.json")
    assert RunRecord.read(path).status == "complete"
    observed("exit 0: 猫の画像.npz is scored against 本物.npz into 出力/, the table is ASCII")


def _refused(score, out, name: str) -> str:
    ended = score("--name", name)
    assert ended.code == 2
    assert "identifier" in ended.err
    assert not out.exists()
    return ended.told


@pytest.mark.fault("japanese-name")
def test_a_japanese_name_is_refused_at_the_door(tmp_path, score, observed):
    observed(_refused(score, tmp_path / "out", "猫モデル"))


@pytest.mark.fault("formula-name")
@pytest.mark.parametrize("name", ["=HYPERLINK()", "+1", "@x"])
def test_a_formula_is_refused_at_the_door(tmp_path, score, observed, name):
    observed(_refused(score, tmp_path / "out", name))


@pytest.mark.fault("script-name")
@pytest.mark.parametrize("name", ["</script>", "a\nb", "../x"])
def test_markup_is_refused_at_the_door(tmp_path, score, observed, name):
    observed(_refused(score, tmp_path / "out", name))


@pytest.mark.fault("formula-name", "script-name")
@pytest.mark.parametrize("name", ["=HYPERLINK(1).npz", "<script>alert(1)<script>.npz", "猫.npz"])
def test_a_name_that_comes_with_a_file_is_inert_everywhere(tmp_path, samples, score, evalkit, observed, name):
    assert score("--images", samples(name)).code == 0
    table = evalkit("compare", tmp_path / "out", "--format", "csv")
    assert table.code == 0
    cells = [cell for row in csv.reader(io.StringIO(table.out)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
    (path,) = (tmp_path / "out").glob("*.json")
    assert "<script" not in path.read_text(encoding="utf-8") + table.out
    identifier = RunRecord.read(path).model.id
    assert not set(identifier) & set("<>=()/")
    observed(f"exit 0: {name} is called {identifier}; no cell is a formula, no tag is open")


@pytest.mark.fault("token")
def test_a_token_is_in_no_file(tmp_path, real, score, monkeypatch, observed):
    """Not even where a model's own error says it, or a flag holds it."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    out = tmp_path / "out"
    flags = ["--reference", str(real), "--out", str(out), "--log", f"json:{out / 'log.jsonl'}"]
    monkeypatch.setattr(sys, "argv", ["evalkit", "score", "--token", SECRET, f"--x=https://u:{SECRET}@host"])
    assert score(*flags).code == 0

    def generate(*_arguments: object, **_flags: object) -> None:
        raise RuntimeError(f"401 for token {os.environ['HF_TOKEN']}")

    monkeypatch.setattr(GaussianTiles, "generate", generate)
    assert score(*flags, "--seed", "1").code == 6
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
    written = len([path for path in files if out in path.parents])
    observed(f"in none of the files of two runs: {'' if written else 'no '}records, states, progress, log")


@pytest.mark.fault("stdout-closed")
def test_a_reader_that_leaves_before_the_table(tmp_path, real, observed):
    command = [
        sys.executable, "-m", "evalkit.cli", "score", "--model", TOY, "--protocol", "pixels",
        "--metrics", "fd", "--num-samples", "64", "--reference", str(real), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Traceback" not in told
    assert process.returncode == 0
    (path,) = (tmp_path / "out").glob("*.json")
    assert RunRecord.read(path).status == "complete"
    observed("exit 0: the record is written, nothing is said")
