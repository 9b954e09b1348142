"""Only whole shards exist; the layout is a function of the count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import TemporaryError
from evalkit.shards import ShardLayout, ShardResult, ShardStore


@given(st.integers(1, 200_000))
def test_layout_covers_every_index_once(count):
    layout = ShardLayout(count)
    edges = [layout.indices(s)[[0, -1]].tolist() for s in range(layout.shards)]
    assert edges[0][0] == 0
    assert edges[-1][1] == count - 1
    assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(edges))
    blocks = layout.blocks()
    assert [s for block in blocks for s in block] == list(range(layout.shards))
    assert 1 <= len(blocks) <= 20
    if layout.shards >= 16:
        assert len(blocks) >= 10


@pytest.mark.parametrize(
    ("count", "size", "blocks"), [(1024, 64, 16), (10_000, 512, 20), (50_000, 512, 14), (5, 8, 1)]
)
def test_known_layouts(count, size, blocks):
    layout = ShardLayout(count)
    assert layout.shard_size == size
    assert len(layout.blocks()) == blocks


def _result(value: float) -> ShardResult:
    return ShardResult({"a": np.full((4, 2), value, dtype=np.float32)}, {"images": [4]})


def test_round_trip_and_replacement(tmp_path):
    store = ShardStore(tmp_path / "new")
    assert store.read(3, 4) == (None, None)
    store.write(3, _result(1.0))
    store.write(3, _result(2.0))
    assert len(list(store.folder.glob("*.safetensors"))) == 1
    read, warning = store.read(3, 4)
    assert warning is None
    assert read is not None
    assert np.array_equal(read.features["a"], _result(2.0).features["a"])
    assert read.facts == {"images": [4]}


@pytest.mark.parametrize("count", [3, 5])
def test_the_short_last_shard_of_another_run_is_no_shard_of_this_one(tmp_path, count):
    store = ShardStore(tmp_path)
    store.write(0, _result(1.0))
    assert store.read(0, count) == (None, None)


def test_clearing_leaves_nothing_to_read(tmp_path):
    store = ShardStore(tmp_path)
    store.write(0, _result(1.0))
    store.clear()
    assert store.read(0, 4) == (None, None)


@pytest.mark.fault("state-damaged")
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_flipped_byte_is_noticed(tmp_path_factory, position, flip):
    store = ShardStore(tmp_path_factory.mktemp("shards"))
    store.write(0, _result(1.0))
    (path,) = store.folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= flip
    path.write_bytes(bytes(content))
    read, warning = store.read(0, 4)
    assert read is None
    assert warning is not None
    assert "damaged" in warning


@pytest.mark.fault("killed-at-random")
def test_a_temporary_file_of_a_killed_process_is_no_shard(tmp_path):
    (tmp_path / ".000000-abc.safetensors.123.tmp").write_bytes(b"half")
    assert ShardStore(tmp_path).read(0, 4) == (None, None)


def test_a_folder_that_cannot_be_written_is_temporary(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(TemporaryError):
        ShardStore(blocked).write(0, _result(1.0))
