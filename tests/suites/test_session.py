"""Suites with real processes of a program that behaves like ``evalkit score``: resume, failures, signals."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace

import pytest
from filelock import FileLock

from evalkit.errors import InvalidInputError, TemporaryError
from evalkit.record import RunRecord
from evalkit.suites import missing_cells, run_suite
from evalkit.suites.manifest import MANIFEST, read_manifest, record_path, records_of
from evalkit.suites.processes import command_of
from tests.suites.stage import make_cell

CELLS = [make_cell(row, seed) for row in ("a", "b") for seed in (0, 1)]


def run(stage, cells=CELLS, **more):
    told = []
    options = {name: more.pop(name) for name in ("stop",) if name in more}
    outcome = run_suite(cells, stage.orders(**more), suite="toy", tell=told.append, **options)
    return outcome, told


def test_every_cell_has_one_record_and_the_manifest_says_so(stage):
    outcome, told = run(stage)
    assert outcome.exit_code == 0
    assert list(outcome.records) == [cell.key for cell in CELLS]
    assert [finished.cell for finished in told] == CELLS
    manifest = read_manifest(stage.folder, suite="toy")
    for cell in CELLS:
        state = manifest.cells[cell.key]
        assert (state.status, state.exit_code, state.row, state.seed) == ("done", 0, cell.row, cell.seed)
        record = RunRecord.read(record_path(stage.folder, state.run_id))
        assert record == outcome.records[cell.key]
        assert record.model.id == cell.row
    assert len(list((stage.folder / "records").glob("*.json"))) == len(CELLS)
    assert not list((stage.folder / "logs").glob("*.out"))


def test_a_second_call_runs_nothing_and_finds_the_same(stage):
    first, _ = run(stage)
    again, told = run(stage)
    assert told == []
    assert again.records == first.records
    assert len(stage.started) == len(CELLS)


def test_only_what_failed_runs_again(stage):
    stage.acts = {"b": "exit 6"}
    outcome, told = run(stage)
    assert outcome.exit_code == 6
    assert [finished.state.status for finished in told] == ["done", "done", "failed", "failed"]
    assert told[2].last_words == ("loading b", "evalkit: it went wrong", "hint: look closer")
    assert "look closer" in told[2].log.read_text()
    stage.acts = {}
    outcome, told = run(stage)
    assert [finished.cell for finished in told] == CELLS[2:]
    assert outcome.exit_code == 0
    assert list(outcome.records) == [cell.key for cell in CELLS]


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("exit 2", 2),
        ("exit 75", 75),
        ("crash", 70),
        ("killed", 75),
        ("lost", 70),
        ("partial", 70),
        ("mute", 70),
    ],
)
def test_a_cell_that_fails_does_not_stop_the_others(stage, act, code):
    stage.acts = {"a": act}
    outcome, told = run(stage, [make_cell("a"), make_cell("b")])
    assert outcome.exit_code == code
    assert [finished.state.exit_code for finished in told] == [code, 0]
    assert set(outcome.records) == {make_cell("b").key}


def test_the_code_of_the_suite_is_that_of_the_first_cell_of_the_file_that_failed(stage):
    stage.acts = {"a": "exit 6", "b": "exit 2"}
    assert run(stage, [make_cell("b"), make_cell("a")])[0].exit_code == 2
    assert run(stage, [make_cell("a"), make_cell("b")])[0].exit_code == 6


def test_fail_fast_starts_nothing_more(stage):
    stage.acts = {"a": "exit 6"}
    outcome, told = run(stage, [make_cell("a"), make_cell("b")], fail_fast=True)
    assert len(told) == 1
    assert outcome.exit_code == 6


def test_text_before_the_record_does_no_harm(stage):
    stage.acts = {"a": "noisy"}
    assert run(stage, [make_cell("a")])[0].exit_code == 0


def test_cells_that_share_a_lock_all_get_done(stage):
    stage.acts = {"a": "busy", "b": "busy"}
    outcome, told = run(stage, jobs=3)
    assert outcome.exit_code == 0
    assert len(told) == len(CELLS)
    assert len(stage.started) > len(CELLS)


def test_fresh_forgets_everything_and_with_only_just_those_rows(stage):
    run(stage)
    _, told = run(stage, fresh=True)
    assert len(told) == len(CELLS)
    assert command_of(CELLS[0], stage.folder, device="auto", fresh=True)[-1] == "--fresh"
    outcome, told = run(stage, fresh=True, only=("b",))
    assert [finished.cell.row for finished in told] == ["b", "b"]
    assert set(outcome.records) == {cell.key for cell in CELLS}


def test_only_runs_its_rows_and_the_rest_stays_missing(stage):
    outcome, told = run(stage, only=("b",))
    assert [finished.cell.row for finished in told] == ["b", "b"]
    assert outcome.exit_code == 0
    assert missing_cells(CELLS, stage.orders(), suite="toy") == tuple(CELLS[:2])
    assert missing_cells(CELLS, stage.orders(only=("b",)), suite="toy") == ()
    assert len(missing_cells(CELLS, stage.orders(fresh=True), suite="toy")) == len(CELLS)


@pytest.mark.parametrize("damage", ["gone", "cut", "partial"])
def test_a_record_that_is_not_whole_is_measured_again(stage, damage):
    first, _ = run(stage, [make_cell("a")])
    (record,) = first.records.values()
    path = record_path(stage.folder, record.run_id)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_text(path.read_text()[:100])
    else:
        replace(record, status="partial").write(path)
    _, told = run(stage, [make_cell("a")])
    assert [finished.state.status for finished in told] == ["done"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "schema is None"),
        ('{"schema": "evalkit.suite/9", "suite": "toy", "cells": {}}', "'evalkit.suite/9'"),
        ('{"schema": "evalkit.suite/1", "suite": "toy", "cells": {}, "more": 1}', "unknown key 'more'"),
        ('{"schema": "evalkit.suite/1", "suite": "other", "cells": {}}', "belongs to the suite 'other'"),
    ],
)
def test_a_manifest_that_is_not_this_suites_is_refused_and_kept(stage, text, message):
    stage.folder.mkdir()
    (stage.folder / MANIFEST).write_text(text)
    with pytest.raises(InvalidInputError, match=message) as error:
        run(stage)
    assert "--fresh" in error.value.hint
    assert (stage.folder / MANIFEST).read_text() == text
    assert run(stage, fresh=True)[0].exit_code == 0


def test_one_suite_at_a_time_works_in_a_folder(stage):
    stage.folder.mkdir()
    with FileLock(stage.folder / f".{MANIFEST}.lock"), pytest.raises(TemporaryError, match="another suite"):
        run(stage)


def test_a_folder_that_cannot_be_made_is_temporary(stage):
    stage.folder.write_text("a file")
    with pytest.raises(TemporaryError, match="cannot write to"):
        run(stage)


def test_a_program_that_cannot_start_is_temporary(stage):
    orders = replace(stage.orders(), program=("/nowhere/python",))
    with pytest.raises(TemporaryError, match="cannot start a · pixels · seed 0"):
        run_suite(CELLS, orders, suite="toy")


def stop_when_ready(stage, number, ready):
    """A stop function that raises its hand once ``ready`` cells wait."""

    def stop():
        logs = (stage.folder / "logs").glob("*.txt") if stage.folder.is_dir() else ()
        return number if sum("ready" in log.read_text() for log in logs) >= ready else 0

    return stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_cells_flush_and_the_next_call_resumes(stage, number, code):
    stage.acts = {"b": "wait"}
    outcome, told = run(stage, jobs=2, stop=stop_when_ready(stage, number, 2))
    assert outcome.exit_code == code
    stopped = [finished for finished in told if finished.state.status == "interrupted"]
    assert [finished.state.exit_code for finished in stopped] == [code, code]
    assert all("flushed" in finished.log.read_text() for finished in stopped)
    assert {cell.key for cell in CELLS[:2]} <= set(outcome.records)
    stage.acts = {}
    outcome, told = run(stage)
    assert [finished.cell for finished in told] == CELLS[2:]
    assert outcome.exit_code == 0


@pytest.fixture
def python_answers_ctrl_c():
    """As on a terminal: what is started in the background inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_answers_ctrl_c")
def test_nothing_outlives_a_second_signal(stage):
    stage.acts = {"a": "stubborn"}
    ready = stop_when_ready(stage, signal.SIGINT, 1)
    main = threading.main_thread().ident

    def press_again():
        time.sleep(0.3)
        signal.pthread_kill(main, signal.SIGINT)

    pressed = []

    def stop():
        number = ready()
        if number and not pressed:
            pressed.append(1)
            threading.Thread(target=press_again).start()
        return number

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(stage, [make_cell("a")], stop=stop)
    assert time.monotonic() - began < 20  # the cell itself would sleep for 60 s


def test_an_error_while_telling_leaves_no_process_behind(stage):
    stage.acts = {"b": "stubborn"}

    def fail(_finished):
        raise RuntimeError("no screen")

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="no screen"):
        run_suite([make_cell("a"), make_cell("b")], stage.orders(jobs=2), suite="toy", tell=fail)
    assert time.monotonic() - began < 20
    assert set(read_manifest(stage.folder, suite="toy").cells) == {make_cell("a").key}


def test_devices_and_threads_reach_the_cells(stage, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("evalkit.suites.processes._cores", lambda: 8)
    run(stage, jobs=2, devices=("cpu",))
    assert [(device, threads) for _, _, device, threads in stage.started] == [("cpu", "4")] * 4


def test_states_without_a_run_or_not_done_have_no_record(stage):
    run(stage, [make_cell("a")])
    manifest = read_manifest(stage.folder, suite="toy")
    (key,) = manifest.cells
    for change in ({"run_id": None}, {"status": "failed"}, {"run_id": "gone"}):
        states = {key: replace(manifest.cells[key], **change)}
        assert records_of(stage.folder, replace(manifest, cells=states), [make_cell("a")]) == {}


def test_the_manifest_is_strict_json_that_people_can_read(stage):
    run(stage, [make_cell("a")])
    text = (stage.folder / MANIFEST).read_text()
    data = json.loads(text)
    assert data["schema"] == "evalkit.suite/1"
    assert data["suite"] == "toy"
    assert text.endswith("\n")
