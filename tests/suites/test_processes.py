"""The command line, the cores and the output of a cell, and what its exit code means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.suites.processes import SCORE, Launcher, command_of, exit_code_of, threads_environment
from tests.suites.stage import make_cell


class TestThreads:
    def test_are_divided_among_cells_on_the_cpu(self, monkeypatch):
        monkeypatch.setattr("evalkit.suites.processes._cores", lambda: 8)
        assert threads_environment(3, device="cpu", environ={})["OMP_NUM_THREADS"] == "2"
        assert threads_environment(16, device="auto", environ={})["MKL_NUM_THREADS"] == "1"

    def test_are_left_alone_for_one_cell_or_on_a_gpu(self):
        assert threads_environment(1, device="cpu", environ={}) == {}
        assert threads_environment(4, device="cuda:0", environ={"A": "b"}) == {"A": "b"}

    def test_that_the_user_has_set_stay(self):
        assert (
            threads_environment(2, device="cpu", environ={"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
        )


class TestCommands:
    def test_are_what_a_shell_would_run(self, tmp_path):
        cell = make_cell("a")
        records = str(tmp_path / "records")
        assert command_of(cell, tmp_path, device="cuda:1") == (
            "score", *cell.arguments, "--device", "cuda:1", "--out", records,
        )  # fmt: skip
        assert command_of(cell, tmp_path, device="auto") == ("score", *cell.arguments, "--out", records)

    def test_are_run_by_this_python(self):
        assert SCORE[1:] == ("-m", "evalkit.cli", "score")

    def test_log_files_of_unlike_cells_differ_and_their_names_are_plain(self, tmp_path):
        launcher = Launcher(folder=tmp_path)
        cells = [replace(make_cell(row), key=f"{n:016x}") for n, row in enumerate(("a/b", "a:b", "x" * 200))]
        names = [launcher.log(cell).name for cell in cells]
        assert len(set(names)) == 3
        assert all("/" not in name and ":" not in name and len(name) < 120 for name in names)


@pytest.mark.parametrize(
    ("code", "asked", "expected"),
    [
        *[(0, False, 0), (6, False, 6), (1, False, 70), (-9, False, 75), (-15, False, 75), (-11, False, 70)],
        *[(143, False, 75), (130, False, 75), (143, True, 143), (130, True, 130), (0, True, 0)],
    ],
)
def test_exit_codes_of_processes_in_the_terms_of_evalkit(code, asked, expected):
    assert exit_code_of(code, asked=asked) == expected


def test_last_words_are_the_end_of_the_log_without_blank_lines(tmp_path):
    launcher = Launcher(folder=tmp_path)
    assert launcher.last_words(make_cell("a")) == ()
    log = launcher.log(make_cell("a"))
    log.parent.mkdir()
    log.write_bytes(b"one\n\n two\xff\nthree\n" + b"x" * 300 + b"\n\n")
    assert launcher.last_words(make_cell("a")) == ("two\ufffd", "three", "x" * 200)
