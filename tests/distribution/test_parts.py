"""What parts are made of: shares of shards, files that move between folders, references built once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evalkit import reference_resolution
from evalkit.console import Silent
from evalkit.distribution.parts import compute
from evalkit.extractors import build_extractor
from evalkit.reference_resolution import resolve_reference
from evalkit.shard_locks import alone
from evalkit.shards import Part, ShardResult, ShardStore, read_state
from evalkit.subjects import ImageOptions


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, -1)])
def test_a_part_that_does_not_exist(index, count):
    with pytest.raises(ValueError, match="no part"):
        Part(index, count)


def _store(folder: Path, *shards: int) -> ShardStore:
    store = ShardStore(folder)
    for shard in shards:
        store.write(shard, ShardResult({"a": np.full((4, 2), shard, dtype=np.float32)}))
    return store


def _shards(store: ShardStore) -> list[int]:
    return sorted(int(path.name[:6]) for path in store.folder.glob("*.safetensors"))


def test_clearing_a_part_leaves_the_others(tmp_path):
    store = _store(tmp_path, 0, 1, 2, 3, 4)
    store.clear(Part(1, 3))
    assert _shards(store) == [0, 2, 3]
    store.clear()
    assert _shards(store) == []


@pytest.mark.parametrize("richer", [0, 1])
def test_of_several_files_of_a_shard_the_one_with_the_wanted_heads_is_read(tmp_path, richer):
    """Two machines that met in one store leave two."""
    rows = np.zeros((4, 2), dtype=np.float32)
    names = []
    for number in (0, 1):
        heads = {"a": rows, "b": rows} if number == richer else {"a": rows}
        written = ShardStore(tmp_path / str(number)).write(7, ShardResult(heads))
        names.append(written.name)
        (tmp_path / "both").mkdir(exist_ok=True)
        written.rename(tmp_path / "both" / written.name)
    store = ShardStore(tmp_path / "both")
    result, warning = store.read(7, 4, ("b",))
    assert warning is None
    assert result is not None
    assert result.path == store.folder / names[richer]
    anything, _ = store.read(7, 4, ("c",))
    assert anything is not None
    assert "a" in anything.features


@pytest.mark.parametrize("linked", [True, False])
def test_taking_a_shard_of_another_folder(tmp_path, monkeypatch, linked):
    theirs, ours = _store(tmp_path / "theirs", 7), _store(tmp_path / "ours", 6)
    ours.write(7, ShardResult({"a": np.zeros((4, 2), dtype=np.float32)}))
    (path,) = theirs.folder.glob("*.safetensors")
    if not linked:

        def refuse(*_arguments):
            raise OSError(18, "cross-device link")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for _ in range(2):
        ours.adopt(path, 7)
        result, warning = ours.read(7, 4)
        assert warning is None
        assert result is not None
        assert (result.features["a"] == 7).all()
        assert _shards(ours) == [6, 7]
    assert (path.stat().st_nlink == 2) == linked


def test_a_damaged_state_file_holds_nothing(tmp_path):
    store = _store(tmp_path, 0)
    (path,) = store.folder.glob("*.safetensors")
    whole = read_state(path)
    assert whole is not None
    assert whole.path == path
    path.write_bytes(path.read_bytes()[:-1])
    assert read_state(path) is None


def test_a_part_says_where_its_shards_lie(asked):
    request = asked(num_samples=40)
    computed = compute(request, console=Silent(), part=Part(1, 2))
    assert computed.manifest.shards == (1, 3)
    assert [file.shard for file in computed.manifest.files] == [1, 3]
    assert [file.shard for file in computed.manifest.reference_files] == list(range(19))
    for file in (*computed.manifest.files, *computed.manifest.reference_files):
        assert read_state(request.out / file.path) is not None


def test_who_waits_for_a_registered_reference_reads_what_the_other_kept(tmp_path, monkeypatch):
    """The build happens in another process while we wait for its lock."""
    kept, found = object(), iter([None, "found"])
    monkeypatch.setattr(reference_resolution, "REGISTERED", {"somewhere": None})
    monkeypatch.setattr(
        reference_resolution, "cached_reference", lambda *_a, **_k: kept if next(found) else None
    )
    monkeypatch.setattr(reference_resolution, "cached_path", lambda name, **_k: tmp_path / name)
    monkeypatch.setattr(reference_resolution, "store_reference", _never)
    monkeypatch.setattr(reference_resolution, "open_named_source", _never)
    got = resolve_reference(
        "somewhere",
        extractor=build_extractor("pixels"),
        heads=("thumbnail",),
        image_options=ImageOptions(),
        state=tmp_path,
        device=torch.device("cpu"),
        extract_images=_never,
    )
    assert got is kept
    assert next(found, "both were asked") == "both were asked"


def _never(*_arguments, **_flags):
    raise AssertionError("built twice")


def test_locks_of_references_are_free_again(tmp_path):
    for _ in range(2):
        with alone(tmp_path / "x.lock", waiting=_never):
            pass


def test_a_reference_waits_for_whoever_extracts_it(asked, real, monkeypatch):
    """Two parts that begin at once share one extraction: the second waits, and reads."""
    request = asked(num_samples=40)
    compute(request, console=Silent(), part=Part(0, 2))
    (folder,) = (path for path in (request.out / "state").iterdir() if path.name.endswith("-16"))
    moments = iter([0, 0, 1])
    lock = ShardStore(folder).exclusive()
    lock.__enter__()

    def moment(_seconds: float) -> None:
        if next(moments):
            lock.__exit__(None, None, None)

    monkeypatch.setattr("evalkit.extraction.time", SimpleNamespace(sleep=moment))
    computed = compute(request, console=Silent(), part=Part(1, 2))
    assert next(moments, None) is None
    assert computed.manifest.shards == (1, 3)
