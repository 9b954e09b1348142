"""Stand-ins that can be installed, and a record with its file."""

from __future__ import annotations

import sys

import pytest

from tests.tracking.fakes import make_record


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
