"""Every screen and exit code of ``evalkit status``."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evalkit.cli.main import run
from evalkit.cli.status import duration
from evalkit.progress import FOLDER, Snapshot, write_progress
from evalkit.record import DataInfo, Inputs, ModelInfo, ProtocolInfo, RunRecord


def _stamp(seconds_ago: float = 0) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=seconds_ago):%Y-%m-%dT%H:%M:%SZ}"


def _snapshot(**changes) -> Snapshot:
    running = Snapshot(
        run="20261122T110000.000000Z-0a1b2c3d",
        subject="ddpm",
        protocol="embedded",
        phase="sampling",
        images_done=1024,
        images_total=50_000,
        shards_done=2,
        shards_total=98,
        rate=12.5,
        eta_seconds=3918.1,
        started_utc=_stamp(100),
        moved_utc=_stamp(2),
        heartbeat_utc=_stamp(1),
        pid=os.getpid(),
        host=socket.gethostname(),
        state=("state/images-network-512",),
        shards="0-97",
    )
    return dataclasses.replace(running, **changes)


@pytest.fixture
def put(tmp_path):
    def write(name: str = "k", *, whole: tuple[int, ...] = (0, 1), below: str = ".", **changes) -> None:
        snapshot = _snapshot(**changes)
        write_progress(tmp_path / below / FOLDER / f"{name}.json", snapshot)
        for folder in snapshot.state:
            (tmp_path / below / folder).mkdir(parents=True, exist_ok=True)
            for shard in whole:
                (tmp_path / below / folder / f"{shard:06d}-ab.safetensors").touch()

    return write


@pytest.fixture
def look(tmp_path, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["status", str(tmp_path), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_running_run(put, look):
    put()
    code, out, err = look()
    assert code == 75
    assert err == ""
    heading, row = out.splitlines()
    assert heading.split() == (
        ["subject", "protocol", "part", "state", "phase", "images", "images/s", "left", "heartbeat"]
    )
    assert row.split()[:9] == [
        "ddpm",
        "embedded",
        "-",
        "running",
        "sampling",
        "1,024",
        "of",
        "50,000",
        "12.5",
    ]
    assert "65 min" in row
    assert row.endswith(" s ago")


def test_a_complete_run(put, look):
    put(phase="done", images_done=50_000, shards_done=98)
    code, out, _err = look()
    assert code == 0
    assert "complete" in out
    assert len(out.splitlines()) == 2


def test_a_stalled_run_names_its_process_and_what_is_missing(put, look):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    put(pid=gone.pid, whole=(0, 1, 5))
    code, out, _err = look()
    assert code == 5
    assert "stalled" in out
    assert "ddpm: missing shards: 2-4,6-97" in out
    assert f"ddpm: process {gone.pid} on {socket.gethostname()} is silent; the same command continues" in out


def test_a_run_elsewhere_whose_heart_stopped(put, look):
    put(host="node17", heartbeat_utc=_stamp(7200))
    code, out, _err = look()
    assert code == 5
    assert "on node17 is silent" in out
    assert "2 h 00 min ago" in out


def test_a_run_that_lives_and_does_not_get_on(put, look):
    put(moved_utc=_stamp(600), warning="warning: 3 images are black")
    code, out, _err = look()
    assert code == 75
    assert "ddpm: no progress for 10 min" in out
    assert "ddpm: warning: 3 images are black" in out


@pytest.mark.parametrize(("phase", "state"), [("interrupted", "partial"), ("failed", "failed")])
def test_a_run_that_ended_early(put, look, phase, state):
    put(phase=phase, error="it ended so\nand so " + "x" * 300)
    code, out, _err = look()
    assert code == 5
    assert f" {state} " in out
    assert "ddpm: it ended so and so xxx" in out
    assert all(len(line) < 130 for line in out.splitlines())


def test_parts_and_one_that_never_began(put, look):
    put("k-part-0-of-3", part=0, parts=3, phase="done", shards="0,3,6", images_total=1536, shards_total=3)
    put("k-part-2-of-3", part=2, parts=3, host="node2", shards="2,5,8", shards_total=3)
    code, out, _err = look()
    assert code == 5
    assert [line.split()[2:6] for line in out.splitlines()[1:4]] == [
        ["1", "of", "3", "complete"],
        ["2", "of", "3", "missing"],
        ["3", "of", "3", "running"],
    ]
    assert "ddpm, part 2 of 3: this part never began" in out


def test_complete_parts_wait_to_be_merged(tmp_path, put, look):
    for part in range(2):
        put(f"k-part-{part}-of-2", part=part, parts=2, phase="done", shards=str(part), shards_total=2)
    code, out, _err = look()
    assert code == 0
    assert out.splitlines()[-1] == f"ddpm: all parts are complete: evalkit merge {tmp_path}"
    put("k", phase="done")
    assert "evalkit merge" not in look()[1]


def test_parts_do_not_matter_once_they_are_merged(put, look):
    put("k-part-0-of-2", part=0, parts=2, phase="failed", error="a worker died")
    put("k", phase="done")
    code, out, _err = look()
    assert code == 0
    assert "failed" in out


def test_several_folders_are_told_apart(put, look):
    put(below="a", phase="done")
    put(below="b/records", phase="done")
    code, out, _err = look()
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()] == ["folder", "a", "b/records"]


def _record(status: str, **changes) -> RunRecord:
    return RunRecord(
        status=status,
        model=ModelInfo(id="vae", family="vae", format="safetensors"),
        data=DataInfo(dataset="none"),
        protocol=ProtocolInfo("pixels", {}, "f" * 64),
        inputs=Inputs(found=64, used=64),
        **changes,
    )


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ("complete", "complete", 0),
        ("started", "stalled", 5),
        ("partial", "partial", 5),
        ("error", "failed", 5),
    ],
)
def test_a_record_alone_counts_by_its_status(tmp_path, look, status, state, code):
    record = _record(status, notes="so it was")
    record.write(tmp_path / f"{record.run_id}.json")
    got, out, _err = look()
    assert got == code
    assert out.splitlines()[1].split()[:4] == ["vae", "pixels", "-", state]


def test_records_that_a_later_run_took_over_are_not_listed(tmp_path, put, look):
    earlier, killed, last = (_record("started") for _ in range(3))
    for record in (earlier, killed):
        record.write(tmp_path / f"{record.run_id}.json")
    put(run=last.run_id, continues=(earlier.run_id, killed.run_id), phase="done")
    code, out, _err = look()
    assert code == 0
    assert len(out.splitlines()) == 2


def test_of_records_of_one_command_the_last_counts(tmp_path, look):
    for run_id, status in (
        ("20260101T000000.000000Z-0a", "started"),
        ("20260102T000000.000000Z-0a", "complete"),
    ):
        record = _record(status, run_id=run_id, command=("evalkit", "score"))
        record.write(tmp_path / f"{run_id}.json")
    code, out, _err = look()
    assert code == 0
    assert len(out.splitlines()) == 2


def test_json(put, look):
    put(whole=(0, 2))
    code, out, _err = look("--json")
    data = json.loads(out)
    assert (code, data["exit_code"], data["schema"]) == (75, 75, "evalkit.status/1")
    (row,) = data["runs"]
    assert (row["state"], row["missing"], row["images_done"]) == ("running", "1,3-97", 1024)
    assert row["eta_seconds"] == 3918.1


def test_a_suite(tmp_path, look):
    cell = {"row": "a", "protocol": "p", "seed": 0, "exit_code": 0, "seconds": 1.0, "run_id": None}
    cells = {"1": {**cell, "status": "done"}, "2": {**cell, "status": "failed"}}
    (tmp_path / "suite.json").write_text(
        json.dumps({"schema": "evalkit.suite/1", "suite": "mine", "cells": cells})
    )
    code, out, _err = look()
    assert code == 5
    assert out == "suite mine in .: 1 done, 1 failed, 0 interrupted\n"


def test_watching_ends_when_nothing_runs(put, look, monkeypatch):
    put()
    monkeypatch.setattr("evalkit.cli.status.time.sleep", lambda _seconds: put(phase="done"))
    code, out, _err = look("--watch")
    assert code == 0
    assert out.count("subject") == 2
    assert out.index("running") < out.index("complete")


def test_a_file_that_is_cut_short_is_skipped(tmp_path, put, look):
    put(phase="done")
    (tmp_path / FOLDER / "other.json").write_text('{"schema": "evalk')
    code, out, err = look()
    assert code == 0
    assert "complete" in out
    assert "other.json: not valid JSON" in err
    assert err.rstrip().endswith("; skipped")


@pytest.mark.parametrize("folder", ["", "none"])
def test_where_there_is_nothing(tmp_path, capsys, folder):
    assert run(["status", str(tmp_path / folder)]) == 5
    err = capsys.readouterr().err
    assert "no run below" in err or "no folder at" in err
    assert "hint: " in err


def test_it_loads_neither_torch_nor_scipy(tmp_path, put):
    put()
    (tmp_path / "suite.json").write_text('{"suite": "s", "cells": {}}')
    code = f"from evalkit.cli.main import run; run(['status', {str(tmp_path)!r}])"
    probe = f"{code}\nimport sys; print('loaded', *sorted({{'torch', 'scipy', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"
    assert "ddpm" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "119 min"), (7260, "2 h 01 min"),
     (90_000, "25 h 00 min"), (200_000, "2 d 07 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_folder_is_not_changed(tmp_path: Path, put, look):
    put()
    before = sorted(tmp_path.rglob("*"))
    look()
    assert sorted(tmp_path.rglob("*")) == before
