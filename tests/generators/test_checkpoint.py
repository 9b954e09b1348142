"""Checkpoints are read without running code, and fit exactly or not at all."""

from __future__ import annotations

import collections
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, UnsafeCheckpointError, UsageError
from evalkit.generators.checkpoint import load_weights, read_checkpoint, save_checkpoint


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_own_format_round_trip(tmp_path, network):
    path = tmp_path / "x.safetensors"
    save_checkpoint(
        path, network.state_dict(), architecture="vae", config={"width": 4}, training={"steps": 7}
    )
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.architecture) == ("evalkit", "vae")
    assert checkpoint.config == {"width": 4}
    assert checkpoint.training == {"steps": 7}
    assert checkpoint.sha256 == file_sha256(path)
    for name, tensor in network.state_dict().items():
        stored = checkpoint.tensors[name]
        assert torch.equal(stored.float(), tensor.half().float() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_torch_file(tmp_path, network, legacy):
    path = tmp_path / "x.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "torch"
    assert checkpoint.part == ""
    assert set(checkpoint.tensors) == set(network.state_dict())


def test_average_is_preferred_and_named(tmp_path, network):
    averaged = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    path = tmp_path / "x.pt"
    torch.save({"model": network.state_dict(), "ema": averaged, "step": 3}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.part == "ema"
    assert torch.equal(checkpoint.tensors["0.bias"], averaged["0.bias"])


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.fault("checkpoint-runs-code")
@pytest.mark.parametrize("forced", [False, True])
def test_pickle_that_runs_code_is_refused_and_named(tmp_path, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "touched"
    path = tmp_path / "x.pt"
    torch.save({"a": _Attack(target)}, path)
    with pytest.raises(UnsafeCheckpointError, match="system") as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == 6
    assert not target.exists()


@pytest.mark.fault("checkpoint-keys")
def test_missing_unexpected_and_misshapen_are_all_listed(tmp_path, network):
    state = dict(network.state_dict())
    state["0.weight"] = torch.zeros(9, 9)
    state["extra"] = state.pop("0.bias")
    path = tmp_path / "x.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, read_checkpoint(path), name="toy")
    message = caught.value.message
    assert "missing 0.bias" in message
    assert "unexpected extra" in message
    assert "0.weight has shape [9, 9], expected [4, 3]" in message


@pytest.mark.fault("checkpoint-keys")
def test_at_most_ten_problems_are_listed(tmp_path):
    network = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    path = tmp_path / "x.pt"
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="and 7 more"):
        load_weights(network, read_checkpoint(path), name="toy")


@pytest.mark.fault("checkpoint-not-finite")
def test_weights_that_are_not_finite_are_named(tmp_path, network):
    state = dict(network.state_dict())
    state["1.weight"] = torch.tensor([1.0, float("nan"), 1.0, 1.0])
    path = tmp_path / "x.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"not finite: tensor 1\.weight"):
        load_weights(network, read_checkpoint(path), name="toy")


@pytest.mark.fault("checkpoint-odd-tensors")
@pytest.mark.parametrize(
    "content",
    [
        collections.OrderedDict(a=torch.zeros(2).to_sparse()),
        {"a": torch.zeros(2, device="meta")},
        {"a": np.float64(3.0)},
        [torch.zeros(2)],
        {1: torch.zeros(2)},
        {"state": {"deep": {"a": torch.zeros(2)}}},
    ],
    ids=["sparse", "meta", "numpy", "list", "integer keys", "nested"],
)
def test_anything_but_named_dense_tensors_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_damaged_files(tmp_path, network):
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.arange(1000.0)}, whole)
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    damaged = {
        "truncated.safetensors": whole.read_bytes()[:-100],
        "header.safetensors": (2**62).to_bytes(8, "little") + whole.read_bytes()[8:],
        "truncated.pt": (tmp_path / "whole.pt").read_bytes()[:300],
        "empty.pt": b"",
        "text.pt": b"hello, this is not a checkpoint",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / name)


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pt")
