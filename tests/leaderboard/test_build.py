"""Building and checking a board: the same bytes every time, and nothing stale or edited goes unnoticed."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from evalkit.errors import InvalidInputError, TemporaryError, UsageError
from evalkit.leaderboard import build as build_module
from evalkit.leaderboard.board import create_board
from evalkit.leaderboard.build import build
from evalkit.leaderboard.check import check
from evalkit.leaderboard.facts import BoardInfo

BUILT = ["scores.csv", "table.csv", "table.md", "index.html"]
FIGURES = ["figures/pareto.svg", "figures/pareto.png"]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def problems(folder, **options):
    return {finding.path: finding.problem for finding in check(folder, **options)}


def sketch(plot):
    """A figure in no time: what matplotlib draws is tested with the figures."""
    return {path: plot.digest().encode() for path in build_module.paths_of(plot)}


@pytest.fixture
def built(board, monkeypatch):
    monkeypatch.setattr(build_module, "draw", sketch)
    build(board)
    return board


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setattr(build_module, "can_draw", lambda: False)


def test_a_build_writes_everything_and_the_next_one_nothing(board):
    report = build(board)
    assert sorted(report.written) == sorted(BUILT + FIGURES)
    assert (report.removed, report.undrawn) == ((), False)
    times = {path: path.stat().st_mtime_ns for path in board.rglob("*")}
    assert build(board).written == ()
    assert {path: path.stat().st_mtime_ns for path in board.rglob("*")} == times
    assert check(board) == ()


def test_two_boards_of_the_same_runs_are_equal_whatever_the_order_of_adding(tmp_path, publish, make_record):
    records = [
        make_record(m, v, day=d, speed=d) for m, v, d in (("a", 2, 1), ("a", 1, 2), ("b", 2, 3), ("c", 9, 4))
    ]
    found = []
    for attempt in range(2):
        folder = tmp_path / str(attempt) / "toys"
        create_board(folder, BoardInfo(name="toys", title="Toys"))
        random.Random(attempt).shuffle(records)
        for record in records:
            publish(folder, record)
            if attempt:
                build(folder)
        build(folder)
        found.append(contents(folder))
    assert found[0] == found[1]


def test_another_process_builds_the_same_bytes(board):
    build(board)
    before = contents(board)
    for path in (*BUILT, *FIGURES, "figures/digests.json"):
        (board / path).unlink()
    code = (
        "import sys; from pathlib import Path; from evalkit.leaderboard.build import build; "
        "build(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(board)], check=True, env={"PYTHONHASHSEED": "7"})
    assert contents(board) == before


def test_an_empty_board_is_built_and_checked(empty):
    assert sorted(build(empty).written) == sorted(BUILT)
    assert check(empty) == ()


def test_nothing_is_up_to_date_before_the_first_build(board):
    assert problems(board) == dict.fromkeys(BUILT, "is missing")


@pytest.mark.parametrize("path", BUILT)
def test_a_file_that_was_edited_is_named_with_the_line_that_differs(built, path):
    lines = (built / path).read_text().split("\n")
    lines[1] = f"{lines[1]}hand-made"
    (built / path).write_text("\n".join(lines))
    (finding,) = check(built)
    assert finding.path == path
    assert finding.problem.startswith("line 2 is '")
    assert "hand-made'" in finding.problem
    assert finding.remedy == f"evalkit leaderboard build {built}"
    build(built)
    assert check(built) == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:-1], "ends early"),
        (lambda text: text[:-20], "line 25 is"),
        (lambda text: text + "\n", "goes on after line 26"),
        (lambda text: text + "more\n", "line 26 is 'more', should be ''"),
        (lambda text: "", "line 1 is ''"),
    ],
)
def test_a_file_cut_short_or_prolonged_is_found(built, change, problem):
    (built / "scores.csv").write_text(change((built / "scores.csv").read_text()))
    assert problem in problems(built)["scores.csv"]


def test_windows_line_ends_are_found(built):
    content = (built / "scores.csv").read_bytes()
    (built / "scores.csv").write_bytes(content.replace(b"\n", b"\r\n"))
    assert ".gitattributes" in problems(built)["scores.csv"]
    for path in (built / "records").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert all("line ends of Windows" in problem for problem in problems(built).values())
    assert len(problems(built)) == 3


def test_hidden_files_beside_the_records_are_somebody_elses(built):
    (built / "records" / "._x.json").write_bytes(b"\0\5\x16\7")
    (built / "records" / ".x.json.0a1b.tmp").write_bytes(b"{")
    assert check(built) == ()


def test_a_binary_file_in_place_of_a_table_is_found(built):
    (built / "table.md").write_bytes(b"\xff\xfe\0")
    assert "line 1" in problems(built)["table.md"]


def test_a_run_that_was_added_without_building_makes_everything_stale(built, publish, make_record):
    publish(built, make_record("new", 1.0, speed=200.0))
    assert sorted(problems(built)) == sorted(BUILT + FIGURES)
    build(built)
    assert check(built) == ()


def test_a_change_of_the_settings_makes_the_page_stale(built):
    (built / "board.toml").write_text('title = "Other"\nname = "toys"\n')
    assert set(problems(built)) == {"table.md", "index.html", *FIGURES}


def test_an_edited_or_missing_record_is_found_before_anything_is_rebuilt(built):
    gan, ddpm = (next((built / "records").glob(f"*{name}.json")) for name in ("gan", "ddpm"))
    gan.write_text(gan.read_text().replace("2.1", "0.1"))
    ddpm.unlink()
    found = check(built)
    assert {finding.path: finding.problem for finding in found} == {
        f"records/{ddpm.name}": "was published and is missing",
        f"records/{gan.name}": "was changed after it was published",
    }
    assert all(finding.remedy.startswith("git restore ") for finding in found)


def test_a_record_that_was_copied_by_hand_is_found_with_the_command_that_adds_it(built, make_record):
    record = make_record("new")
    record.write(built / "records" / f"{record.run_id}.json")
    (finding,) = check(built)
    assert finding.problem == "was not added by evalkit leaderboard add"
    assert finding.remedy.startswith("evalkit leaderboard add ")
    with pytest.raises(UsageError, match="was not added"):
        build(built)


def test_an_edited_entry_or_picture_is_found(built, publish, make_record):
    publish(built, make_record("gan", 2.1, speed=100.0), grid=b"no picture at all")
    (built / "samples" / f"{make_record('gan').run_id}.webp").write_bytes(b"another")
    next((built / "entries").glob("*vae.json")).write_text("{}")
    assert len(problems(built)) == 2


def test_figures_are_checked_by_the_numbers_in_them_and_by_their_bytes(built, monkeypatch):
    (built / "figures/pareto.svg").write_text("<svg/>")
    (built / "figures/pareto.png").unlink()
    assert problems(built) == {
        "figures/pareto.svg": "was changed after it was drawn",
        "figures/pareto.png": "was built and is missing",
    }
    assert set(build(built).written) == set(FIGURES)
    assert check(built) == ()


def test_a_release_of_matplotlib_that_draws_otherwise_makes_nothing_stale(built, monkeypatch):
    monkeypatch.setattr(build_module, "draw", lambda plot: pytest.fail("it was drawn again"))
    assert build(built).written == ()
    assert check(built) == ()


def test_without_matplotlib_a_board_is_complete_without_figures(board, no_matplotlib):
    report = build(board)
    assert (sorted(report.written), report.undrawn) == (sorted(BUILT), True)
    assert check(board) == ()


def test_without_matplotlib_current_figures_stay_and_stale_ones_go(
    built, publish, make_record, no_matplotlib
):
    assert build(built) == build_module.BuildReport(written=(), removed=(), undrawn=False)
    publish(built, make_record("new", 1.0, speed=200.0))
    report = build(built)
    assert (sorted(report.removed), report.undrawn) == (sorted(FIGURES), True)
    assert not (built / "figures" / "digests.json").exists()
    assert check(built) == ()


def test_figures_of_a_group_that_is_gone_are_removed_unless_somebody_replaced_them(
    built, publish, make_record, monkeypatch
):
    for model in "xy":
        publish(built, make_record(model, fingerprint="zz", speed=5.0))
    build(built)
    assert (built / "figures/pareto-zz.svg").is_file()
    (built / "figures/pareto-zz.png").write_bytes(b"mine")
    (built / "figures/drawn-by-hand.svg").write_text("<svg/>")
    for path in [p for k in ("records", "entries") for m in "xy" for p in (built / k).glob(f"*-{m}.json")]:
        path.unlink()
    (built / "records.sha256").unlink()  # as after a git revert
    assert build(built).removed == ("figures/pareto-zz.svg",)
    assert (built / "figures/pareto-zz.png").read_bytes() == b"mine"
    assert (built / "figures/drawn-by-hand.svg").exists()


def test_a_build_that_cannot_write_leaves_what_was_there(built, publish, make_record, monkeypatch):
    before = contents(built)["scores.csv"]
    publish(built, make_record("new", 1.0))

    def full(path, content):
        raise TemporaryError("disk full")

    monkeypatch.setattr(build_module, "write_atomically", full)
    with pytest.raises(TemporaryError):
        build(built)
    assert (built / "scores.csv").read_bytes() == before


def test_a_board_whose_grid_is_no_picture_is_not_built(board, publish, make_record):
    publish(board, make_record("gan", 2.1, speed=100.0), grid=b"no picture")
    with pytest.raises(InvalidInputError):
        build(board)


def test_what_a_revision_had_is_checked_too(built):
    with pytest.raises(UsageError):
        check(built, since="origin/main")


@pytest.mark.fault("script-name")
def test_a_page_holds_hostile_words_as_text(board, publish, make_record):
    publish(board, make_record("evil", 9.0), notes="<script>alert(1)</script> =1+1")
    build(board)
    page = (board / "index.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
