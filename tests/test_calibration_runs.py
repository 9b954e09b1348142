"""Calibration of a model: runs that are kept and gone on with, rounding, and what is told of it all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evalkit.calibration import CalibrationRequest, Rounding, calibrate
from evalkit.calibration.real import DEFAULT, TOGETHER
from evalkit.calibration.rounding import rounding, variations
from evalkit.calibration.runs import _OneBar, folder_of, measured
from evalkit.calibration.synthetic import (
    CASES,
    record_of_influences,
)
from evalkit.calibration.tables import tables, to_data, verdict
from evalkit.console import Silent
from evalkit.errors import NotComparableError, NothingMeasuredError, UsageError
from evalkit.events import PhaseBegan
from evalkit.extraction import Interrupted
from evalkit.gate.facts import Rule
from evalkit.gate.rules import parse_rule
from evalkit.reporting.rendering import to_markdown, to_terminal
from evalkit.request import ScoreRequest


class FakeRunner:
    """Writes records as a run does, and counts."""

    def __init__(self, change=None, fail_at=None):
        self.asked, self.change, self.fail_at = [], change, fail_at

    def __call__(self, request, *, console, stop):
        if self.fail_at == len(self.asked):
            raise OSError("the disk is gone")
        self.asked.append(request)
        rng = np.random.default_rng(request.seed)
        record = record_of_influences(rng.standard_normal((2, request.num_samples)), base_seed=request.seed)
        if self.change:
            record = self.change(record, request)
        with console.progress("sampling", request.num_samples) as advance:
            advance(request.num_samples)
        request.out.mkdir(parents=True, exist_ok=True)
        record.write(request.out / f"{record.run_id}.json")
        return record


@pytest.fixture
def request_(tmp_path):
    return ScoreRequest(model="cgan", num_samples=64, out=tmp_path)


def _measured(request, seeds, runner, stop=lambda: 0, console=None):
    return measured(
        request, seeds, folder=folder_of(request), title="runs", console=console or Silent(), stop=stop,
        runner=runner,
    )  # fmt: skip


def test_a_second_call_measures_only_what_is_missing(request_):
    first = FakeRunner(fail_at=3)
    with pytest.raises(OSError, match="gone"):
        _measured(request_, range(5), first)
    second = FakeRunner()
    records = _measured(request_, range(5), second)
    assert [request.seed for request in second.asked] == [3, 4]
    assert [record.sampling.seeds.base for record in records] == [0, 1, 2, 3, 4]
    third = FakeRunner()
    assert _measured(request_, range(5), third) == records
    assert not third.asked


def test_a_record_cut_short_is_measured_again(request_):
    records = _measured(request_, range(2), FakeRunner())
    (folder_of(request_) / f"{records[0].run_id}.json").write_text('{"schema": "evalkit.run/1", ')
    (folder_of(request_) / "notes.json").write_bytes(b"\xff\xfe")
    again = FakeRunner()
    _measured(request_, range(2), again)
    assert [request.seed for request in again.asked] == [0]


def test_an_unfinished_run_does_not_count(request_):
    (record,) = _measured(request_, [0], FakeRunner())
    replace(record, status="partial").write(folder_of(request_) / f"{record.run_id}.json")
    again = FakeRunner()
    _measured(request_, [0], again)
    assert len(again.asked) == 1


def test_a_signal_stops_between_runs(request_):
    runner = FakeRunner()
    with pytest.raises(Interrupted) as caught:
        _measured(request_, range(5), runner, stop=lambda: 15 if len(runner.asked) == 2 else 0)
    assert caught.value.exit_code == 143
    assert len(runner.asked) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "vae"},
        {"num_samples": 128},
        {"protocol": "pixels"},
        {"metrics": ("kd",)},
        {"reference": "x"},
        {"checkpoint_weights": "raw"},
    ],
)
def test_other_runs_lie_elsewhere(request_, change):
    assert folder_of(replace(request_, **change)) != folder_of(request_)


def test_what_moves_no_score_moves_no_folder(request_, tmp_path):
    for change in ({"seed": 9}, {"batch_size": 3}, {"fresh": True}, {"device": "cpu"}):
        assert folder_of(replace(request_, **change)) == folder_of(request_)
    ckpt = tmp_path / "x.safetensors"
    ckpt.write_bytes(b"one")
    one = folder_of(replace(request_, ckpt=ckpt))
    ckpt.write_bytes(b"two")
    assert folder_of(replace(request_, ckpt=ckpt)) != one  # the weights count, not the name


def test_runs_of_two_models_are_no_trial(request_):
    def renamed(record, request):
        return replace(record, model=replace(record.model, sha256=f"{request.seed:064x}"))

    with pytest.raises(UsageError, match="several models"):
        _measured(request_, range(2), FakeRunner(renamed))


def test_runs_of_two_protocols_are_no_trial(request_):
    def other(record, request):
        fields = {**record.protocol.fields, "numerics_version": str(request.seed)}
        return replace(
            record, protocol=replace(record.protocol, fields=fields, fingerprint=f"{request.seed}")
        )

    with pytest.raises(NotComparableError):
        _measured(request_, range(2), FakeRunner(other))


class CountingConsole(Silent):
    """Counts what a bar of each title was told."""

    def __init__(self):
        self.bars, self.notes = {}, []

    def note(self, text):
        self.notes.append(text)

    def progress(self, title, total):
        from contextlib import contextmanager

        @contextmanager
        def bar():
            self.bars[title] = [0, total]

            def advance(done):
                self.bars[title][0] += done

            yield advance

        return bar()


def test_one_bar_for_all_runs(request_):
    console = CountingConsole()
    _measured(request_, range(3), FakeRunner(), console=console)
    assert console.bars == {"runs": [192, 192]}
    _measured(request_, range(5), FakeRunner(), console=console)
    assert console.bars == {"runs": [320, 320]}
    assert "3 of 5 are in" in console.notes[-1]


def test_rounding_names_the_largest_difference_and_where(request_):
    def moved(record, request):
        if request.batch_size is None:
            return record
        first, second = record.results
        factor = 1 + (3e-5 if request.batch_size == 1 else 1e-6)
        return replace(record, results=(replace(first, value=first.value * factor), second))

    records = _measured(request_, range(2), FakeRunner())
    found = rounding(records, request_, console=Silent(), stop=lambda: 0, runner=FakeRunner(moved))
    assert [row.name for row in found] == ["distance-0", "distance-1"]
    assert found[0].relative == pytest.approx(3e-5, rel=1e-6)
    assert found[0].how.startswith("batches of 1,")
    assert found[1] == Rounding("distance-1", "", 0.0, "")


def test_rounding_of_a_score_of_zero(request_):
    def zero(record, request):
        return replace(
            record,
            results=tuple(
                replace(result, value=0.0 if request.batch_size != 7 or number else 1e-9)
                for number, result in enumerate(record.results)
            ),
        )

    records = _measured(request_, [0], FakeRunner(zero))
    found = rounding(records, request_, console=Silent(), stop=lambda: 0, runner=FakeRunner(zero))
    assert [row.relative for row in found] == [1.0, 0.0]


def test_rounding_changes_threads_and_puts_them_back(request_):
    import torch

    before, seen = torch.get_num_threads(), []

    def watch(record, request):
        seen.append((request.batch_size, torch.get_num_threads()))
        return record

    records = _measured(request_, [0], FakeRunner())
    rounding(records, request_, console=Silent(), stop=lambda: 0, runner=FakeRunner(watch))
    assert seen == [(how["batch"], how["threads"]) for how in variations()]
    assert {threads for _, threads in seen} == {before, 1 if before > 1 else 2}
    assert torch.get_num_threads() == before


def _calibration(request, **changes):
    asked = CalibrationRequest(score=request, **{"trials": 3, "synthetic": 2, **changes})
    return calibrate(asked, console=Silent(), runner=FakeRunner())


def test_everything_is_told(request_):
    found = _calibration(request_)
    assert len(found.records) == 6
    assert len(found.synthetic) == len(CASES)
    texts = [to_terminal(table) for table in tables(found)]
    assert [text.split(" ·")[0] for text in texts] == ["Synthetic trials", "Real trials", "Rounding"]
    assert all(max(map(len, text.splitlines())) <= 100 for text in texts)
    data = to_data(found)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["runs"] == [record.run_id for record in found.records]
    assert [row["rule"] for row in data["real"]] == ["distance-0", "distance-1", TOGETHER, DEFAULT]
    assert all("| false alarms |" in to_markdown(table) for table in tables(found)[:2])
    assert verdict(found).startswith("Calibrated")


def test_parts_can_be_left_out(request_):
    only_synthetic = _calibration(request_, trials=0)
    assert len(tables(only_synthetic)) == 1
    assert not only_synthetic.records
    only_real = _calibration(request_, synthetic=0)
    assert [table.title.split(" ·")[0] for table in tables(only_real)] == ["Real trials", "Rounding"]


def test_a_rule_of_what_is_never_measured_is_refused_after_the_first_run(request_):
    runner = FakeRunner()
    asked = CalibrationRequest(score=request_, trials=30, rules=(parse_rule("fidd"),))
    with pytest.raises(NothingMeasuredError, match="'fidd'"):
        calibrate(asked, console=Silent(), runner=runner)
    assert len(runner.asked) == 1


def test_what_does_not_hold_is_named(request_):
    found = _calibration(request_, trials=20, synthetic=0, rules=(parse_rule("distance-0 abs"),))
    assert not found.calibrated
    assert "distance-0 abs" in verdict(found)
    assert "FAILS" in to_terminal(tables(found)[0])
    assert to_data(found)["calibrated"] is False


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trials": 0, "synthetic": 0}, "nothing to calibrate"),
        ({"trials": -1}, "negative"),
        ({"alpha": 0.6}, "alpha"),
        ({"rules": (Rule(metric="kd"), Rule(metric="kd"))}, "twice"),
    ],
)
def test_requests_that_cannot_work(request_, changes, says):
    with pytest.raises(UsageError, match=says):
        _calibration(request_, **changes)


@pytest.mark.parametrize("images", [None, 8, 31])
def test_too_few_images(request_, images):
    with pytest.raises(UsageError, match="at least 32"):
        _calibration(replace(request_, num_samples=images))


def test_a_bar_of_its_own_passes_events_on():
    told = []

    class Listening(CountingConsole):
        def tell(self, event):
            told.append(event)

    event = PhaseBegan(phase="scoring")
    _OneBar(Listening(), images=4, advance=lambda _images: None).tell(event)
    assert told == [event]
