"""The progress file: whole, of its schema, and what its age and its process say of the run."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.progress import (
    FOLDER,
    STALLED_AFTER,
    Snapshot,
    is_alive,
    numbers_in,
    ranges_of,
    read_progress,
    read_snapshot,
    schema,
    state_of,
    write_progress,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def _stamp(seconds_ago: float) -> str:
    return f"{NOW - timedelta(seconds=seconds_ago):%Y-%m-%dT%H:%M:%SZ}"


def snapshot(**changes) -> Snapshot:
    first = Snapshot(
        run="20261122T110000.000000Z-0a1b2c3d",
        subject="ddpm",
        protocol="embedded",
        phase="sampling",
        images_done=96,
        images_total=256,
        shards_done=6,
        shards_total=16,
        rate=12.5,
        eta_seconds=12.8,
        started_utc=_stamp(60),
        moved_utc=_stamp(2),
        heartbeat_utc=_stamp(1),
        pid=4242,
        host="here",
        state=("state/abc-16",),
        shards="0-15",
    )
    return dataclasses.replace(first, **changes)


def test_a_file_is_of_the_schema_and_reads_back(tmp_path):
    path = tmp_path / FOLDER / "k.json"
    write_progress(path, snapshot())
    jsonschema.Draft202012Validator(schema()).validate(json.loads(path.read_text()))
    assert read_snapshot(path) == snapshot()
    assert [found.snapshot for found in read_progress(tmp_path, notify=pytest.fail)] == [snapshot()]


def test_the_schema_has_the_fields_of_a_snapshot_and_no_others():
    fields = {field.name for field in dataclasses.fields(Snapshot)}
    assert set(schema()["properties"]) == set(schema()["required"]) == fields


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "evalkit.progress/2"}, "schema is"),
        ({"images_done": 300}, "more images are done"),
        ({"shards_done": 17}, "more shards are done"),
        ({"part": 1}, "part 1 of 1"),
        ({"heartbeat_utc": "yesterday"}, "not a UTC time"),
        ({"shards": "3-1"}, "no ranges"),
        ({"phase": "sleeping"}, "must be one of"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_a_damaged_file_is_told_of_and_skipped(tmp_path, changes, message):
    good, bad = tmp_path / FOLDER / "good.json", tmp_path / FOLDER / "bad.json"
    write_progress(good, snapshot())
    bad.write_text(json.dumps({**json.loads(good.read_text()), **changes}))
    told: list[str] = []
    assert [found.path for found in read_progress(tmp_path, notify=told.append)] == [good]
    assert len(told) == 1
    assert message in told[0]
    assert "bad.json" in told[0]


@given(st.sets(st.integers(0, 300)))
def test_ranges_hold_their_numbers(numbers):
    text = ranges_of(numbers)
    assert numbers_in(text) == sorted(numbers)
    assert len(text) <= len(",".join(map(str, numbers)))


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1,,2", "²", "0-99999999", "1" * 5000, "0-1-2"])
def test_other_text_is_no_ranges(text):
    with pytest.raises(InvalidInputError, match="no ranges"):
        numbers_in(text)


OLD = STALLED_AFTER + 1


@pytest.mark.parametrize(
    ("changes", "alive", "expected"),
    [
        pytest.param({}, True, "running", id="beats and lives"),
        pytest.param({}, False, "stalled", id="its process is gone"),
        pytest.param({"heartbeat_utc": _stamp(OLD)}, True, "stalled", id="silent although its number lives"),
        pytest.param({"host": "there"}, False, "running", id="beats on another host"),
        pytest.param({"host": "there", "heartbeat_utc": _stamp(OLD)}, True, "stalled", id="silent elsewhere"),
        pytest.param({"heartbeat_utc": _stamp(-30)}, True, "running", id="its clock is ahead"),
        pytest.param({"heartbeat_utc": _stamp(STALLED_AFTER)}, True, "running", id="just not silent"),
        pytest.param({"phase": "opening"}, True, "running", id="still opening"),
        pytest.param({"phase": "scoring"}, True, "running", id="scoring"),
        pytest.param({"phase": "done", "heartbeat_utc": _stamp(OLD)}, False, "complete", id="done long ago"),
        pytest.param({"phase": "failed", "heartbeat_utc": _stamp(OLD)}, False, "failed", id="failed"),
        pytest.param({"phase": "interrupted"}, False, "partial", id="interrupted"),
    ],
)
def test_state_of_a_run(changes, alive, expected):
    asked: list[int] = []

    def lives(pid: int) -> bool:
        asked.append(pid)
        return alive

    assert state_of(snapshot(**changes), now=NOW, host="here", alive=lives) == expected
    assert asked in ([], [4242])


def test_which_processes_live():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_alive(os.getpid())
    assert not is_alive(ended.pid)
    assert not is_alive(0)
    assert not is_alive(-1)
    assert not is_alive(2**70)


def test_a_folder_without_progress_has_none(tmp_path: Path):
    assert read_progress(tmp_path, notify=pytest.fail) == []
