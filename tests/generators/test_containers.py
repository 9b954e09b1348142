"""Files are told apart by their first bytes; what is damaged or not plain tensors is refused, 6."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from safetensors.torch import save_file
from torch import nn

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, EvalkitError, UnsafeCheckpointError, UsageError
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.generators.containers import checkpoint_digest, read_contents
from tests.generators.persistent_files import Layer, dumps


@pytest.fixture
def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()


def _saved(content, *, legacy=False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _arrays(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_kinds_by_first_bytes_not_by_name(tmp_path, state):
    made = {
        "torch file": _saved(state),
        "torch file of the old kind": _saved(state, legacy=True),
        "pickle": dumps({"G_ema": Layer(2)}, 4),
        "safetensors": save_safetensors(dict(state)),
        "npz": _arrays(**{name: tensor.numpy() for name, tensor in state.items()}),
    }
    path = tmp_path / "x.anything"
    for container, data in made.items():
        path.write_bytes(data)
        contents = read_contents(path)
        assert contents.container == container
        assert contents.sha256 == file_sha256(path)
        if container != "pickle":
            tensors = read_checkpoint(path).tensors
            assert tensors.keys() == state.keys()
            assert all(torch.equal(tensors[name], state[name]) for name in state)


TRAINING_FILES = {
    "pytorch-ddpm": ("ema_model", "net_model"),
    "list of ermongroup": ("4", "0"),
    "rosinality": ("g_ema", "g"),
    "gan zoo": ("avgG", "netG"),
}


def _training_file(kind: str, state, averaged):
    optim = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    if kind == "pytorch-ddpm":
        beside = {"sched": {"last_epoch": 3}, "optim": optim, "step": 5, "x_T": torch.zeros(2, 3)}
        return {"net_model": state, "ema_model": averaged, **beside}
    if kind == "list of ermongroup":
        return [state, optim, 7, 1000, dict(averaged)]
    if kind == "rosinality":
        arguments = argparse.Namespace(size=256, path="x", channels=[1, 2])
        beside = {"g_optim": optim, "args": arguments, "ada_aug_p": 0.0, "fid": np.float64(3.2)}
        return {"g": state, "g_ema": averaged, **beside}
    return {"config": {"depth": 3}, "netG": state, "avgG": averaged, "tmp": None}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", TRAINING_FILES)
def test_parts_of_training_files(tmp_path, state, kind, legacy):
    averaged = collections.OrderedDict((name, tensor + 1) for name, tensor in state.items())
    path = tmp_path / "x.pt"
    path.write_bytes(_saved(_training_file(kind, state, averaged), legacy=legacy))
    used, raw = TRAINING_FILES[kind]
    assert set(read_contents(path).parts) == {used, raw}
    if kind == "list of ermongroup":  # positions tell nothing unless the layout is known
        with pytest.raises(CheckpointError, match="several networks"):
            read_checkpoint(path)
        return
    checkpoint = read_checkpoint(path)
    assert checkpoint.part == used
    assert torch.equal(checkpoint.tensors["0.bias"], averaged["0.bias"])
    assert read_checkpoint(path, weights="raw").part == raw
    allowed = {entry[1] for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)}
    assert not allowed.intersection({"argparse.Namespace", "numpy.dtype"})


@pytest.mark.parametrize("kind", ["dict", "object", "nothing"])
def test_description_in_files_of_the_gan_zoo(tmp_path, monkeypatch, state, kind):
    module = types.ModuleType("models.utils.config")
    module.BaseConfig = type("BaseConfig", (), {"__module__": module.__name__})
    for name in ("models", "models.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    fields = {"depthScale0": 512, "leakyReluLeak": 0.2, "device": {"not": "plain"}}
    config = {"dict": fields, "object": module.BaseConfig(), "nothing": None}[kind]
    if kind == "object":
        vars(config).update(fields)
    (tmp_path / "x.pt").write_bytes(_saved({"config": config, "netG": state, "avgG": state, "netD": state}))
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert checkpoint.part == "avgG"
    assert checkpoint.config == (None if kind == "nothing" else {"depthScale0": 512, "leakyReluLeak": 0.2})


def test_average_of_ema_pytorch(tmp_path, state):
    ema = {f"ema_model.{name}": tensor + 1 for name, tensor in state.items()}
    ema |= {f"online_model.{name}": tensor for name, tensor in state.items()}
    ema |= {"initted": torch.tensor(data=True), "step": torch.tensor(3)}
    path = tmp_path / "model-1.pt"
    path.write_bytes(
        _saved({"step": 3, "model": state, "opt": {}, "ema": ema, "scaler": None, "version": "2"})
    )
    assert set(read_contents(path).parts) == {"model", "ema", "ema.online_model"}
    checkpoint = read_checkpoint(path)
    assert (checkpoint.part, checkpoint.tensors.keys()) == ("ema", state.keys())
    assert torch.equal(checkpoint.tensors["0.bias"], state["0.bias"] + 1)
    assert read_checkpoint(path, weights="raw").part == "model"


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.fault("checkpoint-runs-code")
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file_that_runs_code(tmp_path, monkeypatch, legacy, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target, path = tmp_path / "touched", tmp_path / "x.pt"
    for content in ({"a": _Attack(target)}, argparse.Namespace(a=_Attack(target)), [_Attack(target)]):
        path.write_bytes(_saved(content, legacy=legacy))
        with pytest.raises(UnsafeCheckpointError, match="system"):
            read_checkpoint(path)
        assert not target.exists()


@pytest.mark.fault("checkpoint-is-a-program")
def test_programs_are_refused(tmp_path):
    script = tmp_path / "x.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their removal
        torch.jit.script(nn.Linear(2, 3)).save(script)
    exported = tmp_path / "x.pt2"
    with zipfile.ZipFile(exported, "w") as archive:  # as torch.export.save names its members
        for name in ("data/weights/weight_0", "models/model.json", "archive_format", "archive_version"):
            archive.writestr(f"x/{name}", "pt2")
    whole = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 3), whole)
    for path, word in ((script, "TorchScript"), (exported, "torch.export"), (whole, "Linear")):
        with pytest.raises(UnsafeCheckpointError, match=word) as caught:
            read_checkpoint(path)
        assert caught.value.exit_code == 6
        assert "state_dict" in caught.value.hint


@pytest.mark.fault("checkpoint-odd-tensors")
def test_tensors_that_are_not_plain_are_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their removal
        quantised = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
        quantised_file = _saved({"fine": torch.zeros(1), "odd.weight": quantised})
    odd = [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.complex64)]
    odd += [torch.zeros(1).expand(10**6, 10**6)]
    files = [quantised_file, *(_saved({"fine": torch.zeros(1), "odd.weight": tensor}) for tensor in odd)]
    for data in files:
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"odd\.weight|claim"):
            read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"a": np.array([1, "x"], dtype=object)},
        {1: torch.zeros(2)},
        {"a": torch.zeros(2), 1: torch.zeros(2)},
        {"a": torch.zeros(2), "epoch": 3},
        {"deep": {"deeper": {"a": torch.zeros(2)}}},
        {},
        [],
        None,
        "text",
    ],
    ids=str,
)
def test_other_contents_say_what_is_there(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(_saved(content))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert caught.value.exit_code == 6
    assert caught.value.hint


@pytest.mark.fault("checkpoint-odd-tensors")
def test_arrays_that_hold_objects(tmp_path):
    (tmp_path / "x.npz").write_bytes(_arrays(a=np.array([{}, 1], dtype=object)))
    with pytest.raises(CheckpointError, match="plain arrays"):
        read_checkpoint(tmp_path / "x.npz")


def _header(entries: dict, data: bytes = b"", *, claimed: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return (len(text) if claimed is None else claimed).to_bytes(8, "little") + text + data


def _entry(start: int, end: int, shape=(2,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


DAMAGED = {
    "header beyond the file": _header({"a": _entry(0, 8)}, b"\0" * 8, claimed=2**62),
    "header of 200 MB": _header({"a": _entry(0, 8)}, b"\0" * 8, claimed=200 * 2**20),
    "data cut short": _header({"a": _entry(0, 8)}, b"\0" * 4),
    "data left over": _header({"a": _entry(0, 8)}, b"\0" * 12),
    "overlapping": _header({"a": _entry(0, 8), "b": _entry(4, 12)}, b"\0" * 12),
    "end before start": _header({"a": _entry(8, 0)}, b"\0" * 8),
    "hole": _header({"a": _entry(0, 8), "b": _entry(12, 20)}, b"\0" * 20),
    "shape that does not fit": _header({"a": _entry(0, 8, (3,))}, b"\0" * 8),
    "shape that overflows": _header({"a": _entry(0, 8, (2**33, 2**33))}, b"\0" * 8),
    "unknown type": _header({"a": _entry(0, 8, dtype="Q7")}, b"\0" * 8),
    "not JSON": b"\x08\0\0\0\0\0\0\0{{{{{{{{",
    "no tensors": _header({}),
    "zip of nothing": b"PK\x05\x06" + b"\0" * 18,
    "zip cut short": _saved({"a": torch.zeros(100)})[:300],
    "old torch file cut short": _saved({"a": torch.zeros(100)}, legacy=True)[:-50],
    "empty": b"",
    "text": b"hello, this is no checkpoint",
    "pickle of protocol 0": b"(dp0\nS'a'\nI1\ns.",
    "html": b"<!DOCTYPE html><html>Sign in to download</html>",
}


@pytest.mark.fault("safetensors-damaged")
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(tmp_path, name):
    (tmp_path / "x").write_bytes(DAMAGED[name])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "x")
    assert caught.value.exit_code == 6


def test_zip_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * (2**26 + 2**20))
    with pytest.raises(CheckpointError, match="far more"):
        read_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "nested", [b"\x85", b"q\x01h\x01\x86", b"q\x01(h\x01h\x01t"], ids=["1", "memo", "marks"]
)
def test_key_that_would_overflow_the_stack(tmp_path, nested, legacy):
    content = b"\x80\x02})" + nested * 400_000 + b"Ns."
    if legacy:
        head = _saved({}, legacy=True)
        (tmp_path / "x").write_bytes(head[: head.index(b"}q") - 2] + content)
    else:
        with zipfile.ZipFile(tmp_path / "x", "w") as archive:
            archive.writestr("x/data.pkl", content)
            archive.writestr("x/version", "3")
    with pytest.raises(CheckpointError, match="nests tuples"):
        read_checkpoint(tmp_path / "x")


def test_tensor_of_many_axes_is_named(tmp_path):
    for header in (
        {},
        {"format": "evalkit.checkpoint/1", "architecture": "x", "config": "{}", "training": "{}"},
    ):
        save_file({"wide": torch.zeros((1,) * 30)}, tmp_path / "x.safetensors", metadata=header)
        with pytest.raises(CheckpointError, match="wide has 30 axes"):
            read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"\x89PNG", "--images"),
        (b"<!DOCTYPE", "web page"),
        (b"version https://git-lfs", "LFS"),
        (b"", "empty"),
    ],
)
def test_what_a_file_is_instead(tmp_path, start, hint):
    (tmp_path / "x").write_bytes(start)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "x")
    assert hint in caught.value.hint


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_checkpoint(tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match="no checkpoint") as caught:
        read_checkpoint(Path("hub:owner/name@0123"))
    assert "--model diffusers" in caught.value.hint


CONFIG = {"_class_name": "UNet2DModel", "sample_size": 32}


def _folder(path, state, *, below="", weights="diffusion_pytorch_model.safetensors"):
    (path / below).mkdir(parents=True, exist_ok=True)
    data = save_safetensors(dict(state)) if weights.endswith("safetensors") else _saved(state)
    (path / below / weights).write_bytes(data)
    (path / below / "config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.mark.parametrize("weights", ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"])
@pytest.mark.parametrize("below", ["", "unet"])
def test_folder_of_diffusers(tmp_path, state, below, weights):
    path = _folder(tmp_path / "model", state, below=below, weights=weights)
    scheduler = path / ("scheduler" if below else "")
    scheduler.mkdir(exist_ok=True)
    (scheduler / "scheduler_config.json").write_text('{"beta_schedule": "linear"}')
    if below:
        index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
        (path / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "X"]}))
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.class_name) == ("folder", "UNet2DModel")
    assert checkpoint.config == {**CONFIG, "scheduler": {"beta_schedule": "linear"}}
    assert checkpoint.tensors.keys() == state.keys()
    before = checkpoint.sha256
    (scheduler / "scheduler_config.json").write_text('{"beta_schedule": "cosine"}')
    assert read_checkpoint(path).sha256 != before


def test_folders_that_do_not_fit(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_checkpoint(tmp_path)
    path = _folder(tmp_path / "a", state)
    (path / "model_index.json").write_text('{"unet": ["d", "U"], "vae": ["d", "V"], "text": [null, null]}')
    with pytest.raises(CheckpointError, match=r"several networks \(vae"):
        read_checkpoint(path)
    path = _folder(tmp_path / "b", state)
    for text, word in (
        ("[]", "object"),
        ("{", "JSON"),
        ('{"a": 1}', "_class_name"),
        ('{"a": NaN}', "finite|NaN"),
        ('{"a": ' + "[" * 900 + "]" * 900 + "}", "nested"),
    ):
        (path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=word):
            read_checkpoint(path)
    path = _folder(tmp_path / "c", state)
    (path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds neither"):
        read_checkpoint(path)


def test_digest_of_a_folder_of_anything(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint at"):
        read_contents(tmp_path / "absent")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = checkpoint_digest(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert checkpoint_digest(tmp_path / "a") != first
    assert checkpoint_digest(tmp_path / "a" / "y") == file_sha256(tmp_path / "a" / "y")


_SEEDS = [
    _saved({"model": {"a": torch.arange(3.0)}, "step": 1}),
    _saved({"a": torch.arange(3.0)}, legacy=True),
    dumps({"G_ema": Layer(1), "x": np.float64(1.0)}, 4),
    dumps({"G_ema": Layer(1), "x": np.arange(3)}, 2),
    save_safetensors({"a": torch.arange(3.0)}),
    _arrays(a=np.arange(3.0)),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_bytes_only_our_errors_come_out(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if kind == "flip":
            content[position] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[position : position + data.draw(st.integers(1, 16))]
        else:
            content[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        if not content:
            return
    (tmp_path / "x").write_bytes(content)
    assert _exit_code(tmp_path / "x") in {0, 6}


def _exit_code(path) -> int:
    try:
        read_checkpoint(path)
    except EvalkitError as error:
        return error.exit_code
    return 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x08\0\0\0\0\0\0\0{"]),
    rest=st.binary(max_size=200),
)
def test_random_bytes_behind_known_beginnings(tmp_path, start, rest):
    (tmp_path / "x").write_bytes(start + rest)
    assert _exit_code(tmp_path / "x") in {0, 6}
