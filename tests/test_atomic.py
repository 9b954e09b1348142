"""Files appear whole; what dead writers left goes, what living ones are writing stays."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from evalkit.atomic import remove_orphans, write_atomically
from evalkit.errors import TemporaryError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_whole_and_alone(tmp_path):
    write_atomically(tmp_path / "deep" / "x.json", "é")
    write_atomically(tmp_path / "deep" / "x.json", b"new")
    assert (tmp_path / "deep" / "x.json").read_bytes() == b"new"
    assert names(tmp_path / "deep") == {"x.json"}


@pytest.mark.fault("killed-at-random")
def test_only_files_of_dead_writers_are_removed(tmp_path):
    kept = {".x.json.tmp", "x.json.0123abcd.tmp", ".other", ".alive.json.0123abcd.tmp", ".notes.99.tmp"}
    for name in (*kept, ".dead.json.89abcdef.tmp"):
        (tmp_path / name).write_text("half")
    with (tmp_path / ".alive.json.0123abcd.tmp").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove_orphans(tmp_path)
    assert names(tmp_path) == kept
    remove_orphans(tmp_path)
    assert names(tmp_path) == kept - {".alive.json.0123abcd.tmp"}
    remove_orphans(tmp_path / "absent")


def test_a_writer_whose_file_was_taken_for_an_orphan_takes_another(tmp_path, monkeypatch):
    """Between making a file and locking it anybody may take it away."""
    taken: list[Path] = []
    lock = fcntl.flock

    def flock(file, operation):
        if not taken:
            (path,) = tmp_path.glob(".*.tmp")
            path.unlink()
            taken.append(path)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomically(tmp_path / "x", "text")
    assert taken
    assert names(tmp_path) == {"x"}
    assert (tmp_path / "x").read_text() == "text"


def test_without_locks_it_is_written_all_the_same(tmp_path, monkeypatch):
    def flock(_file, _operation):
        raise OSError("no locks on this file system")

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomically(tmp_path / "x", "text")
    assert names(tmp_path) == {"x"}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    write_atomically(tmp_path / "x", "old")

    def fsync(_descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TemporaryError, match="No space left"):
        write_atomically(tmp_path / "x", "new")
    assert names(tmp_path) == {"x"}
    assert (tmp_path / "x").read_text() == "old"
