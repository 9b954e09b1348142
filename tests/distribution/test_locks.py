"""Who may write to a folder of shards: a whole run alone, parts side by side, the dead not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from evalkit.errors import TemporaryError
from evalkit.shard_locks import alone, held


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".part")}


def test_parts_work_side_by_side_and_leave_nothing(tmp_path):
    with held(tmp_path, part="0-of-2"), held(tmp_path, part="1-of-2"):
        assert len(_files(tmp_path)) == 4
    assert _files(tmp_path) == set()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, None),
        (None, "0-of-2"),
        ("0-of-2", None),
        ("0-of-2", "0-of-2"),
        ("0-of-2", "0-of-3"),
        ("1-of-2", "0-of-3"),
    ],
)
def test_whole_runs_and_parts_exclude_each_other(tmp_path, first, second):
    busy = pytest.raises(TemporaryError, match=f"another evalkit run .*process {os.getpid()} on")
    with held(tmp_path, part=first), busy, held(tmp_path, part=second):
        pass
    with held(tmp_path, part=second):
        pass


def test_a_refused_whole_run_holds_nothing(tmp_path):
    with held(tmp_path, part="0-of-2"):
        with pytest.raises(TemporaryError), held(tmp_path):
            pass
        with held(tmp_path, part="1-of-2"):
            pass


@pytest.mark.parametrize("part", [None, "0-of-2"])
def test_the_locks_of_a_process_that_was_killed_are_free(tmp_path, part):
    dies = (
        "import os, pathlib, signal\n"
        "from evalkit.shard_locks import held\n"
        f"with held(pathlib.Path({str(tmp_path)!r}), part={part!r}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", dies], check=False).returncode == -signal.SIGKILL
    with held(tmp_path, part=part):
        pass
    with held(tmp_path):
        assert _files(tmp_path) == set()


def test_files_of_dead_parts_are_removed_by_a_whole_run(tmp_path):
    (tmp_path / ".part-5-of-9.lock").touch()
    (tmp_path / ".part-5-of-9.holder").touch()
    with held(tmp_path):
        assert _files(tmp_path) == set()


def test_files_of_dead_parts_of_another_division_do_not_keep_a_part_out(tmp_path):
    (tmp_path / ".part-5-of-9.lock").touch()
    (tmp_path / ".part-5-of-9.holder").touch()
    with held(tmp_path, part="0-of-2"):
        assert _files(tmp_path) == {".part-0-of-2.lock", ".part-0-of-2.holder"}


def test_waiting_for_the_holder(tmp_path):
    holders = []
    lock = FileLock(tmp_path / ".lock")
    lock.acquire()

    def wait(who: str) -> None:
        holders.append(who)
        if len(holders) == 3:
            lock.release()

    with held(tmp_path, waiting=wait):
        assert holders == ["unknown"] * 3


def test_giving_up_waiting(tmp_path):
    def give_up(_who: str) -> None:
        raise KeyboardInterrupt

    with held(tmp_path), pytest.raises(KeyboardInterrupt), held(tmp_path, waiting=give_up):
        pass


def test_one_process_at_a_time(tmp_path):
    path, waited = tmp_path / "deep" / "x.lock", []
    outer = FileLock(path)
    path.parent.mkdir()
    outer.acquire()

    def wait(_who: str) -> None:
        waited.append(1)
        outer.release()

    with alone(path, waiting=wait):
        assert waited == [1]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for place in (held(tmp_path / "file" / "x"), alone(tmp_path / "file" / "x", waiting=lambda _who: None)):
        with pytest.raises(TemporaryError, match="cannot write to") as caught, place:
            pass
        assert caught.value.hint
