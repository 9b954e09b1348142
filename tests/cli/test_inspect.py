"""``evalkit inspect`` tells what a file is, runs nothing in it, and leaves with 0, 2 or 6."""

from __future__ import annotations

import json
import os

import pytest
import torch

from evalkit.cli.main import run
from evalkit.generators import GENERATOR_FACTS
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts
from evalkit.generators.facts import LAYOUTS
from tests.generators.persistent_files import Network, write

LAYOUT = LayoutFacts(
    "spots-1",
    "somebody's code",
    fingerprint=("spots.weight", "spots.bias"),
    averaged=("average",),
    raw=("plain",),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(LAYOUTS, LAYOUT.name, LAYOUT)
    model = GeneratorFacts(
        name="spots",
        family="gan",
        title="",
        factory=f"{__name__}:build",
        samplers=(FORWARD,),
        layouts=(LAYOUT.name,),
        presets={"small": {"shift": 0.25}, "useless": {}},
    )
    monkeypatch.setitem(GENERATOR_FACTS, "spots", model)


def build(checkpoint, options):
    """Ask for what the tensors do not reveal, and refuse odd sizes."""
    from dataclasses import make_dataclass

    from evalkit.errors import CheckpointError
    from evalkit.generators.configuration import configure

    configure(make_dataclass("Config", [("shift", float)]), checkpoint)
    if checkpoint.tensors["spots.weight"].shape[0] % 2:
        raise CheckpointError("sizes are even")


@pytest.fixture
def file(tmp_path):
    def made(size=2, **more):
        state = {"spots.weight": torch.zeros(size, 3), "spots.bias": torch.zeros(3).half(), **more}
        torch.save({"plain": state, "average": state, "step": 4}, tmp_path / "x.pt")
        return tmp_path / "x.pt"

    return made


def _inspect(path, capsys, *flags) -> tuple[int, dict]:
    code = run(["inspect", str(path), "--format", "json", *flags])
    return code, json.loads(capsys.readouterr().out)


def test_what_is_missing_and_who_supplies_it(file, capsys):
    code, report = _inspect(file(), capsys)
    assert code == 0
    assert (report["layout"], report["model"], report["container"]) == ("spots-1", "spots", "torch file")
    assert (report["part"], report["missing"], report["presets"]) == ("average", ["shift"], ["small"])
    assert (report["tensors"], report["parameters"]) == (2, 9)
    assert report["dtypes"] == {"float16": 1, "float32": 1}
    assert [(part["name"], part["used"]) for part in report["parts"]] == [("plain", False), ("average", True)]
    assert report["holds"] == {"step": "int"}
    assert len(report["sha256"]) == 64


def test_preset_and_sidecar_fill_in(file, capsys):
    path = file()
    code, report = _inspect(path, capsys, "--preset", "small", "--weights", "raw")
    assert (code, report["missing"], report["problem"]) == (0, [], None)
    assert (report["preset"], report["part"]) == ("small", "plain")
    path.with_name("x.pt.json").write_text('{"shift": 1}')
    code, report = _inspect(path, capsys)
    assert (code, report["missing"], report["sidecar"]) == (0, [], str(path) + ".json")


def test_table(file, capsys):
    assert run(["inspect", str(file())]) == 0
    out = capsys.readouterr().out
    assert "spots-1 (somebody's code)" in out
    assert "missing    shift" in out
    assert 'add --preset small, or write {"shift": …} into x.pt.json' in out
    assert "<- used" in out


def test_weights_that_do_not_fit_or_are_not_finite(file, capsys):
    code, report = _inspect(file(3), capsys, "--preset", "small")
    assert (code, report["problem"]) == (6, "sizes are even")
    code, report = _inspect(file(odd=torch.tensor([float("nan")])), capsys, "--preset", "small")
    assert (code, report["not_finite"], report["problem"]) == (6, ["odd"], "the weights are not finite")


def test_bundled_checkpoint(capsys):
    code, report = _inspect(GENERATOR_FACTS["vae"].checkpoint, capsys)
    assert (code, report["model"], report["layout"]) == (0, "vae", "evalkit.checkpoint/1")
    assert report["problem"] is None
    assert "header" in report["container"]


def test_bare_state_dict_of_a_bundled_model(tmp_path, capsys):
    torch.save(dict(read_checkpoint(GENERATOR_FACTS["vae"].checkpoint).tensors), tmp_path / "x.pt")
    assert run(["inspect", str(tmp_path / "x.pt")]) == 0
    assert "layout     state dict of evalkit's own vae" in capsys.readouterr().out


def test_unknown_tensors_have_a_nearest_layout(tmp_path, capsys):
    torch.save({"spots.weight": torch.zeros(2, 3)}, tmp_path / "x.pt")
    code, report = _inspect(tmp_path / "x.pt", capsys)
    assert code == 6
    assert report["nearest"] == ["spots-1 (50% of its tell-tale names, without spots.bias)"]
    assert run(["inspect", str(tmp_path / "x.pt")]) == 6
    assert "nearest    spots-1" in capsys.readouterr().out


def test_training_file_without_known_parts(tmp_path, capsys):
    torch.save({"first": {"a": torch.zeros(1)}, "second": {"b": torch.zeros(1)}}, tmp_path / "x.pt")
    code, report = _inspect(tmp_path / "x.pt", capsys)
    assert code == 6
    assert "several networks" in report["problem"]
    assert [part["name"] for part in report["parts"]] == ["first", "second"]


def test_pickle_of_nvidia(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", {"G": None, "G_ema": Network(2, sigma_max=float("inf"))})
    code, report = _inspect(path, capsys)
    assert code == 6
    assert (report["class_name"], report["config"]) == ("Generator", {"width": 2, "sigma_max": "inf"})
    assert report["parts"][0]["class_name"] == "Generator"


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def test_code_is_named_and_never_run(tmp_path, capsys):
    torch.save({"a": _Attack(tmp_path / "touched")}, tmp_path / "x.pt")
    assert run(["inspect", str(tmp_path / "x.pt")]) == 6
    assert "system" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


def test_names_cannot_write_to_the_terminal(tmp_path, capsys):
    torch.save({"a\x1b[2Jb": {"w": torch.zeros(1)}, "n\nmodel      cgan": 3}, tmp_path / "x.pt")
    run(["inspect", str(tmp_path / "x.pt")])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\nmodel      cgan" not in out


def test_what_is_not_there(tmp_path, file, capsys):
    assert run(["inspect", str(tmp_path / "absent.pt")]) == 2
    assert run(["inspect", str(file()), "--preset", "smal"]) == 2
    assert "small" in capsys.readouterr().err
    assert run(["inspect"]) == 2
    (tmp_path / "empty").write_bytes(b"")
    assert run(["inspect", str(tmp_path / "empty")]) == 6


def test_sample_takes_preset_and_weights(file, tmp_path, capsys):
    out = str(tmp_path / "x.npz")
    sample = ["sample", "--model", "spots", "--ckpt", str(file()), "--out", out, "-n", "1"]
    assert run([*sample, "--preset", "smal"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err
    assert run(sample) == 6
    assert "do not reveal: shift" in capsys.readouterr().err
    assert run([*sample, "--weights", "best"]) == 2


def test_weights_of_score_are_files_or_a_choice(capsys):
    from evalkit.cli.options import named_files_or_choice

    files, chosen = named_files_or_choice(None, None, ("raw", "a=b.pt"))
    assert (set(files), chosen) == ({"a"}, "raw")
    assert named_files_or_choice(None, None, ()) == ({}, "ema")
    for wrong in (["raw", "ema"], ["best"]):
        flags = [part for value in wrong for part in ("--weights", value)]
        assert run(["score", "--model", "spots", *flags]) == 2
    assert run(["score", "--model", "vae", "--model", "ddpm", "--preset", "small"]) == 2
    assert "one --model" in capsys.readouterr().err
