"""DVC: metrics and parameters of each model in a folder of its own, as ``dvc metrics diff`` reads them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import UsageError
from evalkit.record import RunRecord
from evalkit.tracking.entry import entry_of, safe_name


@dataclass(frozen=True, slots=True)
class DvcLive:
    """Writes below ``where``, in a folder for each model; a newer record of a model replaces the older.

    That is how DVC compares: the same path in two commits. With a step, the record continues the curve.
    """

    where: str

    def __post_init__(self) -> None:
        if Path(self.where).is_file():
            raise UsageError(f"{self.where} is a file", hint="dvc:FOLDER")
        around = (Path.cwd(), *Path.cwd().parents)
        repository = next((folder for folder in around if (folder / ".git").exists()), None)
        # dvclive would quietly make a DVC repository of it.
        if repository is not None and not any((folder / ".dvc").is_dir() for folder in around):
            raise UsageError(f"{repository} does not use DVC", hint="dvc init, or log from another folder")

    def log(self, record: RunRecord, path: Path, *, step: int | None = None) -> str:
        """Write ``metrics.json``, ``params.yaml`` and the plots of one record, and its file beside them."""
        dvclive = importlib.import_module("dvclive")  # optional
        entry = entry_of(record)
        folder = Path(self.where) / safe_name(entry.name)
        with dvclive.Live(
            dir=str(folder), resume=step is not None, save_dvc_exp=False, dvcyaml=None, report=None
        ) as live:
            if step is not None:
                live.step = step
            live.log_params({**entry.params, **{f"evalkit_{name}": tag for name, tag in entry.tags.items()}})
            for name, value in entry.metrics.items():
                live.log_metric(name, value, plot=step is not None)
            if step is not None:
                live.next_step()
        (folder / "record.json").write_bytes(path.read_bytes())
        return f"wrote {entry.name} to {folder}"
