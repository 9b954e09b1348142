"""``evalkit leaderboard`` from the command line: what it says, and the exit code it leaves with."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from evalkit.cli.main import run
from evalkit.leaderboard import storage
from evalkit.leaderboard.storage import locked, read_stored


@pytest.fixture
def call(capsys):
    def call(*arguments):
        code = run(["leaderboard", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def record_file(tmp_path, make_record):
    def record_file(*arguments, **changes):
        record = make_record(*arguments, **changes)
        path = tmp_path / "runs" / f"{record.run_id}.json"
        record.write(path)
        return path

    return record_file


@pytest.fixture
def folder(tmp_path, call):
    assert call("new", tmp_path / "b", "--title", "Toys")[0] == 0
    return tmp_path / "b"


def test_from_a_new_board_to_a_checked_one(folder, call, record_file, tmp_path):
    Image.new("RGB", (64, 32), "red").save(tmp_path / "g.png")
    code, _, err = call(
        "add", record_file("a"), "--board", folder, "--samples", tmp_path / "g.png", "--notes", "n"
    )
    assert code == 0
    assert "added 20260101T000000Z-a" in err
    assert f"wrote {folder / 'index.html'}" in err
    assert call("check", folder) == (0, "", f"{folder} is up to date\n")
    code, _, err = call("add", record_file("a"), "--board", folder)
    assert (code, "already there: 20260101T000000Z-a" in err, "is up to date" in err) == (0, True, True)
    code, out, _ = call("show", folder)
    assert code == 0
    assert "a " in out
    assert "data:image/webp" in (folder / "index.html").read_text()


def test_a_stale_board_exits_with_one_and_says_how_to_mend_it(folder, call, record_file):
    call("add", record_file("a"), "--board", folder)
    assert call("add", record_file("b", 3.0), "--board", folder, "--no-build")[0] == 0
    code, out, err = call("check", folder)
    assert code == 1
    assert f"{folder / 'scores.csv'}: " in out
    assert f"mend: evalkit leaderboard build {folder}" in err
    assert call("build", folder)[0] == call("check", folder)[0] == 0


def test_an_edited_record_exits_with_one(folder, call, record_file):
    call("add", record_file("a"), "--board", folder)
    path = next((folder / "records").iterdir())
    path.write_text(path.read_text().replace('"value": 2.0', '"value": 1.0'))
    code, out, err = call("check", folder)
    assert (code, "was changed after it was published" in out, "git restore" in err) == (1, True, True)


def test_a_folder_of_records_adds_its_complete_ones(folder, call, record_file, tmp_path):
    record_file("a")
    record_file("b")
    record_file("c", status="started")
    (tmp_path / "runs" / "other.json").write_text('{"schema": "evalkit.samples/1"}')
    (tmp_path / "runs" / "broken.json").write_text("{")
    code, _, err = call("add", tmp_path / "runs", "--board", folder, "--no-build")
    assert code == 0
    assert "1 of 3 records" in err
    assert "broken.json is not JSON" in err
    assert len(read_stored(folder)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--notes", "two\nlines"], 2, "line end"),
        (["--source-url", "http://a.org"], 2, "https"),
        (["--source-url", "javascript:alert(1)"], 2, "https"),
        (["--name", "=1+1"], 2, "not an identifier"),
        (["--trust", "certain"], 2, "reproduced"),
        (["--samples", "nowhere.png"], 2, "no picture"),
        (["--sampels", "x"], 2, "--samples"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_written(
    folder, call, record_file, arguments, code, words
):
    found, _, err = call("add", record_file("a"), "--board", folder, *arguments)
    assert (found, words in err) == (code, True), err
    assert read_stored(folder) == ()


def test_a_picture_that_is_none_is_invalid_input(folder, call, record_file, tmp_path):
    (tmp_path / "g.png").write_text("<script>")
    assert call("add", record_file("a"), "--board", folder, "--samples", tmp_path / "g.png")[0] == 6


def test_exit_codes_of_records_that_do_not_fit(folder, call, record_file, tmp_path, make_record, changed):
    add = ("--board", folder, "--no-build")
    assert call("add", record_file("a", status="partial"), *add)[0] == 6
    assert call("add", tmp_path / "none.json", *add)[0] == 5
    (tmp_path / "nan.json").write_text(record_file("n").read_text().replace('"value": 2.0', '"value": NaN'))
    assert call("add", tmp_path / "nan.json", *add)[0] == 6
    changed(make_record("e", speed=None), results=()).write(tmp_path / "e.json")
    assert call("add", tmp_path / "e.json", *add)[0] == 5
    assert call("add", record_file("a", 2.0), *add)[0] == 0
    assert call("add", record_file("a", 3.0), *add)[0] == 2


def test_a_run_id_that_leads_out_of_the_board_is_refused(folder, call, tmp_path, make_record, changed):
    changed(make_record("a"), run_id="x/../../../evil").write(tmp_path / "evil-record.json")
    code, _, err = call("add", tmp_path / "evil-record.json", "--board", folder)
    assert (code, "cannot be the name of a file" in err) == (2, True)
    assert not list(tmp_path.rglob("evil.json"))


def test_samples_and_names_belong_to_one_record(folder, call, record_file):
    code, _, err = call("add", record_file("a"), record_file("b"), "--board", folder, "--name", "x")
    assert (code, "one RECORD" in err) == (2, True)


@pytest.mark.parametrize("command", ["build", "check", "show", "export", "add"])
def test_a_folder_that_is_no_board_is_a_usage_error(call, tmp_path, record_file, command):
    arguments = {
        "export": ("export", tmp_path, "--format", "csv"),
        "add": ("add", record_file("a"), "--board", tmp_path / "typo"),
    }
    code, _, err = call(*arguments.get(command, (command, tmp_path)))
    assert (code, "leaderboard new" in err) == (2, True)
    assert not (tmp_path / "typo").exists()


def test_a_board_is_made_once(folder, call):
    assert call("new", folder, "--title", "Again")[0] == 2
    assert call("new", folder.parent / "c", "--title", "a\nb")[0] == 2
    assert call("new", folder.parent / "bad name", "--title", "t")[0] == 2


def test_a_headline_that_nobody_measured_is_named(folder, call, record_file):
    call("add", record_file("a"), "--board", folder)
    (folder / "board.toml").write_text('title = "T"\nheadline = "kd:lit"\n')
    code, _, err = call("build", folder)
    assert (code, "did you mean 'kd:lite'" in err) == (2, True)


def test_a_board_that_another_process_holds_is_temporary(folder, call, record_file, monkeypatch):
    monkeypatch.setattr(storage, "_LOCK_SECONDS", 0.05)
    with locked(folder):
        code, _, err = call("add", record_file("a"), "--board", folder)
    assert (code, "another process" in err) == (75, True)
    assert read_stored(folder) == ()


def test_nothing_to_show_is_nothing_measured(folder, call):
    assert call("show", folder)[0] == 5
    assert call("export", folder, "--format", "csv")[0] == 5


def test_export_prints_or_writes(folder, call, record_file, tmp_path):
    call("add", record_file("a"), "--board", folder)
    code, out, _ = call("export", folder, "--format", "json")
    assert (code, json.loads(out)["board"]) == (0, "b")
    code, out, _ = call("export", folder, "--format", "csv", "--bom", "--out", tmp_path / "t.csv")
    assert (code, out, (tmp_path / "t.csv").read_bytes()[:8]) == (0, "", b"\xef\xbb\xbfmodel")
    code, out, _ = call("export", folder, "--format", "model-card", "--model", "b")
    assert (code, out) == (5, "")


def test_a_missing_matplotlib_is_said(folder, call, record_file, monkeypatch):
    monkeypatch.setattr("evalkit.leaderboard.build.can_draw", lambda: False)
    call("add", record_file("a"), "--board", folder, "--no-build")
    code, _, err = call("add", record_file("b", speed=20.0), "--board", folder)
    assert (code, "evalkit[plots]" in err) == (0, True)


def test_the_gate_takes_a_row_of_the_board_as_its_baseline(folder, call, record_file, make_record):
    from evalkit.gate.baselines import find_baseline

    call("add", record_file("a", 2.0), record_file("b", 3.0), "--board", folder)
    baseline = find_baseline(f"{folder / 'scores.csv'}#a", (make_record("a", 2.5, run="later"),))
    found = {quantity.metric: quantity for quantity in baseline.quantities}
    assert (found["kd:lite"].value, found["kd:lite"].se, found["kd:lite"].n) == (2.0, 0.1, 64)
    assert (found["throughput"].value, found["throughput"].direction) == (10.0, "higher")
    assert (found["nfe"].value, found["n_params"].value, found["flops"].value) == (20.0, 1000.0, 1e6)
    assert baseline.side.fingerprint == "p1"


def test_the_command_starts_without_heavy_libraries():
    heavy = "{'torch', 'scipy', 'pandas', 'matplotlib'}"
    code = f"import sys, evalkit.cli.leaderboard; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
