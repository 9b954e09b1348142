"""NVIDIA's pickles give tensors, names and constructor arguments, and never run what they embed."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import time

import numpy as np
import pytest
import torch
from torch import nn

from evalkit.errors import CheckpointError, UnsafeCheckpointError
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.generators.containers import read_contents
from evalkit.generators.persistent_pickle import read_persistent_pickle
from tests.generators.persistent_files import EasyDict, Layer, Network, dumps, write

PROTOCOLS = [2, 3, 4, 5]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(3, c_dim=10, sigma_max=float("inf"), gain=np.float32(0.5), filter=[1, 3, 3, 1])


@pytest.mark.fault("nvidia-pickle")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_names_and_arguments_are_those_of_the_module(tmp_path, network, protocol):
    content = {"G": None, "G_ema": network, "training_set_kwargs": EasyDict(path="x.zip")}
    contents = read_contents(write(tmp_path / "x.pkl", content, protocol))
    part = contents.parts["G_ema"]
    expected = network.state_dict()
    assert list(part.tensors) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(part.tensors[name], tensor), name
    assert "out.scratch" not in part.tensors
    assert part.class_name == "Generator"
    assert part.config == {
        "width": 3,
        "c_dim": 10,
        "sigma_max": float("inf"),
        "gain": 0.5,
        "filter": [1, 3, 3, 1],
    }
    assert contents.held == {"G": "NoneType", "G_ema": "Generator", "training_set_kwargs": "dict of 1"}


def test_positional_arguments_are_kept(tmp_path):
    part = read_contents(write(tmp_path / "x.pkl", {"ema": Layer(2)})).parts["ema"]
    assert part.config == {"activation": "linear", "_init_args": [2]}


def test_averaged_part_is_used_or_the_raw_one(tmp_path, network):
    path = write(tmp_path / "x.pkl", {"G": Network(4), "D": Network(2), "G_ema": network})
    assert (read_checkpoint(path).part, read_checkpoint(path, weights="raw").part) == ("G_ema", "G")
    assert read_checkpoint(path).format == "pickle"
    assert read_checkpoint(path, weights="raw").config == {"width": 4}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_of_old_and_new_numpy(tmp_path, protocol):
    content = {"scalar": np.float64(2.5), "whole": np.int32(-3), "array": np.arange(6.0).reshape(2, 3).T}
    data = dumps(content, protocol)
    # Only in protocol 2 and 3 are the lengths of names not written before them.
    spellings = [data, data.replace(b"numpy._core", b"numpy.core")] if protocol < 4 else [data]
    if protocol < 4:
        assert spellings[0] != spellings[1]
    for spelling in spellings:
        (tmp_path / "x.pkl").write_bytes(spelling)
        found = read_persistent_pickle(tmp_path / "x.pkl")
        assert (found["scalar"], found["whole"]) == (2.5, -3)
        assert np.array_equal(found["array"].array, content["array"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers(tmp_path, protocol):
    content = {"set": {1, 2}, "bytes": b"\x00\xff", "list": [(), (1, 2.5, None, True)], "large": 2**70}
    content["frozen"] = 0 if protocol < 4 else frozenset({3})  # older ones call builtins.frozenset
    assert read_persistent_pickle(write(tmp_path / "x.pkl", content, protocol)) == content


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def _planted(position: str, attack: object) -> object:
    layer = Layer(2)
    if position == "argument":
        layer._init_kwargs["x"] = attack
    elif position == "positional":
        layer._init_args = (attack,)
    elif position == "module":
        layer.__dict__["_modules"]["x"] = attack
    elif position == "buffer":
        layer.__dict__["_buffers"]["x"] = attack
    elif position == "hook":
        layer._forward_hooks[0] = attack
    elif position == "attribute":
        layer.anything = attack
    elif position == "beside":
        return {"G_ema": layer, "x": attack}
    elif position == "in a list":
        return {"G_ema": layer, "x": [[attack]]}
    elif position == "the whole":
        return attack
    elif position == "in an array":
        return {"G_ema": layer, "x": np.array([attack], dtype=object)}
    return {"G_ema": layer}


POSITIONS = ["argument", "positional", "module", "buffer", "hook", "attribute", "beside", "in a list"]
POSITIONS += ["the whole", "in an array"]


@pytest.mark.fault("checkpoint-runs-code")
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("position", POSITIONS)
def test_planted_call_is_refused_and_never_runs(tmp_path, monkeypatch, position, protocol, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "touched"
    path = write(tmp_path / "x.pkl", _planted(position, _Attack(target)), protocol)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == 6
    if position != "in an array":  # there the dtype is refused first
        assert isinstance(caught.value, UnsafeCheckpointError)
        assert "system" in caught.value.message
    assert not target.exists()


@pytest.mark.fault("nvidia-pickle")
def test_embedded_source_never_runs(tmp_path):
    layer = Layer(2)
    layer.source = f"import pathlib\npathlib.Path({str(tmp_path / 'touched')!r}).touch()\n"
    read_checkpoint(write(tmp_path / "x.pkl", {"G_ema": layer}))
    assert not (tmp_path / "touched").exists()


def test_call_inside_a_storage_is_refused(tmp_path):
    target = tmp_path / "touched"
    inner = io.BytesIO()
    torch.save({"a": _Attack(target)}, inner, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self):
            return (torch.storage._load_from_bytes, (inner.getvalue(),))

    with pytest.raises(UnsafeCheckpointError, match="system"):
        read_checkpoint(write(tmp_path / "x.pkl", {"a": Storage()}))
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "__builtin__ set.update",
        "torch.hub load",
        "dnnlib.util open_url",
        "os system",
        "numpy.core.multiarray fromfile",
        "torch_utils.persistence import_hook",
        "copyreg _reconstructor",
    ],
)
@pytest.mark.parametrize("form", ["GLOBAL", "STACK_GLOBAL"])
def test_any_other_name_is_refused(tmp_path, name, form):
    module, attribute = name.split()
    named = f"c{module}\n{attribute}\n".encode()
    if form == "STACK_GLOBAL":
        named = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, attribute)) + b"\x93"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + named + b".")
    with pytest.raises(UnsafeCheckpointError, match=attribute.partition(".")[0]):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "operations",
    {
        "persistent id": b"\x80\x02K\x01Q.",
        "extension": b"\x80\x02\x82\x01.",
        "instance": b"\x80\x02(ios\nsystem\n.",
        "call of a text": b"\x80\x02X\x04\x00\x00\x00evalK\x01\x85R.",
        "state of a list": b"\x80\x02]}b.",
        "object of a function": b"\x80\x02c_codecs\nencode\n)\x81.",
    }.items(),
    ids=lambda item: item[0] if isinstance(item, tuple) else None,
)
def test_operations_that_act_are_refused(tmp_path, operations):
    (tmp_path / "x.pkl").write_bytes(operations[1])
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "x.pkl")


def _deep_key() -> bytes:
    return b"\x80\x02})" + b"\x85" * 200_000 + b"Ns."


def _copied_often(name: str, value: bytes) -> bytes:
    items = b"".join(b"X\x04\x00\x00\x00" + f"{i:4}".encode() + value for i in range(3000))
    return b"\x80\x02](]q\x03(" + items + f"ec{name}\nq\x01".encode() + b"h\x01h\x03\x85R" * 3000 + b"e."


def _encoded_often() -> bytes:
    text = b"x" * 2**16
    call = b"h\x01h\x02\x85R"
    return (
        b"\x80\x02(c_codecs\nencode\nq\x01X"
        + len(text).to_bytes(4, "little")
        + text
        + b"q\x02"
        + call * 5000
        + b"t."
    )


HOSTILE = {
    "memo at a huge index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "text that promises 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "bytes that promise 2^62": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
    "deep key": _deep_key(),
    "encoded often": _encoded_often(),
    "copied often": _copied_often("collections\nOrderedDict", b"N\x86"),
    "set often": _copied_often("__builtin__\nset", b""),
    "type of shared tuples": b"\x80\x02cnumpy\ndtype\n)" + b"q\x01h\x01\x86" * 300 + b"\x85R.",
    "too many operations": b"\x80\x02" + b"N0" * 1_000_001 + b"N.",
    "nothing left": b"\x80\x02.",
    "mark below": b"\x80\x02K\x01(0.",
    "memo of nothing": b"\x80\x02h\x07.",
    "cut short": b"\x80\x04\x95",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_end_quickly(tmp_path, name):
    (tmp_path / "x.pkl").write_bytes(HOSTILE[name])
    started = time.monotonic()
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "x.pkl")
    assert time.monotonic() - started < 20


def _module(entries: bytes) -> bytes:
    """A persistent object whose meta is ``{"type": "class", "class_name": "G", "state": <entries>}``."""

    def text(word):
        return b"X" + len(word).to_bytes(4, "little") + word

    meta = (
        b"}(" + text(b"type") + text(b"class") + text(b"class_name") + text(b"G") + text(b"state") + entries
    )
    return b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"u\x85R."


def test_module_within_itself_is_refused(tmp_path):
    def text(word):
        return b"X" + len(word).to_bytes(4, "little") + word

    # The dict of sub-modules is remembered, filled with a ModuleDict whose state holds that very dict.
    modules = b"}q\x01" + text(b"x") + b"ctorch.nn.modules.container\nModuleDict\n)\x81}" + text(b"_modules")
    entries = b"}" + text(b"_modules") + modules + b"h\x01sbss"
    (tmp_path / "x.pkl").write_bytes(_module(entries))
    with pytest.raises(CheckpointError, match="without end"):
        read_checkpoint(tmp_path / "x.pkl")


def test_tensor_beyond_its_storage_is_refused(tmp_path):
    storage = torch.zeros(4)._typed_storage()

    class Beyond:
        def __init__(self, *shape):
            self.shape = shape

        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (storage, *self.shape, False, {}))

    for shape in [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (10**6, 10**6), (0, 0)),
        (-1, (1,), (1,)),
        (0, (2**61, 8), (0, 0)),
    ]:
        with pytest.raises(CheckpointError):
            read_checkpoint(write(tmp_path / "x.pkl", {"a": Beyond(*shape)}))
    assert read_checkpoint(write(tmp_path / "x.pkl", {"a": Beyond(1, (3,), (1,))})).tensors["a"].shape == (3,)


def test_arguments_that_repeat_an_array_without_end(tmp_path):
    layer = Layer(2)
    layer._init_kwargs["x"] = [np.zeros(2**12)] * 60
    with pytest.raises(CheckpointError, match="no end"):
        read_checkpoint(write(tmp_path / "x.pkl", {"G_ema": layer}))


def test_every_prefix_of_a_pickle_is_refused_cleanly(tmp_path):
    data = dumps({"G_ema": Layer(1)}, 4)
    positions = [position for _, _, position in pickletools.genops(data)]
    for position in positions[:: max(len(positions) // 60, 1)]:
        (tmp_path / "x.pkl").write_bytes(data[:position])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "x.pkl")


def test_pickle_of_a_plain_state_dict(tmp_path):
    state = nn.Linear(2, 3).state_dict()
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(dict(state), 4))
    found = read_checkpoint(tmp_path / "x.pkl")
    assert torch.equal(found.tensors["weight"], state["weight"])
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state, 4))  # an OrderedDict with its _metadata
    assert set(read_checkpoint(tmp_path / "x.pkl").tensors) == set(state)
