"""Every service against a stand-in for its package, or the package itself where it is installed."""

from __future__ import annotations

import pytest

from evalkit.errors import TemporaryError, UsageError
from evalkit.tracking import entry_of
from evalkit.tracking.dvc import DvcLive
from evalkit.tracking.mlflow import MLflow
from evalkit.tracking.tensorboard import TensorBoard
from evalkit.tracking.wandb import WeightsAndBiases
from tests.tracking.fakes import FakeDvc, FakeStore, FakeWandb, make_record


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

    def test_without_a_step_each_record_is_a_run_of_its_own(self, tmp_path, written):
        for run in ("run-1", "run-2"):
            TensorBoard(str(tmp_path)).log(make_record(run), written[1])
        for run in ("run-1", "run-2"):
            assert len(self.read(tmp_path / "vae" / run).Scalars("fd_pixels/se")) == 1

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
