"""Weights & Biases: a run for each record, with configuration, metrics and the record as an artifact."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

from evalkit.record import RunRecord
from evalkit.tracking.entry import entry_of, safe_name

_PROJECT = "evalkit"


@dataclass(frozen=True, slots=True)
class WeightsAndBiases:
    """Logs to the project ``where``: ``[ENTITY/]PROJECT``; WANDB_PROJECT or evalkit where empty.

    The run's id is the record's: logging again adds nothing new. Where WANDB_RUN_ID names a run, that one.
    ``WANDB_MODE=offline`` keeps everything on this machine.
    """

    where: str

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:
        """Log one record."""
        wandb = importlib.import_module("wandb")  # optional
        entry = entry_of(record)
        entity, _, project = self.where.rpartition("/")
        run = wandb.init(
            entity=entity or None,
            project=project or os.environ.get("WANDB_PROJECT") or _PROJECT,
            id=os.environ.get("WANDB_RUN_ID") or safe_name(entry.run_id),
            name=entry.name,
            config={**entry.params, **{f"evalkit.{name}": value for name, value in entry.tags.items()}},
            job_type="evalkit",
            resume="allow",
            settings=wandb.Settings(console="off", quiet=True),
        )
        try:
            run.log(dict(entry.metrics), step=step)
            artifact = wandb.Artifact(f"evalkit-{safe_name(entry.run_id)}", type="evalkit-record")
            artifact.add_file(str(path))
            run.log_artifact(artifact)
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish(exit_code=0)
        return f"added {entry.name} as the run {run.id}"
