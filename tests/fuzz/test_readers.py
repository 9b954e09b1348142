"""Whatever stands in a file, reading it ends in success or in an error with a hint, a code and no traceback.

The cases run in a process of their own; see :mod:`tests.fuzz.drive` for what is watched there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVE = Path(__file__).with_name("drive.py")
NAMES = (
    "checkpoint: safetensors", "checkpoint: torch", "checkpoint: old torch", "checkpoint: pickle",
    "checkpoint: npz", "checkpoint: folder", "checkpoint: sidecar", "model", "attributes", "weights",
    "weights: TorchScript", "reference", "statistics: npz", "statistics: torch", "images: npz and npy",
    "images: zip", "images: tar", "images: parquet", "image", "record", "board: settings",
    "board: list of files", "board: entry", "board: figures", "board: scores", "suite", "suite: state",
    "part of a run", "progress", "gate: rules", "pairs", "prompts", "shard",
)  # fmt: skip
CAP_MIB = 1024


def fuzz(folder: Path, *readers: str, cases: int, seed: int) -> dict[str, dict[str, object]]:
    """Fuzz readers; the case at hand lies below ``folder`` where the process was ended by its watchdog."""
    report = folder / "report.json"
    arguments = ["--cases", str(cases), "--seed", str(seed), "--report", str(report), *readers]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVE), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-3000:]}"
    found: dict[str, dict[str, object]] = json.loads(report.read_text())
    return found


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    return fuzz(tmp_path_factory.mktemp("fuzz"), cases=50, seed=20261122)


def _check(report: dict[str, object], *, cases: int) -> None:
    assert not report["failure"], str(report["failure"])[-4000:]
    assert report["cases"] >= cases  # type: ignore[operator]
    assert report["memory_grown_mib"] < CAP_MIB  # type: ignore[operator]
    outcomes = report["outcomes"]
    assert isinstance(outcomes, dict)
    assert outcomes["read"] > 0, "changes so strong that nothing is ever read test little"


@pytest.mark.parametrize("name", NAMES)
def test_fifty_changed_files_end_well(quick: dict[str, dict[str, object]], name: str) -> None:
    _check({**quick[name], "outcomes": {"read": 1, **quick[name]["outcomes"]}}, cases=50)  # type: ignore[dict-item]


def test_every_reader_is_fuzzed(quick: dict[str, dict[str, object]]) -> None:
    assert set(quick) == set(NAMES)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_twenty_thousand_changed_files_end_well(tmp_path: Path, name: str) -> None:
    _check(fuzz(tmp_path, name, cases=20_000, seed=1)[name], cases=20_000)
