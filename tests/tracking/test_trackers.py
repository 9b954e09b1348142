"""Every tracker against a stand-in for its package, or the package itself where it is installed."""

from __future__ import annotations

import json
import multiprocessing
import sys

import pytest
from filelock import FileLock

from evalkit.errors import TemporaryError, UsageError
from evalkit.tracking import TRACKERS, entry_of, parse_trackers
from evalkit.tracking.dvc import DvcLive
from evalkit.tracking.json_lines import JsonLines
from evalkit.tracking.mlflow import MLflow
from evalkit.tracking.tensorboard import TensorBoard
from evalkit.tracking.wandb import WeightsAndBiases
from tests.tracking.fakes import FakeDvc, FakeStore, FakeWandb, make_record, package


@pytest.fixture
def install(monkeypatch):
    def put(fake):
        for name, module in fake.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        return fake

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "WANDB_RUN_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return put


@pytest.fixture
def written(tmp_path):
    """A record and its file."""
    record = make_record()
    path = tmp_path / "records" / "run-1.json"
    record.write(path)
    return record, path


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


class TestTensorBoard:
    def read(self, folder):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
        return events

    def test_scalars_and_parameters_are_read_back(self, tmp_path, written):
        record, path = written
        assert (
            TensorBoard(str(tmp_path / "logs")).log(record, path, step=20)
            == f"wrote vae to {tmp_path}/logs/vae"
        )
        events = self.read(tmp_path / "logs" / "vae")
        assert set(events.Tags()["scalars"]) == set(entry_of(record).metrics)
        (scalar,) = events.Scalars("fd_pixels/value")
        assert (scalar.step, scalar.value) == (20, 3.5)
        assert scalar.wall_time == 1769860800.0
        (table,) = events.Tensors("evalkit/parameters")
        text = table.tensor_proto.string_val[0].decode()
        assert "| model | vae |" in text
        assert "| run\\_id | run-1 |" in text

    def test_records_of_one_model_are_one_curve_and_one_record_counts_once(self, tmp_path, written):
        _, path = written
        tracker = TensorBoard(str(tmp_path / "logs"))
        for step in (10, 20):
            record = make_record(f"run-{step}", created_utc=f"2026-01-31T12:00:{step}Z")
            for _ in range(2):
                tracker.log(record, path, step=step)
        assert [scalar.step for scalar in self.read(tmp_path / "logs" / "vae").Scalars("fd_pixels/se")] == [
            10,
            20,
        ]

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "x").write_text("")
        with pytest.raises(UsageError, match="is a file"):
            TensorBoard(str(tmp_path / "x"))

    def test_a_place_that_cannot_be_written_is_temporary(self, tmp_path, written):
        (tmp_path / "x").write_text("")
        with pytest.raises(TemporaryError):
            TensorBoard(str(tmp_path / "x" / "y")).log(*written)


class TestMLflow:
    def test_a_run_for_each_record(self, install, written):
        store = install(FakeStore())
        record, path = written
        MLflow("http://host").log(record, path, step=5)
        (run,) = store.runs.values()
        assert store.uris == ["http://host"]
        assert list(store.experiments) == ["evalkit"]
        assert (run["name"], run["status"], run["files"]) == ("vae", "FINISHED", [str(path)])
        assert run["metrics"]["fd_pixels/value"] == [(5, 3.5)]
        assert run["params"]["model_sha256"] == "a" * 64
        assert run["tags"]["evalkit.run_id"] == "run-1"
        assert run["tags"]["evalkit.torch"] == "2.15.0"

    def test_a_record_is_logged_once(self, install, written):
        store = install(FakeStore())
        for _ in range(2):
            told = MLflow("").log(*written)
        assert len(store.runs) == 1
        assert "is in the experiment evalkit already" in told
        assert store.uris == [None, None]

    @pytest.mark.parametrize("call", ["log_batch", "log_artifact"])
    def test_what_broke_is_marked_and_tried_again(self, install, written, call):
        store = install(FakeStore(broken=call))
        with pytest.raises(ConnectionError):
            MLflow("").log(*written)
        assert [run["status"] for run in store.runs.values()] == ["FAILED"]
        store.broken = ""
        MLflow("").log(*written)
        assert [run["status"] for run in store.runs.values()] == ["FAILED", "FINISHED"]

    def test_a_run_around_it_takes_the_metrics_and_keeps_its_parameters(self, install, written, monkeypatch):
        store = install(FakeStore())
        run = store.create_run("1", "training").info.run_id
        store.runs[run]["params"] = {"model": "mine"}
        monkeypatch.setenv("MLFLOW_RUN_ID", run)
        for step in (1, 2):
            MLflow("").log(*written, step=step)
        assert [step for step, _ in store.runs[run]["metrics"]["fd_pixels/value"]] == [1, 2]
        assert store.runs[run]["params"]["model"] == "mine"
        assert store.runs[run]["params"]["dataset"] == "toy"
        assert len(store.runs) == 1

    def test_the_real_package_reads_it_back(self, tmp_path, written, monkeypatch):
        pytest.importorskip("mlflow")
        import warnings

        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other local store
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        record, path = written
        uri = (tmp_path / "mlruns").as_uri()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.tracking import MlflowClient

            assert "added vae" in MLflow(uri).log(record, path, step=4)
            assert "already" in MLflow(uri).log(record, path)
            client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name("mine")
            (run,) = client.search_runs([experiment.experiment_id])
            history = client.get_metric_history(run.info.run_id, "fd_pixels/value")
            assert [(metric.step, metric.value) for metric in history] == [(4, 3.5)]
            assert set(run.data.metrics) == set(entry_of(record).metrics)
            assert run.data.params["fingerprint"] == "f" * 64
            assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["run-1.json"]


class TestWandb:
    def test_a_run_for_each_record(self, install, written):
        wandb = install(FakeWandb())
        _, path = written
        record = make_record("2026:01/x")
        WeightsAndBiases("me/models").log(record, path, step=9)
        (run,) = wandb.runs
        assert (run.options["entity"], run.options["project"]) == ("me", "models")
        assert (run.options["id"], run.options["resume"]) == ("2026_01_x", "allow")
        assert run.options["config"]["model"] == "vae"
        assert run.options["config"]["evalkit.run_id"] == "2026:01/x"
        assert run.rows == [(9, dict(entry_of(record).metrics))]
        assert [artifact.files for artifact in run.artifacts] == [[str(path)]]
        assert run.ended == 0

    def test_the_project_may_come_from_the_environment(self, install, written, monkeypatch):
        wandb = install(FakeWandb())
        WeightsAndBiases("").log(*written)
        monkeypatch.setenv("WANDB_PROJECT", "theirs")
        monkeypatch.setenv("WANDB_RUN_ID", "outer")
        WeightsAndBiases("").log(*written)
        assert [run.options["project"] for run in wandb.runs] == ["evalkit", "theirs"]
        assert wandb.runs[1].options["id"] == "outer"

    def test_a_run_that_broke_is_closed_as_failed(self, install, written):
        wandb = install(FakeWandb(broken=True))
        with pytest.raises(SystemExit):
            WeightsAndBiases("").log(*written)
        assert wandb.runs[0].ended == 1


class TestDvc:
    @pytest.fixture(autouse=True)
    def outside_of_git(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_a_folder_for_each_model(self, install, written, tmp_path):
        dvc = install(FakeDvc())
        record, path = written
        tracker = DvcLive(str(tmp_path / "live"))
        tracker.log(record, path)
        (live,) = dvc.lives
        folder = tmp_path / "live" / "vae"
        assert live.options == {
            "dir": str(folder), "resume": False, "save_dvc_exp": False, "dvcyaml": None, "report": None,
        }  # fmt: skip
        assert live.params["model"] == "vae"
        assert live.params["evalkit_run_id"] == "run-1"
        assert live.metrics["fd_pixels/value"] == (0, 3.5, False)
        assert (folder / "record.json").read_bytes() == path.read_bytes()
        assert live.nexts == 0

    def test_a_step_continues_the_curve(self, install, written, tmp_path):
        dvc = install(FakeDvc())
        DvcLive(str(tmp_path / "live")).log(*written, step=30)
        (live,) = dvc.lives
        assert live.options["resume"] is True
        assert live.metrics["fd_pixels/value"] == (30, 3.5, True)
        assert live.nexts == 1

    def test_a_repository_without_dvc_is_left_alone(self, tmp_path, monkeypatch):
        (tmp_path / ".git").mkdir()
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        with pytest.raises(UsageError, match="does not use DVC"):
            DvcLive("live")
        (tmp_path / ".dvc").mkdir()
        assert DvcLive("live").where == "live"

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "x").write_text("")
        with pytest.raises(UsageError, match="is a file"):
            DvcLive(str(tmp_path / "x"))


def test_importing_the_package_loads_no_tracker_and_no_torch():
    import subprocess

    code = (
        "import sys, evalkit.tracking, evalkit.cli.log;"
        "heavy = {'torch', 'scipy', 'pandas', 'mlflow', 'wandb', 'tensorboard', 'dvclive'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
