"""Weights files: what is read, what is refused, and folding in closed form."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, UnsafeCheckpointError
from evalkit.extractors.weights import check_layout, fold_batch_norm, read_state_dict, read_tensors


class Malice:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_code_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, force: bool, plain: bool
) -> None:
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, victim = tmp_path / "evil.pth", tmp_path / "touched"
    if plain:
        path.write_bytes(pickle.dumps({"a": Malice(victim)}))
    else:
        torch.save({"a": Malice(victim)}, path)
    with pytest.raises(UnsafeCheckpointError, match="mkdir") as caught:
        read_state_dict(path)
    assert caught.value.exit_code == 6
    assert not victim.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wanted", [torch.load, os.system, eval])
def test_the_offending_global_is_named(tmp_path: Path, wanted: object, protocol: int) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"a": wanted}, protocol=protocol))
    with pytest.raises(UnsafeCheckpointError, match=wanted.__name__):  # type: ignore[attr-defined]
        read_state_dict(path)


def test_reads_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "good.pth"
    torch.save(OrderedDict(a=torch.arange(3.0), b=torch.tensor(2)), path)
    state = read_state_dict(path)
    assert list(state) == ["a", "b"]
    assert torch.equal(state["a"], torch.arange(3.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_name_the_tensor(tmp_path: Path, value: float) -> None:
    path = tmp_path / "nan.pth"
    torch.save({"fine": torch.ones(2), "layer.weight": torch.tensor([1.0, value])}, path)
    with pytest.raises(CheckpointError, match=r"layer\.weight"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(1)],
        torch.ones(1),
        {"a": [1.0]},
        {3: torch.ones(1)},
        {"a": {"nested": torch.ones(1)}},
        {"a": torch.ones(2, 2).to_sparse()},
        {"a": torch.ones(1, device="meta")},
    ],
    ids=["list", "tensor", "number", "integer key", "nested", "sparse", "meta"],
)
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError):
        read_state_dict(path)


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -200])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x80\x04\x95", b"PK\x03\x04 no"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_state_dict(path)


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(CheckpointError):
            read_state_dict(path)


def test_layout_lists_at_most_ten_faults() -> None:
    expected: dict[str, tuple[int, ...]] = {f"layer{i}": (2,) for i in range(14)}
    with pytest.raises(CheckpointError, match=r"missing layer0; .*missing layer9, and 5 more") as caught:
        check_layout({"extra": torch.ones(1)}, expected, label="x.pth")
    assert "x.pth" in caught.value.message


def test_layout_names_wrong_shapes() -> None:
    with pytest.raises(CheckpointError, match=r"a has shape \(3,\), not \(2,\)"):
        check_layout({"a": torch.ones(3)}, {"a": (2,)}, label="x.pth")


def test_folding_is_convolution_then_batch_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    state = {
        "c.weight": rand(5, 3, 3, 3) - 0.5,
        "n.weight": rand(5) + 0.5,
        "n.bias": rand(5),
        "n.running_mean": rand(5),
        "n.running_var": rand(5) + 0.1,
    }
    x = rand(2, 3, 9, 9)
    convolved = F.conv2d(x, state["c.weight"])
    norm = [state[f"n.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    expected = F.batch_norm(convolved, *norm, eps=1e-3)
    weight, bias = fold_batch_norm(state, convolution="c", norm="n", epsilon=1e-3)
    torch.testing.assert_close(F.conv2d(x, weight, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("variance", "message"), [(-1.0, "negative"), (0.0, "NaN or infinity")])
def test_folding_refuses_impossible_variances(variance: float, message: str) -> None:
    state = {
        "c.weight": torch.ones(1, 1, 1, 1),
        **{f"n.{part}": torch.ones(1) for part in ("weight", "bias", "running_mean")},
        "n.running_var": torch.tensor([variance]),
    }
    with pytest.raises(CheckpointError, match=message):
        fold_batch_norm(state, convolution="c", norm="n", epsilon=0.0)


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert file_sha256(tmp_path / "f") == expected


def test_tensors_of_both_formats(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2).half()}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "named-otherwise.pt")
    for path in (tmp_path / "a.pt", tmp_path / "named-otherwise.pt"):
        found = read_tensors(path)
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("fault", ["nan", "cut", "length", "absent"])
def test_bad_safetensors_are_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"layer": torch.full((99,), float("nan") if fault == "nan" else 1.0)}, path)
    content = path.read_bytes()
    if fault == "cut":
        path.write_bytes(content[:-9])
    elif fault == "length":
        path.write_bytes(b"\xff" * 7 + b"\x00" + content[8:])
    elif fault == "absent":
        path.unlink()
    with pytest.raises(CheckpointError, match="layer" if fault == "nan" else r"bad\.safetensors"):
        read_tensors(path)


def test_numbers_that_a_tensor_repeats_are_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for value, count, expected in ((1.0, 2**20, None), (float("nan"), 2**20, "NaN"), (1.0, 2**40, "repeats")):
        torch.save({"w": torch.full((1,), value).expand(count)}, path)
        if expected is None:
            assert read_tensors(path)["w"].shape == (count,)
        else:
            with pytest.raises(CheckpointError, match=expected):
                read_tensors(path)
