"""``evalkit score --log json``: what a program reads of a run, and that it cannot harm it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from evalkit.cli.event_log import EventLog, take_event_log
from evalkit.cli.main import run
from evalkit.cli.sharing import Sharing, console_of
from evalkit.distribution.ranks import Rank
from evalkit.errors import UsageError
from evalkit.events import Note, PhaseBegan, RunFinished, RunStarted, schema
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds
from evalkit.telling import ended_by

TOY = "evalkit.generators.toy:make"
_SECOND = "20260102T000000.000000Z-0b"
_STARTED = RunStarted(
    run="20260101T000000.000000Z-0a", evalkit="1", subject="vae", protocol="pixels", out="out", pid=7,
    host="h", part=0, parts=1, command=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(64))).numpy(), labels=None)
    return path


@pytest.fixture
def score(reference, tmp_path):
    def call(*arguments: str) -> int:
        fixed = ["score", "--model", TOY, "--protocol", "pixels", "--metrics", "fd", "--num-samples", "64"]
        return run([*fixed, "--reference", str(reference), "--out", str(tmp_path / "out"), *arguments])

    return call


def _events(text: str) -> list[dict]:
    events = [json.loads(line) for line in text.splitlines()]
    validator = jsonschema.Draft202012Validator(schema())
    for event in events:
        validator.validate(event)
    return events


def test_stderr_holds_events_and_nothing_else(score, capsys):
    assert score("--log", "json") == 0
    out, err = capsys.readouterr()
    events = _events(err)
    assert events[0]["event"] == "run_started"
    assert [event["event"] for event in events][-2:] == ["run_finished", "note"]
    assert len({event["run"] for event in events}) == 1
    assert "fd:pixels" in out


def test_an_error_is_the_last_event_and_keeps_its_code(score, capsys):
    assert score("--log", "json", "--num-samples", "1") == 6
    events = _events(capsys.readouterr().err)
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("run_failed", 6)
    assert [event["event"] for event in events].count("run_failed") == 1


def test_what_is_refused_before_the_run_is_an_event_too(score, capsys):
    assert score("--log", "json", "--seed", "-1") == 2
    (event,) = _events(capsys.readouterr().err)
    assert (event["event"], event["run"], event["error"]) == ("run_failed", None, "UsageError")
    assert "--seed must not be negative" in event["text"]


def test_a_file_takes_the_events_of_run_after_run_and_people_read_on(score, capsys, tmp_path):
    log = tmp_path / "logs" / "run.jsonl"
    assert score("--log", f"json:{log}") == 0
    assert score("--log", f"json:{log}", "--seed", "1") == 0
    assert "evalkit: record: " in capsys.readouterr().err
    events = _events(log.read_text())
    starts = [event["run"] for event in events if event["event"] == "run_started"]
    assert len(set(starts)) == 2
    assert {event["run"] for event in events} == set(starts)


def test_an_error_is_in_the_file_and_on_the_screen(score, capsys, tmp_path):
    log = tmp_path / "run.jsonl"
    assert score("--log", f"json:{log}", "--num-samples", "1") == 6
    assert "needs at least" in capsys.readouterr().err
    assert _events(log.read_text())[-1]["event"] == "run_failed"


def test_what_a_command_says_after_its_error_does_not_repeat_it(tmp_path):
    log = EventLog(tmp_path / "log")
    error = UsageError("no")
    for event in (_STARTED, ended_by(error), Note(level="warning", text="the store does not answer")):
        log.write(event)
    log.failed(error)
    assert [event["event"] for event in _events((tmp_path / "log").read_text())].count("run_failed") == 1


def test_every_run_of_a_process_tells_of_its_own_error(tmp_path):
    log = EventLog(tmp_path / "log")
    for event in (_STARTED, ended_by(UsageError("one")), replace(_STARTED, run=_SECOND)):
        log.write(event)
    log.failed(UsageError("two"))
    events = _events((tmp_path / "log").read_text())
    failed = [(event["run"], event["text"]) for event in events if event["event"] == "run_failed"]
    assert failed == [(_STARTED.run, "one"), (_SECOND, "two")]


def test_an_error_after_a_finished_run_is_told(tmp_path):
    log = EventLog(tmp_path / "log")
    log.write(_STARTED)
    log.write(RunFinished(status="complete", seconds=1.0, fingerprint="f" * 64, record="r.json", scores=()))
    log.failed(UsageError("the tracker does not answer"))
    assert _events((tmp_path / "log").read_text())[-1]["event"] == "run_failed"


@pytest.mark.parametrize("index", [0, 1])
def test_of_ranks_the_first_writes_the_log(tmp_path, index):
    sharing = Sharing(part=None, rank=Rank(index=index, world=2, local=index, local_world=2))
    with console_of(sharing, EventLog(tmp_path / "log")) as (console, _stop):
        console.tell(replace(_STARTED, part=index, parts=2))
        console.note("warning: x")
    events = _events((tmp_path / "log").read_text())
    assert [event["event"] for event in events] == ([] if index else ["run_started", "note"])


def test_trackers_stay_what_they_were(score, capsys, tmp_path):
    assert score("--log", "json", "--log", f"jsonl:{tmp_path}/records.jsonl") == 0
    events = _events(capsys.readouterr().err)
    assert any("added" in event.get("text", "") for event in events)
    assert json.loads((tmp_path / "records.jsonl").read_text())["status"] == "complete"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_once_and_ends_nothing(score, capsys):
    assert score("--log", "json:/dev/full") == 0
    err = capsys.readouterr().err
    assert err.count("cannot write to /dev/full: No space left on device; the run goes on") == 1


def test_no_secret_reaches_the_log(score, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    assert score("--log", "json", "--name", "hf_verysecretvalue") == 0
    assert "verysecret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["json", "json:a"], "one log of events is enough"),
        (["json:"], "needs a file"),
        (["json:/proc/nothing/here.jsonl"], "cannot write to"),
    ],
)
def test_what_cannot_be_logged_to_is_refused(texts, message):
    with pytest.raises(UsageError, match=message) as caught:
        take_event_log(texts)
    assert caught.value.hint


def test_other_values_name_trackers(tmp_path):
    log, others = take_event_log(["wandb", f"json:{tmp_path}/a", "jsonl:b"])
    assert others == ("wandb", "jsonl:b")
    assert log is not None
    assert not log.on_stderr
    log.close()
    assert take_event_log(["mlflow"]) == (None, ("mlflow",))


def test_lines_of_several_writers_are_whole(tmp_path):
    logs = [EventLog(tmp_path / "log") for _ in range(3)]
    for number in range(30):
        logs[number % 3].write(Note(level="info", text="x" * 500))
    for log in logs:
        log.close()
        assert log.write(PhaseBegan(phase="scoring")) == "", "nothing is written any more"
    assert len(_events((tmp_path / "log").read_text())) == 30
