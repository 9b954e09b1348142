"""How a baseline changes: what is written, what is kept, what is refused, and that nothing is ever lost."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.gate import acceptance
from evalkit.gate.acceptance import LOG, accept, check_acceptable
from evalkit.gate.baselines import find_baseline
from evalkit.record import RunRecord


def lines_of(folder):
    return [json.loads(line) for line in (folder / LOG).read_bytes().decode().split("\n") if line]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def old(scaled):
    return scaled("old")


@pytest.fixture
def new(scaled):
    return RunRecord.read(scaled("new", 1.1))


@pytest.fixture
def verdict(report, outcome):
    """A report about the baseline in a file."""

    def make(path, status="pass", **more):
        made = report(outcome(status, values=(1.5, 2.5)), **more)
        return replace(made, baseline=replace(made.baseline, run_id=RunRecord.read(path).run_id))

    return make


def test_a_file_is_replaced_and_the_old_one_kept(old, new, verdict):
    before = old.read_bytes()
    accepted = accept(new, str(old), report=verdict(old, "regression"), why="  new sampler\n")
    assert RunRecord.read(old) == new
    assert accepted.replaced.read_bytes() == before
    assert accepted.replaced == old.parent / "replaced" / "20270101T000000Z-old.json"
    (line,) = lines_of(old.parent)
    assert line == {
        "schema": "evalkit.accepted/1",
        "utc": accepted.line.utc,
        "baseline": "old.json",
        "model": "ddpm",
        "old_run_id": "20270101T000000Z-old",
        "run_id": "20270101T000000Z-new",
        "why": "new sampler",
        "verdict": "regression",
        "old_sha256": hashlib.sha256(before).hexdigest(),
        "new_sha256": digest(old),
        "values": [{"metric": "fd:efficientnet-lite0", "variant": "block", "old": 1.5, "new": 2.5}],
    }


def test_a_folder_grows_and_names_its_baseline(tmp_path, scaled, new, verdict):
    folder = tmp_path / "baselines"
    folder.mkdir()
    old = scaled("old").rename(folder / "old.json")
    before = old.read_bytes()
    accepted = accept(new, str(folder), report=verdict(old), why="better")
    assert accepted.record == folder / "20270101T000000Z-new.json"
    assert RunRecord.read(accepted.record) == new
    assert old.read_bytes() == before
    assert (accepted.line.old_sha256, accepted.line.new_sha256) == (digest(old), digest(accepted.record))
    newest = RunRecord.read(scaled("newest", created_utc="2028-01-01T00:00:00Z"))
    newest.write(folder / "newest.json")
    other = RunRecord.read(scaled("candidate"))
    assert find_baseline(str(folder), (other,)).side.run_id == new.run_id  # accepted, though not the newest


def test_a_run_of_the_folder_itself_is_named_and_not_copied(tmp_path, scaled, verdict):
    folder = tmp_path / "runs"
    (folder / "deep").mkdir(parents=True)
    old = scaled("old").rename(folder / "old.json")
    inside = scaled("new").rename(folder / "deep" / "x.json")
    accepted = accept(RunRecord.read(inside), str(folder), report=verdict(old), why="w")
    assert accepted.record == inside
    assert sorted(file.name for file in folder.rglob("*.json")) == ["old.json", "x.json"]
    assert accepted.line.new_sha256 == digest(inside)


@pytest.mark.parametrize("ref", ["baselines/first.json", "baselines"])
def test_where_there_is_none_the_first_baseline_is_begun(tmp_path, new, ref):
    accepted = accept(new, str(tmp_path / ref), report=None, why="the first")
    assert RunRecord.read(accepted.record) == new
    (line,) = lines_of(tmp_path / "baselines")
    assert (line["verdict"], line["old_run_id"], line["old_sha256"]) == ("first", None, None)
    assert [value["new"] for value in line["values"]] == [result.value for result in new.results]


def test_the_log_grows_by_a_line_each_time(old, scaled, verdict):
    reasons = ["one", "two\u2028three", "four"]
    for number, why in enumerate(reasons):
        accept(RunRecord.read(scaled(f"run{number}")), str(old), report=verdict(old), why=why)
    lines = lines_of(old.parent)
    assert [line["why"] for line in lines] == reasons
    assert [line["old_run_id"] for line in lines[1:]] == [line["run_id"] for line in lines[:-1]]
    assert len((old.parent / LOG).read_text(encoding="utf-8").splitlines()) == 3
    assert len(list((old.parent / "replaced").iterdir())) == 3


def test_another_old_file_of_the_same_name_is_not_overwritten(old, new, verdict):
    kept = old.parent / "replaced" / "20270101T000000Z-old.json"
    kept.parent.mkdir()
    kept.write_text("precious")
    accepted = accept(new, str(old), report=verdict(old), why="w")
    assert kept.read_text() == "precious"
    assert RunRecord.read(accepted.replaced).run_id == "20270101T000000Z-old"


def test_a_disk_that_is_full_changes_nothing(old, new, verdict, monkeypatch):
    accept(new, str(old), report=verdict(old), why="w")
    before, log = old.read_bytes(), (old.parent / LOG).read_bytes()
    write = acceptance.write_atomically

    def full(path, content):
        if path == old:
            raise TemporaryError("disk full")
        write(path, content)

    monkeypatch.setattr(acceptance, "write_atomically", full)
    another = replace(new, run_id="another")
    with pytest.raises(TemporaryError, match="disk full"):
        accept(another, str(old), report=verdict(old), why="w")
    assert (old.read_bytes(), (old.parent / LOG).read_bytes()) == (before, log)


def test_a_first_line_is_taken_back_whole(tmp_path, new, monkeypatch):
    write = acceptance.write_atomically

    def full(path, content):
        if path.suffix == ".json":
            raise TemporaryError("disk full")
        write(path, content)

    monkeypatch.setattr(acceptance, "write_atomically", full)
    with pytest.raises(TemporaryError, match="disk full"):
        accept(new, str(tmp_path / "b.json"), report=None, why="w")
    assert not (tmp_path / LOG).exists()


@pytest.mark.parametrize("as_folder", [False, True])
def test_of_two_at_once_one_is_told_to_look_again(old, scaled, verdict, tmp_path, as_folder):
    place = old
    if as_folder:
        place = tmp_path / "folder"
        place.mkdir()
        old = old.rename(place / "old.json")
        accept(RunRecord.read(old), str(place), report=None, why="the first")
    judged = verdict(old)  # by both, before either accepts
    runs = [RunRecord.read(scaled(f"run{i}")) for i in range(4)]

    def attempt(record):
        try:
            return accept(record, str(place), report=judged, why="mine")
        except TemporaryError as error:
            return error.hint

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(attempt, runs))
    done = [accepted for accepted in found if not isinstance(accepted, str)]
    assert len(done) == 1
    assert found.count("another run was accepted meanwhile; run the gate again") == 3
    lines = lines_of(done[0].log.parent)
    assert lines[-1]["run_id"] == done[0].line.run_id
    assert len(lines) == 1 + as_folder


def test_of_two_first_ones_at_once_the_second_is_told(tmp_path, scaled):
    place = str(tmp_path / "folder")
    one, other = (RunRecord.read(scaled(name)) for name in ("one", "other"))
    gan = RunRecord.read(scaled("gan", model="cgan"))
    accept(one, place, report=None, why="the first")
    with pytest.raises(TemporaryError, match=f"is now {one.run_id}, where there was none"):
        accept(other, place, report=None, why="the first, it was thought")
    accept(gan, place, report=None, why="the first of its model")
    assert [line["run_id"] for line in lines_of(tmp_path / "folder")] == [one.run_id, gan.run_id]
    (tmp_path / "folder" / f"{one.run_id}.json").unlink()
    accept(other, place, report=None, why="the record of the first is gone")
    assert find_baseline(place, (one,)).side.run_id == other.run_id


def test_each_of_the_models_of_a_folder_has_its_own_baseline(tmp_path, scaled, verdict):
    place = tmp_path / "baselines"
    for model in ("ddpm", "cgan"):
        first = RunRecord.read(scaled(model, model=model))
        accept(first, str(place / f"{model}.json"), report=None, why="the first")
    better = RunRecord.read(scaled("better"))
    accept(better, str(place), report=verdict(place / "ddpm.json"), why="better")
    for model, run_id in (("ddpm", better.run_id), ("cgan", "20270101T000000Z-cgan")):
        candidate = RunRecord.read(scaled("candidate", model=model))
        assert find_baseline(str(place), (candidate,)).side.run_id == run_id


@pytest.mark.parametrize("why", ["", "  \n"])
def test_a_reason_is_needed(why):
    with pytest.raises(UsageError, match="reason"):
        check_acceptable("x.json", why)


def test_a_leaderboard_is_not_changed_by_a_gate(tmp_path, new):
    records = tmp_path / "board" / "records"
    records.mkdir(parents=True)
    (records.parent / "board.toml").write_text("")
    (records.parent / "scores.csv").write_text("")
    for ref in (f"{records.parent}/scores.csv#ddpm", f"{records.parent}/scores.csv", str(records)):
        with pytest.raises(UsageError, match="leaderboard") as caught:
            accept(new, ref, report=None, why="w")
        assert "evalkit leaderboard add" in caught.value.hint
    assert not list(records.iterdir())


def test_what_is_accepted_already_is_not_accepted_again(old, verdict):
    before = old.read_bytes()
    with pytest.raises(UsageError, match="already"):
        accept(RunRecord.read(old), str(old), report=verdict(old), why="w")
    assert old.read_bytes() == before
    assert not (old.parent / LOG).exists()


@pytest.mark.parametrize("status", ["started", "partial", "error"])
def test_what_is_not_complete_is_refused(old, new, verdict, status):
    with pytest.raises(InvalidInputError, match=f"{status}, not complete"):
        accept(replace(new, status=status), str(old), report=verdict(old), why="w")
    assert RunRecord.read(old).run_id == "20270101T000000Z-old"


def test_two_records_of_one_run_id_are_not_mixed(tmp_path, new):
    folder = tmp_path / "folder"
    replace(new, notes="edited by hand").write(folder / "a.json")
    with pytest.raises(InvalidInputError, match="another record"):
        accept(new, str(folder), report=None, why="w")
    assert not (folder / LOG).exists()


def test_a_run_id_cannot_lead_out_of_the_folder(tmp_path, new):
    folder = tmp_path / "folder"
    folder.mkdir()
    accepted = accept(replace(new, run_id="a/../../b"), str(folder), report=None, why="w")
    assert accepted.record.parent == folder


def test_a_place_that_cannot_be_written_is_temporary(tmp_path, new):
    (tmp_path / "file").write_text("")
    with pytest.raises(TemporaryError, match="cannot write"):
        accept(new, str(tmp_path / "file" / "b.json"), report=None, why="w")
