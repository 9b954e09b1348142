"""A second start while the first works: refused, and nothing that the first told is changed."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.progress import Snapshot, read_progress, read_snapshot, write_progress
from evalkit.record import utc_now
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.shards import ShardStore

_FIRST = "20260101T000000.000000Z-0a0a0a0a"


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(64))).numpy(), labels=None)
    return path


@pytest.fixture
def score(real, tmp_path):
    def call(*more: str) -> int:
        return run([
            "score", "--model", "evalkit.generators.toy:make", "--protocol", "pixels", "--metrics", "kd",
            "--reference", str(real), "--num-samples", "40", "--out", str(tmp_path), *more,
        ])  # fmt: skip

    return call


def _at_work(out: Path, **changes) -> Path:
    """Turn the progress of the run that was here into that of another process in the middle of its work."""
    (found,) = read_progress(out, notify=pytest.fail)
    for path in out.glob("*.json"):
        path.unlink()
    now = utc_now()
    at_work = {
        "run": _FIRST,
        "phase": "sampling",
        "pid": os.getppid(),
        "heartbeat_utc": now,
        "moved_utc": now,
    }
    write_progress(found.path, replace(found.snapshot, **{**at_work, **changes}))
    return found.path


def test_a_refused_start_leaves_the_progress_and_no_record(score, tmp_path, capsys):
    assert score() == 0
    progress = _at_work(tmp_path)
    told = progress.read_bytes()
    with ExitStack() as stack:
        for folder in read_snapshot(progress).state:
            stack.enter_context(ShardStore(tmp_path / folder).exclusive())
        assert score("--fresh") == 75
        assert "another evalkit run works on" in capsys.readouterr().err
    assert progress.read_bytes() == told
    assert not list(tmp_path.glob("*.json"))
    assert run(["status", str(tmp_path)]) == 75
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert "running" in row


def _ended(out: Path) -> Snapshot:
    (found,) = read_progress(out, notify=pytest.fail)
    return read_snapshot(found.path)


def test_who_is_not_refused_takes_the_place_of_the_one_that_was_thought_to_work(score, tmp_path):
    """It was killed on another machine a moment ago: nobody holds its folders, and its heart still counts."""
    assert score() == 0
    _at_work(tmp_path, host="elsewhere")
    assert score("--fresh") == 0
    (record,) = tmp_path.glob("*.json")
    last = _ended(tmp_path)
    assert (last.phase, last.run, last.continues) == ("done", record.stem, (_FIRST,))
    assert json.loads(record.read_text())["status"] == "complete"
    assert run(["status", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "changes", [{"phase": "failed"}, {"pid": 2**22 + 1}, {"heartbeat_utc": "2026-01-01T00:00:00Z"}]
)
def test_the_place_of_a_run_that_ended_or_died_is_taken(score, tmp_path, changes):
    assert score() == 0
    _at_work(tmp_path, **changes)
    assert score() == 0
    assert _ended(tmp_path).continues == (_FIRST,)
