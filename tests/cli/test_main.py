"""Every screen and exit code: what a user types, sees, and what a script can rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jsonschema
import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.record import schema
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

TOY = "evalkit.generators.toy:make"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(600))).numpy(), labels=None)
    return path


@pytest.fixture
def score(reference, tmp_path):
    def call(*arguments: str) -> int:
        fixed = ["score", "--protocol", "pixels", "--reference", str(reference), "--out", str(tmp_path)]
        return run([*fixed, *arguments])

    return call


def test_table_is_on_stdout_and_notes_on_stderr(score, capsys):
    assert score("--model", TOY) == 0
    out, err = capsys.readouterr()
    assert "fd:pixels ↓" in out
    assert "± jackknife standard error" in out
    assert "Fingerprint" in out
    assert "record: " in err
    assert "record: " not in out


def test_json_is_the_record_and_nothing_else(score, capsys):
    assert score("--model", TOY, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema()).validate(data)
    assert data["status"] == "complete"
    assert data["model"]["id"] == TOY


@pytest.mark.parametrize("form", ["csv", "md"])
def test_other_formats(score, capsys, form):
    assert score("--model", TOY, "--format", form) == 0
    out = capsys.readouterr().out
    assert out.startswith("model,metric," if form == "csv" else "**")
    assert "fd:pixels" in out


def test_several_models_make_one_comparison(score, capsys):
    assert score("--model", TOY, "--model", "tests_other_model:make") == 2
    assert "cannot import" in capsys.readouterr().err
    assert score("--model", TOY, "--model", TOY) == 0
    out = capsys.readouterr().out
    assert "2 models" in out
    assert "within two" in out  # the same model twice is a tie, and the table says so


def test_compare_reads_what_score_wrote(score, capsys, tmp_path):
    assert score("--model", TOY, "--name", "one") == 0
    assert score("--model", TOY, "--name", "two", "--seed", "3") == 0
    capsys.readouterr()
    assert run(["compare", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "one" in out
    assert "two" in out


def test_different_protocols_do_not_compare(score, capsys, tmp_path):
    assert score("--model", TOY, "--name", "one") == 0
    assert score("--model", TOY, "--name", "two", "--num-samples", "128") == 0
    capsys.readouterr()
    assert run(["compare", *map(str, sorted(tmp_path.glob("*.json")))]) == 3
    err = capsys.readouterr().err
    assert "num_images: 128 against 256" in err or "num_images: 256 against 128" in err
    assert "--num-samples" in err
    assert run(["compare", str(tmp_path)]) == 0  # of a folder, one protocol is shown and the rest is told
    assert "another protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scroe"], 2, "did you mean 'score'?"),
        (["score", "--modle", "x"], 2, "--model"),
        (["score"], 2, "exactly one subject"),
        (["score", "--model", "dppm"], 2, "did you mean 'ddpm'?"),
        (["score", "--model", "ddpm", "--ckpt", "absent.pt"], 2, "no checkpoint at absent.pt"),
        (["score", "--model", "ddpm", "--ckpt", "a", "--ckpt", "b"], 2, "2 --ckpt for 1 --model"),
        (["score", "--images", "absent", "--reference", "absent"], 2, "absent"),
        (["score", "--model", TOY, "--batch-size", "0"], 2, "at least 1"),
        (["score", "--model", TOY, "--weights", "x"], 2, "NAME=FILE"),
        (["score", "--model", TOY, "--device", "tpu"], 2, "unknown device"),
        (["score", "--model", TOY, "--format", "xml"], 2, "xml"),
        (["compare", "absent"], 5, "absent"),
        (["compare"], 5, "no complete record"),
        (["list", "modles"], 2, "did you mean 'models'?"),
        (["sample", "--model", TOY, "--out", "x.gif"], 2, "unknown kind"),
        (["train", "dpm", "--data", "x", "--out", "y"], 2, "unknown recipe"),
        (["reference", "show", "absent"], 2, "absent"),
        (["reference", "build", "absent"], 2, "absent"),
    ],
)
def test_what_goes_wrong_is_told_with_the_right_code(arguments, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    assert message in capsys.readouterr().err


def test_an_unexpected_error_is_70_and_never_1(score, monkeypatch, capsys):
    monkeypatch.setattr("evalkit.measurement.compute_all", lambda *_args, **_flags: 1 / 0)
    assert score("--model", TOY) == 70
    assert "internal error" in capsys.readouterr().err


@pytest.mark.fault("no-network")
def test_a_missing_download_is_75_with_the_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    arguments = ["score", "--model", TOY, "--protocol", "standard", "--reference", "cifar10"]
    assert run([*arguments, "--out", str(tmp_path)]) == 75
    err = capsys.readouterr().err
    assert "https://" in err
    assert "6726825d" in err


@pytest.mark.fault("token")
def test_secrets_are_in_no_file(score, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    monkeypatch.setattr(sys, "argv", ["evalkit", "score", "--name", "hf_verysecretvalue"])
    assert score("--model", TOY) == 0
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"verysecret" not in path.read_bytes()


@pytest.mark.parametrize(
    "kind", ["models", "metrics", "measures", "extractors", "references", "protocols", "samplers"]
)
def test_lists(kind, capsys):
    assert run(["list", kind, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["name"] for row in rows)
    if kind == "models":
        assert {"ddpm", "vae", "cgan", "stylegan"} <= {row["name"] for row in rows}
        assert all({"family", "bundled"} <= set(row) for row in rows)
    if kind == "extractors":
        assert {row["name"] for row in rows if row["at_hand"]} >= {"efficientnet-lite0", "pixels"}
    assert run(["list", kind]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


def test_doctor(capsys):
    assert run(["doctor", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device of --device auto"]
    assert found["torch"]
    backend = found["InceptionV3 and EfficientNet run by"].partition(" ")[0]
    assert backend in {"torch", "onnxruntime", "compiled"}


@pytest.mark.parametrize("out", ["folder", "samples.npz", "grid.png"])
def test_samples_are_those_that_score_sees(tmp_path, out):
    assert run(["sample", "--model", TOY, "-n", "10", "--batch-size", "4", "--out", str(tmp_path / out)]) == 0
    expected = GaussianTiles().generate(image_seeds(0, np.arange(10))).numpy()
    from evalkit.sources import open_source

    if out == "grid.png":
        assert (tmp_path / out).stat().st_size > 0
        return
    batch = open_source(tmp_path / out).read(np.arange(10))
    assert np.array_equal(np.stack([image.numpy() for image in batch.images]), expected)


@pytest.mark.fault("stdout-closed")
def test_a_reader_that_leaves_early_sees_no_traceback():
    command = f"{sys.executable} -m evalkit.cli list samplers | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


@pytest.mark.fault("locale-c")
def test_plain_locale_and_no_color():
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "evalkit.cli", "list", "models"],
        capture_output=True,
        env=environment,
        check=True,
    )
    assert b"\x1b[" not in done.stdout


def test_a_path_cannot_write_to_the_terminal(capsys):
    assert run(["compare", "no\x1b[31m\x07such\nfolder"]) == 5
    told = capsys.readouterr().err
    assert "no?[31m?such\nfolder" in told
    assert "\x1b" not in told
