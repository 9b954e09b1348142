"""How trackers are named, and the local file."""

from __future__ import annotations

import json
import multiprocessing
import sys

import pytest
from filelock import FileLock

from evalkit.errors import TemporaryError, UsageError
from evalkit.tracking import TRACKERS, parse_trackers
from evalkit.tracking.json_lines import JsonLines
from evalkit.tracking.mlflow import MLflow
from evalkit.tracking.tensorboard import TensorBoard
from tests.tracking.fakes import FakeStore, make_record, package


class TestNames:
    def test_kinds_places_and_order(self, tmp_path, install):
        install(FakeStore())
        found = parse_trackers([f"tensorboard:{tmp_path}", "mlflow", f"jsonl:{tmp_path}/a.jsonl", "mlflow"])
        assert [type(named.tracker) for named in found] == [JsonLines, MLflow, TensorBoard]
        assert parse_trackers(["mlflow:http://host:5000"])[0].tracker == MLflow("http://host:5000")

    def test_none_gives_none(self):
        assert parse_trackers([]) == ()

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ("wanb:x", "no tracker called 'wanb'", "did you mean 'wandb'?"),
            ("", "no tracker called ''", "known: "),
            ("jsonl", "jsonl needs a place", "write it as jsonl:PATH"),
            ("tensorboard:", "tensorboard needs a place", "tensorboard:DIR"),
            ("jsonl:.", ". is a folder", "jsonl:runs.jsonl"),
        ],
    )
    def test_what_cannot_be_is_refused(self, text, message, hint):
        with pytest.raises(UsageError) as error:
            parse_trackers([text])
        assert message in error.value.message
        assert hint in error.value.hint

    @pytest.mark.parametrize("kind", [kind for kind, facts in TRACKERS.items() if facts.package])
    def test_a_missing_package_names_its_extra(self, kind, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match=TRACKERS[kind].package) as error:
            parse_trackers([f"{kind}:x"])
        assert error.value.hint == f"pip install 'evalkit[{TRACKERS[kind].extra}]'"

    def test_a_folder_that_wandb_left_behind_is_no_package(self, tmp_path, monkeypatch):
        (tmp_path / "wandb").mkdir()
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        with pytest.raises(UsageError, match="not installed"):
            parse_trackers(["wandb"])

    def test_a_module_without_a_spec_is_no_package(self, monkeypatch):
        module = package("wandb")
        module.__spec__ = None
        monkeypatch.setitem(sys.modules, "wandb", module)
        with pytest.raises(UsageError, match="not installed"):
            parse_trackers(["wandb"])

    def test_secrets_of_a_place_are_not_shown(self, install):
        install(FakeStore())
        (named,) = parse_trackers(["mlflow:https://me:hunter2@host"])
        assert "hunter2" not in named.name
        assert named.tracker == MLflow("https://me:hunter2@host")

    def test_extras_are_those_of_the_project(self):
        import tomllib
        from pathlib import Path

        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
        for facts in TRACKERS.values():
            if facts.extra:
                (wanted,) = project["optional-dependencies"][facts.extra]
                assert wanted.startswith(facts.package)


class TestJsonLines:
    def rows(self, file):
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def test_one_flat_object_a_record(self, tmp_path, written):
        record, path = written
        file = tmp_path / "deep" / "runs.jsonl"
        assert "added vae (run-1)" in JsonLines(str(file)).log(record, path, step=3)
        (row,) = self.rows(file)
        assert row["run_id"] == "run-1"
        assert row["fd_pixels/value"] == 3.5
        assert row["step"] == 3
        assert row["record"] == str(path)
        assert all(not isinstance(value, dict | list) for value in row.values())

    def test_a_run_is_added_once(self, tmp_path, written):
        record, path = written
        tracker = JsonLines(str(tmp_path / "runs.jsonl"))
        tracker.log(record, path)
        tracker.log(make_record("run-2"), path)
        assert "is there already" in tracker.log(record, path)
        assert [row["run_id"] for row in self.rows(tmp_path / "runs.jsonl")] == ["run-1", "run-2"]

    def test_a_line_cut_short_stays_and_does_no_harm(self, tmp_path, written):
        file = tmp_path / "runs.jsonl"
        file.write_bytes(b'[1]\n\xff\n{"run_id": "run-0", "fd')
        JsonLines(str(file)).log(*written)
        lines = file.read_bytes().splitlines()
        assert lines[:3] == [b"[1]", b"\xff", b'{"run_id": "run-0", "fd']
        assert json.loads(lines[3])["run_id"] == "run-1"

    def test_a_file_that_is_held_is_temporary(self, tmp_path, written, monkeypatch):
        monkeypatch.setattr("evalkit.tracking.json_lines._PATIENCE", 0.05)
        with FileLock(tmp_path / "runs.jsonl.lock"), pytest.raises(TemporaryError, match="another process"):
            JsonLines(str(tmp_path / "runs.jsonl")).log(*written)

    def test_several_writers_lose_nothing(self, tmp_path, written):
        file = tmp_path / "runs.jsonl"
        context = multiprocessing.get_context("fork")
        writers = [context.Process(target=_write, args=(str(file), n, written[1])) for n in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        assert sorted(row["run_id"] for row in self.rows(file)) == sorted(
            f"run-{n}-{k}" for n in range(4) for k in range(5)
        )


def _write(file, number, path):
    for k in range(5):
        JsonLines(file).log(make_record(f"run-{number}-{k}"), path)


def test_importing_the_package_loads_no_tracker_and_no_torch():
    import subprocess

    code = (
        "import sys, evalkit.tracking, evalkit.cli.log;"
        "heavy = {'torch', 'scipy', 'pandas', 'mlflow', 'wandb', 'tensorboard', 'dvclive'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
