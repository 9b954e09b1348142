"""Checkpoints that want to do something: what the command line answers, and that nothing was done."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from evalkit.generators.facts import GENERATOR_FACTS
from evalkit.generators.torch_files import load_torch
from tests.generators import persistent_files


class _Touches:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


class _Opens(_Touches):
    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.fault("checkpoint-runs-code")
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("kind", [_Touches, _Opens])
@pytest.mark.parametrize("file", ["new.pt", "old.pt", "plain.pkl", "nvidia.pkl"])
def test_a_checkpoint_that_acts_is_refused_and_named(
    tmp_path, monkeypatch, score, observed, file, kind, forced
):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target, path = tmp_path / "target", tmp_path / file
    target.write_text("precious")
    content = {"state_dict": {"weight": torch.ones(2)}, "extra": kind(target)}
    if path.suffix == ".pt":
        torch.save(content, path, _use_new_zipfile_serialization=file == "new.pt")
    elif file == "plain.pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        persistent_files.write(path, {"G_ema": persistent_files.Network(), "extra": kind(target)})
    ended = score("--model", "auto", "--ckpt", path)
    assert ended.code == 6
    asked = "system" if kind is _Touches else "open"
    assert asked in ended.err
    assert "could run code" in ended.err
    assert target.read_text() == "precious"
    assert not list((tmp_path / "out").glob("*.json"))
    observed(ended.told.replace(str(path), file))


@pytest.mark.fault("nvidia-pickle")
def test_the_source_inside_a_pickle_of_nvidia_never_runs(tmp_path, evalkit, observed):
    target = tmp_path / "touched"
    path = persistent_files.write(tmp_path / "network.pkl", {"G_ema": _acting(target)})
    ended = evalkit("inspect", path)
    assert ended.code == 6, "a network that no model knows"
    assert "6 tensors" in ended.out
    assert "Generator" in ended.out
    assert not target.exists()
    observed("`evalkit inspect` lists 6 tensors of the class Generator; the source in the file did not run")


def _acting(target: Path) -> persistent_files.Network:
    class Acting(persistent_files.Network):
        source = persistent_files.SOURCE.format(target=target)

    return Acting(3)


@pytest.mark.fault("checkpoint-is-a-program")
def test_a_program_is_refused_on_the_command_line(tmp_path, score, observed):
    import warnings

    path = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    ended = score("--model", "auto", "--ckpt", path)
    assert ended.code == 6
    assert "program" in ended.err
    observed(ended.told)


def _changed(tmp_path, score, change) -> str:
    """Change tensors of the bundled cgan; return what a score of it tells with code 6."""
    tensors = load_file(GENERATOR_FACTS["cgan"].checkpoint)
    change(tensors)
    torch.save(tensors, tmp_path / "x.pt")
    ended = score("--model", "cgan", "--ckpt", tmp_path / "x.pt")
    assert ended.code == 6
    return ended.told


@pytest.mark.fault("checkpoint-not-finite")
def test_a_weight_that_is_no_number_leaves_with_6(tmp_path, score, observed):
    told = _changed(tmp_path, score, lambda tensors: tensors["project.bias"].fill_(float("nan")))
    assert "project.bias" in told
    observed(told)


@pytest.mark.fault("checkpoint-keys")
def test_other_names_leave_with_6(tmp_path, score, observed):
    def rename(tensors):
        tensors["other"] = tensors.pop("project.bias")

    told = _changed(tmp_path, score, rename)
    assert "missing project.bias; unexpected other" in told
    observed(told)


@pytest.mark.fault("checkpoint-odd-tensors")
def test_a_sparse_tensor_leaves_with_6(tmp_path, score, observed):
    told = _changed(tmp_path, score, lambda tensors: tensors.update(sparse=torch.eye(3).to_sparse()))
    assert "tensor sparse" in told
    observed(told)


@pytest.mark.fault("safetensors-damaged")
@pytest.mark.parametrize("fault", ["cut", "header", "overlap"])
def test_a_damaged_safetensors_file_leaves_with_6(tmp_path, score, observed, fault):
    import json

    start, end = (0, 8), ((4, 12) if fault == "overlap" else (8, 16))
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": start}}
    header["b"] = {"dtype": "F32", "shape": [2], "data_offsets": end}
    text = json.dumps(header).encode()
    length = 2**62 if fault == "header" else len(text)
    content = length.to_bytes(8, "little") + text + np.ones(4, np.float32).tobytes()
    (tmp_path / "x.safetensors").write_bytes(content[:-5] if fault == "cut" else content)
    ended = score("--model", "auto", "--ckpt", tmp_path / "x.safetensors")
    assert ended.code == 6
    assert "not a whole safetensors file" in ended.err
    observed(ended.told)


def test_the_plain_part_of_these_files_is_read(tmp_path):
    """Or the refusals above would say nothing."""
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "good.pt")
    content = load_torch(tmp_path / "good.pt", "good.pt")
    assert isinstance(content, dict)
    assert torch.equal(content["state_dict"]["weight"], torch.ones(2))
