"""Attribute classifiers from a callable and from files of plain tensors."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evalkit.errors import CheckpointError, UnsafeCheckpointError, UsageError
from evalkit.extractors import build_extractor
from evalkit.generators.sampling import quantise
from evalkit.probes import load_attributes
from evalkit.spec import Spec


def images(n=3, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("my_attributes")

    def brightness():
        return lambda x: x.mean((1, 2, 3))[:, None]

    class Bright:
        spec = Spec.of("attributes", "bright")
        names = ("bright",)

        def __call__(self, x):
            return x.mean((1, 2, 3))[:, None]

    def broken():
        raise RuntimeError("no")

    made.brightness, made.Bright, made.instance, made.broken = brightness, Bright, Bright(), broken
    made.number, made.nothing = 3, lambda: 3
    monkeypatch.setitem(sys.modules, "my_attributes", made)
    return made


@pytest.mark.parametrize("name", ["Bright", "instance"])
def test_a_classifier_or_its_class(module, name):
    attributes = load_attributes(f"my_attributes:{name}")
    assert attributes.names == ("bright",)
    assert attributes(images()).shape == (3, 1)


def test_a_function_is_named_and_identified_by_its_source(module):
    attributes = load_attributes("my_attributes:brightness", names=("bright",))
    np.testing.assert_allclose(attributes(images())[:, 0], images().mean((1, 2, 3)))
    assert attributes.spec.name == "my_attributes:brightness"
    assert len(attributes.spec.sha256) == 64


def test_a_script_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_faces.py").write_text("def make():\n    return lambda x: x.mean((1, 2, 3))[:, None]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_faces", raising=False)
    before = list(sys.path)
    assert load_attributes("my_faces:make", names=("bright",))(images()).shape == (3, 1)
    assert sys.path == before
    sys.modules.pop("my_faces")


@pytest.mark.parametrize(
    ("source", "names", "match"),
    [("my_attributes:brightness", (), "no attribute classifier"), ("my_attributes:number", (), "neither"),
     ("my_attributes:nothing", ("a",), "no attribute classifier"), ("my_attributes:broken", (), "failed"),
     ("my_attributes:Bright", ("other",), "names its attributes itself"), ("no_such:thing", (), "import"),
     ("missing.pt", (), "no attribute classifiers"), ("x.pt@efficientnet-lite0/nose", (), "nose"),
     ("x.pt@efficient/pooled", (), "efficient")],
)  # fmt: skip
def test_what_is_no_classifier(module, source, names, match):
    with pytest.raises(UsageError, match=match):
        load_attributes(source, names=names)


def test_a_linear_head_on_an_extractor(tmp_path):
    weight, bias = torch.randn(2, 1280), torch.randn(2)
    torch.save({"weight": weight, "bias": bias}, tmp_path / "heads.pt")
    attributes = load_attributes(f"{tmp_path}/heads.pt@efficientnet-lite0/pooled", names=("a", "b"))
    features = build_extractor("efficientnet-lite0")(quantise(images()), ["pooled"])["pooled"]
    np.testing.assert_allclose(attributes(images()), features @ weight.T + bias, rtol=1e-4, atol=1e-4)
    assert attributes.names == ("a", "b")
    save_file({"weight": weight + 1, "bias": bias}, tmp_path / "other.safetensors")
    other = load_attributes(f"{tmp_path}/other.safetensors@efficientnet-lite0/pooled")
    assert other.names == ("attribute-0", "attribute-1")
    assert other.spec.sha256 != attributes.spec.sha256


def network(bad=None):
    g = torch.Generator().manual_seed(1)
    shapes = {
        "0.conv1.weight": (4, 3, 3, 3), "0.conv1.bias": (4,),
        "1.conv2.weight": (5, 4, 3, 3), "1.conv2.bias": (5,),
        "2.linear.weight": (6, 5), "2.linear.bias": (6,), "3.linear.weight": (2, 6), "3.linear.bias": (2,),
    } | (bad or {})  # fmt: skip
    return {key: torch.randn(*shape, generator=g) for key, shape in shapes.items() if shape is not None}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_network_that_its_keys_describe(tmp_path, suffix):
    state, path = network(), tmp_path / f"net.{suffix}"
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    attributes = load_attributes(str(path))
    modules = [
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3, stride=2, padding=1),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 6),
        torch.nn.ReLU(), torch.nn.Linear(6, 2),
    ]  # fmt: skip
    plain = torch.nn.Sequential(*modules)
    plain.load_state_dict(dict(zip(plain.state_dict(), state.values(), strict=True)))
    np.testing.assert_allclose(attributes(images()), plain(images()).detach(), rtol=1e-4, atol=1e-5)
    assert len(attributes.names) == 2
    assert len(attributes.spec.sha256) == 64


@pytest.mark.parametrize(
    ("bad", "match"),
    [({"4.norm.weight": (2,)}, "describes no layer"),
     ({"5.linear.weight": (2, 2), "5.linear.bias": (2,)}, "gap"),
     ({"1.conv2.bias": None}, "lacks"), ({"2.linear.weight": (6, 4)}, "does not follow"),
     ({"1.conv1.weight": (5, 4, 3, 3)}, "describes no layer"),
     ({"4.conv1.weight": (2, 2, 1, 1), "4.conv1.bias": (2,)}, "does not follow"),
     ({"0.conv1.weight": (4, 3, 3, 1)}, "does not follow")],
)  # fmt: skip
def test_tensors_that_are_no_network(tmp_path, bad, match):
    torch.save(network(bad), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=match):
        load_attributes(str(tmp_path / "net.pt"))


def test_convolutions_alone_are_no_classifier(tmp_path):
    torch.save({k: v for k, v in network().items() if k[0] == "0"}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="must be linear"):
        load_attributes(str(tmp_path / "net.pt"))


@pytest.mark.parametrize(
    "state",
    [{"weight": torch.zeros(2, 1280)}, {"weight": torch.zeros(2, 5), "bias": torch.zeros(2)},
     {"weight": torch.zeros(2, 1280), "bias": torch.zeros(3)},
     {"weight": torch.full((2, 1280), torch.nan), "bias": torch.zeros(2)},
     {"weight": torch.zeros(2, 1280, dtype=torch.int64), "bias": torch.zeros(2)}],
    ids=["no bias", "width", "bias", "nan", "integers"],
)  # fmt: skip
def test_tensors_that_are_no_head(tmp_path, state):
    torch.save(state, tmp_path / "head.pt")
    with pytest.raises(CheckpointError):
        load_attributes(f"{tmp_path}/head.pt@efficientnet-lite0/pooled")


def test_as_many_names_as_logits(tmp_path):
    torch.save(network(), tmp_path / "net.pt")
    with pytest.raises(UsageError, match="1 names for 2"):
        load_attributes(str(tmp_path / "net.pt"), names=("one",))


def test_a_file_never_runs_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps({"weight": Bomb()}, protocol=2))
    with pytest.raises((UnsafeCheckpointError, CheckpointError)):
        load_attributes(str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "touched").exists()


def test_a_file_that_is_not_there_names_the_flag(tmp_path):
    (tmp_path / "some@dir").mkdir()
    for source in ("missing.pt", "some@dir/missing.pt", "missing.pt@efficientnet-lite0/pooled"):
        with pytest.raises(UsageError, match=r"no attribute classifiers at .*missing\.pt$") as caught:
            load_attributes(str(tmp_path / source))
        assert "--attributes" in caught.value.hint
        assert "--ckpt" not in caught.value.hint


def test_an_at_sign_in_a_path_is_no_extractor(tmp_path, monkeypatch):
    (tmp_path / "some@dir").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("some@dir/net.pt", "net@2.pt"):
        torch.save(network(), tmp_path / name)
        assert load_attributes(name)(images()).shape == (3, 2)
    torch.save({"weight": torch.zeros(2, 1280), "bias": torch.ones(2)}, tmp_path / "some@dir" / "head.pt")
    assert load_attributes("some@dir/head.pt@efficientnet-lite0/pooled")(images()).min() == 1
