"""Stand-ins for the packages of trackers: they take what the real ones take, and remember it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

from evalkit.record import (
    DataInfo,
    Inputs,
    MetricResult,
    ModelInfo,
    Performance,
    ProtocolInfo,
    RunRecord,
    SamplingInfo,
    Seeds,
)
from evalkit.spec import Interval


def make_record(run="run-1", *, name="vae", results=None, **more):
    fd = MetricResult(
        "fd:pixels", "thumbnail", 3.5, direction="lower", se=0.25, ci=Interval(3.0, 4.0), n_gen=16,
        bias_corrected=3.25,
    )  # fmt: skip
    performance = Performance(
        scenario="offline", throughput=100.0, latency_p50_ms=10.0, latency_p90_ms=None, batch_size=8,
        images=16, device="cpu", dtype="float32", warmup_seconds=0.5,
    )  # fmt: skip
    seeds = Seeds(base=7, scheme="philox", first=0, last=15)
    values = {
        "run_id": run,
        "status": "complete",
        "created_utc": "2026-01-31T12:00:00Z",
        "duration_seconds": 2.5,
        "model": ModelInfo(id=name, family="vae", format="evalkit", sha256="a" * 64, n_params=1000),
        "data": DataInfo(dataset="toy", n_ref=24),
        "sampling": SamplingInfo(n=16, seeds=seeds, sampler="prior", nfe=1),
        "protocol": ProtocolInfo("pixels", {"metrics": [{"name": "fd", "head": "thumbnail"}]}, "f" * 64),
        "results": (fd,) if results is None else results,
        "performance": (performance,),
        "inputs": Inputs(found=16, used=16),
        "env": {"evalkit": "0.1.0", "torch": "2.15.0", "commit": None},
        **more,
    }
    return RunRecord(**values)


def package(name, **attributes):
    """A module that looks installed."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin=f"/site-packages/{name}/__init__.py")
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


@dataclass
class FakeStore:
    """An MLflow server that remembers; ``broken`` names the call that fails."""

    broken: str = ""
    uris: list = field(default_factory=list)
    experiments: dict = field(default_factory=dict)
    runs: dict = field(default_factory=dict)

    def client(self, tracking_uri=None):
        self.uris.append(tracking_uri)
        return self

    def _check(self, call):
        if call == self.broken:
            raise ConnectionError(f"no answer to {call} from https://me:secret@host/x")

    def get_experiment_by_name(self, name):
        found = self.experiments.get(name)
        return SimpleNamespace(experiment_id=found) if found else None

    def create_experiment(self, name):
        self.experiments[name] = str(len(self.experiments) + 1)
        return self.experiments[name]

    def search_runs(self, experiments, text, max_results):
        wanted = text.split("'")[1]
        return [run for run in self.runs.values() if run["tags"].get("evalkit.run_id") == wanted][
            :max_results
        ]

    def create_run(self, experiment, run_name):
        run = f"m{len(self.runs) + 1}"
        self.runs[run] = {
            "name": run_name,
            "tags": {},
            "params": {},
            "metrics": {},
            "files": [],
            "status": "RUNNING",
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def get_run(self, run):
        return SimpleNamespace(data=SimpleNamespace(params=dict(self.runs[run]["params"])))

    def log_batch(self, run, metrics, params, tags):
        self._check("log_batch")
        for name, value, _, step in metrics:
            self.runs[run]["metrics"].setdefault(name, []).append((step, value))
        for name, value in params:
            assert name not in self.runs[run]["params"], "MLflow refuses to change a parameter"
            self.runs[run]["params"][name] = value
        self.runs[run]["tags"].update(tags)

    def log_artifact(self, run, path):
        self._check("log_artifact")
        self.runs[run]["files"].append(path)

    def set_tag(self, run, name, value):
        self.runs[run]["tags"][name] = value

    def set_terminated(self, run, status):
        self.runs[run]["status"] = status

    def modules(self):
        def parts(*values):
            return values

        return {
            "mlflow": package("mlflow"),
            "mlflow.tracking": package("mlflow.tracking", MlflowClient=self.client),
            "mlflow.entities": package("mlflow.entities", Metric=parts, Param=parts, RunTag=parts),
        }


@dataclass
class FakeWandb:
    broken: bool = False
    runs: list = field(default_factory=list)

    def init(self, **options):
        run = FakeWandbRun(self.broken, options)
        self.runs.append(run)
        print("wandb says hello")
        return run

    def modules(self):
        def artifact(name, type):  # noqa: A002 - as wandb calls it
            files = []
            return SimpleNamespace(name=name, type=type, files=files, add_file=files.append)

        return {
            "wandb": package("wandb", init=self.init, Artifact=artifact, Settings=lambda **options: options)
        }


@dataclass
class FakeWandbRun:
    broken: bool
    options: dict
    rows: list = field(default_factory=list)
    artifacts: list = field(default_factory=list)
    ended: int | None = None

    @property
    def id(self):
        return self.options["id"]

    def log(self, row, step):
        if self.broken:
            raise SystemExit("wandb gave up")
        self.rows.append((step, json.loads(json.dumps(row))))

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)

    def finish(self, exit_code):
        self.ended = exit_code


@dataclass
class FakeDvc:
    lives: list = field(default_factory=list)

    def modules(self):
        def live(**options):
            self.lives.append(FakeLive(options))
            return self.lives[-1]

        return {"dvclive": package("dvclive", Live=live)}


@dataclass
class FakeLive:
    options: dict
    step: int = 0
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    nexts: int = 0

    def __enter__(self):
        from pathlib import Path

        Path(self.options["dir"]).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *details):
        return None

    def log_params(self, params):
        self.params = params

    def log_metric(self, name, value, plot):
        self.metrics[name] = (self.step, value, plot)

    def next_step(self):
        self.nexts += 1
