"""TorchScript archives: tensors come out as torch itself reads them, and nothing else is ever run."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evalkit.errors import CheckpointError, UnsafeCheckpointError
from evalkit.extractors.torchscript import is_torchscript, read_torchscript_tensors


class Network(nn.Module):
    """Shared, sliced and half-precision tensors, buffers, lists and plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2).half())
        self.sizes = [1, 2]
        self.name = "network"
        self.register_buffer("table", torch.rand(6, 4, generator=generator)[1:5, ::2])
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("empty", torch.empty(0, 3))
        self.tied = self.inner[0].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0](x)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("script") / "network.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        scripted = torch.jit.script(Network())
        torch.jit.save(scripted, path)
    return path, {name: tensor.detach() for name, tensor in scripted.state_dict().items()}


def test_tensors_are_those_of_the_state_dict(archive: tuple[Path, dict[str, Tensor]]) -> None:
    path, expected = archive
    found = read_torchscript_tensors(path)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_archives_are_told_from_state_dicts(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    torch.save({"a": torch.ones(1)}, state)
    text = tmp_path / "text.pt"
    text.write_text("no zip")
    assert [is_torchscript(path) for path in (archive[0], state, text)] == [True, False, False]


def replaced(source: Path, target: Path, ending: str, content: bytes | None) -> Path:
    """Copy an archive with one member's content replaced, or left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if not name.endswith(ending):
                new.writestr(name, old.read(name))
            elif content is not None:
                new.writestr(name, content)
    return target


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


def test_no_other_name_is_looked_up(archive: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    victim = tmp_path / "touched"
    evil = replaced(archive[0], tmp_path / "evil.pt", "/data.pkl", pickle.dumps(Malice(victim)))
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        read_torchscript_tensors(evil)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["torch.load", "torch._utils._rebuild_device_tensor_from_numpy"])
def test_names_within_torch_are_refused_too(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path, name: str
) -> None:
    module, _, attribute = name.rpartition(".")
    content = f"c{module}\n{attribute}\n.".encode()
    evil = replaced(archive[0], tmp_path / "evil.pt", "/data.pkl", content)
    with pytest.raises(UnsafeCheckpointError, match=attribute):
        read_torchscript_tensors(evil)


def crafted(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, count: int = 4) -> bytes:
    """A module with one tensor of four floats, viewed as asked."""
    out = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj == "STORAGE" else None

    class Leaf:
        def __reduce__(self) -> tuple[object, ...]:
            return torch._utils._rebuild_tensor_v2, ("STORAGE", offset, size, stride, False, {})

    Pickler(out, protocol=2).dump({"a": Leaf()})
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "stride", "offset", "count"),
    [((8,), (1,), 0, 4), ((2,), (9,), 0, 4), ((2,), (1,), 3, 4), ((2,), (1,), -1, 4), ((2,), (1,), 0, 5)],
)
def test_views_beyond_their_storage_are_refused(
    archive: tuple[Path, dict[str, Tensor]],
    tmp_path: Path,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
    count: int,
) -> None:
    path = replaced(archive[0], tmp_path / "a.pt", "/data.pkl", crafted(size, stride, offset, count))
    path = replaced(path, tmp_path / "b.pt", "/data/0", torch.ones(4).numpy().tobytes())
    with pytest.raises(CheckpointError):
        read_torchscript_tensors(path)


@pytest.mark.parametrize("ending", ["/data.pkl", "/data/0"])
@pytest.mark.parametrize("content", [None, b"", b"\x80\x02."])
def test_damaged_archives_are_refused(
    archive: tuple[Path, dict[str, Tensor]], tmp_path: Path, ending: str, content: bytes | None
) -> None:
    with pytest.raises(CheckpointError):
        read_torchscript_tensors(replaced(archive[0], tmp_path / "bad.pt", ending, content))
