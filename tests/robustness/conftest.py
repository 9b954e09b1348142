"""What the fault tests share: the command line in this process and in others, and what the table shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import run
from evalkit.generators.toy import GaussianTiles
from evalkit.sample_files import write_samples
from evalkit.seeding import image_seeds

TOY = "evalkit.generators.toy:make"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """Exit code and what was told last, without the hint, for the table."""
        last = self.err.rpartition("evalkit: ")[2].partition("   hint: ")[0]
        return f"exit {self.code}: {' '.join(last.split())}" if last else f"exit {self.code}"


@pytest.fixture
def observed(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note in words what happened; docs/robustness.md shows it beside what was expected."""

    def note(text: str) -> None:
        request.node.user_properties.append(("observed", " ".join(text.split())))

    return note


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz of 300 real images."""
    path = tmp_path_factory.mktemp("real") / "real.npz"
    write_samples(path, GaussianTiles().generate(image_seeds(7, np.arange(300))).numpy(), labels=None)
    return path


@pytest.fixture
def evalkit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def score(evalkit: Callable[..., Outcome], real: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Score 64 images of the toy model, or what the arguments say, into ``tmp_path / "out"``."""

    def call(*arguments: object) -> Outcome:
        given = {str(argument) for argument in arguments}
        fixed: list[object] = ["score", "--protocol", "pixels"]
        fixed += [] if "--metrics" in given else ["--metrics", "fd"]
        fixed += [] if "--out" in given else ["--out", tmp_path / "out"]
        fixed += [] if "--reference" in given else ["--reference", real]
        fixed += [] if given & {"--images", "--model"} else ["--model", TOY]
        fixed += [] if given & {"--images", "--num-samples"} else ["--num-samples", "64"]
        return evalkit(*fixed, *arguments)

    return call


def environment(**changes: str | None) -> dict[str, str]:
    """Return the environment of another process: this one's, changed; None removes."""
    kept = {key: value for key, value in os.environ.items() if key not in changes}
    return kept | {key: value for key, value in changes.items() if value is not None}


def elsewhere(*arguments: object, **options: object) -> Outcome:
    """Run a command in another process."""
    command = [sys.executable, "-m", "evalkit.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=300, **options)  # type: ignore[call-overload]
    return Outcome(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
