"""Runs that take a tenth of a second: a generator with a closed form, its pixels, and real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.generators.toy import GaussianTiles
from evalkit.record import RunRecord
from evalkit.request import ScoreRequest
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

TOY = "evalkit.generators.toy:make"
# What may differ between two runs of the same images: when, how long, and what was typed.
_PROVENANCE = ("run_id", "created_utc", "duration_seconds", "perf", "command")

MakeRequest = Callable[..., ScoreRequest]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.npz"
    images = GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy()
    write_samples(path, images, labels=None)
    return path


@pytest.fixture
def asked(real: Path, tmp_path: Path) -> MakeRequest:
    def make(out: str = "out", **changes: Any) -> ScoreRequest:
        settings: dict[str, Any] = {
            "model": TOY, "protocol": "pixels", "reference": str(real), "num_samples": 130, "strict": True,
        }  # fmt: skip
        return ScoreRequest(**{**settings, **changes}, out=tmp_path / out)

    return make


@pytest.fixture(scope="session")
def judged() -> Callable[[RunRecord], dict[str, Any]]:
    """What a record says of the images, and not of the run that looked at them."""

    def of(record: RunRecord) -> dict[str, Any]:
        data = record.to_json()
        return {key: value for key, value in data.items() if key not in _PROVENANCE}

    return of
