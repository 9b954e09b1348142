"""Room on a disk is asked for by everything that will lie there, and only for what is still to come."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from evalkit.disk_room import Wanted, check_room
from evalkit.errors import TemporaryError

MIB = 2**20


@pytest.fixture
def disk(monkeypatch):
    def free(mebibytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=mebibytes * MIB))

    return free


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / "state" / name for name in ("a", "b")]
    for folder in made:
        folder.mkdir(parents=True)
    return made


def test_networks_of_one_disk_are_summed(disk, folders):
    wanted = [Wanted(folder, range(4), 6 * MIB) for folder in folders]
    disk(12)
    check_room(wanted)
    disk(11)
    for one in wanted:
        check_room([one])
    with pytest.raises(TemporaryError, match=r"state needs 12\.0 MiB for features, and 11\.0 MiB") as caught:
        check_room(wanted)
    assert "nothing was sampled" in str(caught.value.hint)


def test_disks_are_told_apart(disk, folders, monkeypatch):
    monkeypatch.setattr("evalkit.disk_room._disk_of", folders.index)
    disk(6)
    check_room([Wanted(folder, range(4), 6 * MIB) for folder in folders])


def test_shards_that_are_there_count_where_they_are_ours(disk, folders):
    folder = folders[0]
    for shard in (0, 1, 2, 3):
        (folder / f"{shard:06d}-ab.safetensors").write_bytes(bytes(MIB))
    (folder / "else.safetensors").write_bytes(bytes(MIB))
    assert Wanted(folder, range(4), 4 * MIB).missing == 0
    assert Wanted(folder, range(0, 4, 2), 4 * MIB).missing == 2 * MIB
    assert Wanted(folder, range(4), MIB).missing == 0
    disk(1)
    with pytest.raises(TemporaryError, match=r"needs 2\.0 MiB"):
        check_room([Wanted(folder, range(1, 4, 2), 4 * MIB)])
