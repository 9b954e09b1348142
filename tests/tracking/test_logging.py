"""Nothing that a tracker does can lose a record, spoil stdout, or change an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.record import RunRecord
from evalkit.tracking import Failure, log_record
from evalkit.tracking.trackers import Named, TrackerKind
from tests.tracking.fakes import FakeStore, make_record


class Loud:
    """Prints in every way there is, then does what it was told."""

    def __init__(self, error=None):
        self.error = error
        self.seen = []

    def log(self, record, path, *, step=None):
        print("printed")
        os.write(1, b"written to the descriptor\n")
        subprocess.run([sys.executable, "-I", "-S", "-c", "print('from a child')"], check=True)
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        self.seen.append((record.run_id, path, step))
        if self.error:
            raise self.error
        return "done"


@pytest.fixture
def written(tmp_path):
    record = make_record()
    path = tmp_path / "record.json"
    record.write(path)
    return record, path


def test_what_trackers_print_goes_to_stderr(written, capfd):
    record, path = written
    told = []
    tracker = Loud()
    assert log_record(record, [Named("loud", tracker)], path=path, notify=told.append, step=4) == ()
    print("mine")
    captured = capfd.readouterr()
    assert captured.out == "mine\n"
    for text in ("printed", "written to the descriptor", "from a child"):
        assert text in captured.err
    assert told == ["loud: done"]
    assert tracker.seen == [("run-1", path, 4)]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken\npipe"), SystemExit(3), MemoryError("no memory"), ImportError("no module")]
)
def test_a_tracker_that_fails_is_told_and_the_others_go_on(written, error):
    record, path = written
    before, told = path.read_bytes(), []
    trackers = [Named("first", Loud(error)), Named("second", Loud())]
    failures = log_record(record, trackers, path=path, notify=told.append)
    assert [failure.tracker for failure in failures] == ["first"]
    assert type(error).__name__ in failures[0].reason
    assert told[0].startswith(f"warning: first did not take the record ({type(error).__name__}: ")
    assert "\n" not in told[0]
    assert str(path) in told[0]
    assert told[1] == "second: done"
    assert path.read_bytes() == before


def test_a_keyboard_interrupt_goes_through(written):
    record, path = written
    with pytest.raises(KeyboardInterrupt):
        log_record(record, [Named("slow", Loud(KeyboardInterrupt()))], path=path, notify=print)


def test_secrets_are_kept_out_of_what_is_told(written, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "abcdef123456")
    record, path = written
    told = []
    error = RuntimeError("https://me:hunter2@host refused abcdef123456")
    (failure,) = log_record(record, [Named("x", Loud(error))], path=path, notify=told.append)
    assert isinstance(failure, Failure)
    assert "hunter2" not in told[0] + failure.reason
    assert "abcdef123456" not in told[0] + failure.reason


def test_a_long_reason_is_cut(written):
    record, path = written
    (failure,) = log_record(
        record, [Named("x", Loud(RuntimeError("y" * 9999)))], path=path, notify=lambda _: None
    )
    assert len(failure.reason) < 300


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for number in (2, 1):
            record = make_record(f"run-{number}", created_utc=f"2026-01-0{number}T00:00:00Z")
            record.write(tmp_path / "runs" / f"{number}.json")
        make_record("run-3", status="partial").write(tmp_path / "runs" / "3.json")
        (tmp_path / "runs" / "other.json").write_text("[1]")
        (tmp_path / "runs" / "broken.json").write_text("{")
        (tmp_path / "runs" / "deep.json").write_text("[" * 100_000)
        (tmp_path / "runs" / "folder.json").mkdir()
        return tmp_path

    def logged(self, folder):
        return [json.loads(line)["run_id"] for line in (folder / "l.jsonl").read_text().splitlines()]

    def test_folders_and_files_once_each_oldest_first(self, folder, capsys):
        assert run(["log", "runs", "runs/2.json", "--to", "jsonl:l.jsonl", "--step", "7"]) == 0
        assert self.logged(folder) == ["run-1", "run-2"]
        told = capsys.readouterr()
        assert told.out == ""
        assert "runs/3.json is partial, not complete; skipped" in told.err
        assert "runs/broken.json is not JSON; skipped" in told.err
        assert "runs/deep.json is not JSON; skipped" in told.err
        assert run(["log", "runs", "--to", "jsonl:l.jsonl"]) == 0
        assert "is there already" in capsys.readouterr().err
        assert self.logged(folder) == ["run-1", "run-2"]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["runs"], 2, "--to jsonl:PATH, mlflow[:URI]"),
            (["runs", "--to", "jsnl:x"], 2, "did you mean 'jsonl'?"),
            (["runs", "--to", "jsonl:x", "--step", "-1"], 2, "--step"),
            (["none", "--to", "jsonl:x"], 5, "no record or folder at none"),
            (["--to", "jsonl:x"], 5, "no complete record to log"),
            (["runs/3.json", "--to", "jsonl:x"], 5, "no complete record to log"),
            (["runs/broken.json", "--to", "jsonl:x"], 6, "not valid JSON"),
            (["runs/other.json", "--to", "jsonl:x"], 6, "this is not a record"),
        ],
    )
    def test_what_cannot_be_logged_has_its_code(self, folder, capsys, arguments, code, message):
        assert run(["log", *arguments]) == code
        assert message in capsys.readouterr().err
        assert not (folder / "x").exists()

    def test_a_record_with_nan_is_invalid_and_nothing_is_logged(self, folder, capsys):
        file = folder / "runs" / "1.json"
        file.write_text(file.read_text().replace("3.5", "NaN"))
        assert run(["log", "runs", "--to", "jsonl:l.jsonl"]) == 6
        assert "NaN is not JSON" in capsys.readouterr().err
        assert not (folder / "l.jsonl").exists()

    def test_a_tracker_that_fails_is_temporary_and_the_next_call_completes_it(
        self, folder, capsys, monkeypatch
    ):
        store = FakeStore(broken="log_artifact")
        for name, module in store.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        command = ["log", "runs", "--to", "mlflow:http://host", "--to", "jsonl:l.jsonl"]
        assert run(command) == 75
        told = capsys.readouterr().err
        assert "2 of 4 were not logged: mlflow:http://host" in told
        assert "secret" not in told
        assert self.logged(folder) == ["run-1", "run-2"]
        store.broken = ""
        assert run(command) == 0
        assert [run["status"] for run in store.runs.values()] == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


class TestScore:
    """`evalkit score --log`, on the bundled VAE and averaged pixels."""

    @pytest.fixture
    def command(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        images = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / "real.npz", images)
        return [
            *("score", "--model", "vae", "--protocol", "pixels", "--metrics", "kd", "--num-samples", "16"),
            *("--reference", "real.npz", "--device", "cpu", "--out", "runs", "--format", "json"),
        ]

    def test_the_record_is_logged_when_it_is_on_disk_and_stdout_stays_json(
        self, command, tmp_path, capfd, monkeypatch
    ):
        loud, broken = Loud(), Loud(SystemExit(9))
        kinds = {
            "loud": TrackerKind(form="loud", title="", build=lambda where: loud),
            "broken": TrackerKind(form="broken", title="", build=lambda where: broken),
        }
        from evalkit.tracking import trackers

        monkeypatch.setattr(trackers, "TRACKERS", {**trackers.TRACKERS, **kinds})
        assert run([*command, "--log", "loud", "--log", "broken", "--log", "jsonl:l.jsonl"]) == 0
        captured = capfd.readouterr()
        record = RunRecord.from_json(json.loads(captured.out))
        assert record.status == "complete"
        assert RunRecord.read(tmp_path / "runs" / f"{record.run_id}.json") == record
        assert [run_id for run_id, _, _ in loud.seen] == [record.run_id]
        assert json.loads((tmp_path / "l.jsonl").read_text())["kd_pixels/value"] == record.results[0].value
        assert "warning: broken did not take the record (SystemExit: 9)" in captured.err

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--log", "wanb"], "did you mean 'wandb'?"),
            (["--log", "jsonl"], "jsonl needs a place"),
            (["--log", "jsonl:l", "--until-decided", "--baseline", "x.json"], "--log does not go with"),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_sampled(
        self, command, tmp_path, capfd, more, message
    ):
        assert run([*command, *more]) == 2
        assert message in capfd.readouterr().err
        assert not (tmp_path / "runs").exists()
