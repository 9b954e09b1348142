"""Two small runs in pixel space, with their state beside them, and one Chromium a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.record import RunRecord
from evalkit.sample_files import write_samples

COUNT = 64
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Runs:
    """Records of one folder by model id, and the real images that they were scored against."""

    folder: Path
    real: Path
    files: dict[str, Path]

    def record(self, name: str) -> RunRecord:
        return RunRecord.read(self.files[name])


def scored(folder: Path, *flags: str) -> Path:
    """Score through the command line; return the new record's file."""
    before = set(folder.glob("*.json"))
    assert run(["score", *flags, "--out", str(folder)]) == 0
    (file,) = set(folder.glob("*.json")) - before
    return file


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """``cgan`` (conditional) and ``vae`` under the protocol of pixels: seconds, and no network to run."""
    folder = tmp_path_factory.mktemp("portrait")
    real = folder / "real.npz"
    draws = np.random.default_rng(3).integers(0, 256, (80, 3, 4, 4), dtype=np.uint8)
    write_samples(real, draws.repeat(8, axis=2).repeat(8, axis=3), labels=None)
    with pytest.MonkeyPatch.context() as patch:
        files = {}
        for name in ("cgan", "vae"):
            flags = [
                "--model", name, "--protocol", "pixels", "--reference", str(real),
                "--num-samples", str(COUNT),
                "--metrics", "kd,fd,precision,realism", "--out", str(folder / "runs"),
            ]  # fmt: skip
            patch.setattr("sys.argv", ["evalkit", "score", *flags])
            files[name] = scored(folder / "runs", *flags[:-2])
    return Runs(folder, real, files)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright")
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(_BROWSERS)} is installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
