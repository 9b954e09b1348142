"""MLflow: a run for each record, with parameters, metrics, tags and the record's file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evalkit.record import RunRecord
from evalkit.tracking.entry import Entry, entry_of

_EXPERIMENT = "evalkit"
_RUN_ID = "evalkit.run_id"
# What older servers take; newer ones take more.
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class MLflow:
    """Logs to the tracking server or store ``where``; MLFLOW_TRACKING_URI, or MLflow's default, where empty.

    The experiment is MLFLOW_EXPERIMENT_NAME, or ``evalkit``. Where MLFLOW_RUN_ID names a run (a training that
    evaluates its checkpoints), metrics go into that one at the step given.
    """

    where: str

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:
        """Log one record, once: a run is tagged with the record's id when everything else is there."""
        tracking = importlib.import_module("mlflow.tracking")  # optional
        client, entry = tracking.MlflowClient(tracking_uri=self.where or None), entry_of(record)
        if outer := os.environ.get("MLFLOW_RUN_ID"):
            _send(client, outer, entry, path, step)
            return f"added {entry.name} to the run {outer}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        experiment = _experiment(client, name)
        if client.search_runs([experiment], f"tags.`{_RUN_ID}` = '{entry.run_id}'", max_results=1):
            return f"{entry.name} ({entry.run_id}) is in the experiment {name} already"
        with _run(client, experiment, entry) as run:
            _send(client, run, entry, path, step)
            client.set_tag(run, _RUN_ID, entry.run_id)
        return f"added {entry.name} as the run {run} of the experiment {name}"


def _experiment(client: Any, name: str) -> str:  # noqa: ANN401 - of a package without types
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


@contextmanager
def _run(client: Any, experiment: str, entry: Entry) -> Iterator[str]:  # noqa: ANN401
    run = str(client.create_run(experiment, run_name=entry.name).info.run_id)
    try:
        yield run
    except BaseException:
        with suppress(Exception):
            client.set_terminated(run, status="FAILED")
        raise
    client.set_terminated(run, status="FINISHED")


def _send(client: Any, run: str, entry: Entry, path: Path, step: int | None) -> None:  # noqa: ANN401
    entities = importlib.import_module("mlflow.entities")
    when = int(datetime.fromisoformat(entry.created_utc).timestamp() * 1000)
    # A parameter of an MLflow run cannot change: those of a run that evaluates several checkpoints stay.
    known = client.get_run(run).data.params
    client.log_batch(
        run,
        metrics=[entities.Metric(name, value, when, step or 0) for name, value in entry.metrics.items()],
        params=[
            entities.Param(name, str(value)[:_LONGEST])
            for name, value in entry.params.items()
            if name not in known
        ],
        tags=[
            entities.RunTag(f"evalkit.{name}", value[:_LONGEST])
            for name, value in entry.tags.items()
            if f"evalkit.{name}" != _RUN_ID
        ],
    )
    client.log_artifact(run, str(path))
