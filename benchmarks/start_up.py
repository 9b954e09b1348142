"""Start-up: ``evalkit --help`` against the peers' commands, and the distance of two statistics files.

    python benchmarks/start_up.py

Every run is a fresh process, started by the same interpreter; the contenders alternate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from interleaved import OURS, Comparison, interleaved, save

WIDTH, COUNT = 2048, 6000
SCRIPTS = Path(sysconfig.get_path("scripts"))
HELP_LIMIT, DISTANCE_LIMIT = 0.2, 2.0  # seconds promised on two quiet cores


def command(*arguments: str) -> Callable[[], str]:
    """A fresh process; its output."""

    def run() -> str:
        return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ours

    return run


def limit(comparison: Comparison, seconds: float) -> str:
    """Whether our median is within a promised time."""
    median = statistics.median(comparison.seconds[OURS])
    return f"evalkit {median:.2f} s, promised {seconds:g} s: {'met' if median <= seconds else 'MISSED'}"


def start_up(rounds: int) -> Comparison:
    """``--help`` of each command line."""
    return interleaved(
        "--help",
        {
            OURS: command(str(SCRIPTS / "evalkit"), "--help"),
            "pytorch-fid": command(sys.executable, "-m", "pytorch_fid", "--help"),
            "fidelity": command(str(SCRIPTS / "fidelity"), "--help"),
        },
        rounds=rounds,
        target={"pytorch-fid": 20, "fidelity": 20},
    )


def statistics_files(rounds: int, folder: Path) -> Comparison:
    """The distance of two files of mu and sigma."""
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((WIDTH, WIDTH)))[0]
    files = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((COUNT, WIDTH)) * np.logspace(0, -2, WIDTH) * (1 + 0.2 * seed) @ turn
        files.append(str(folder / f"{seed}.npz"))
        np.savez(files[-1], mu=x.mean(axis=0), sigma=np.cov(x, rowvar=False))
    ours = command(str(SCRIPTS / "evalkit"), "reference", "distance", *files, "--format", "json")
    loads_torch = (
        "import sys; from evalkit.cli.main import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    )
    arguments = ("reference", "distance", *files)
    told = command(sys.executable, "-c", loads_torch, *arguments)().splitlines()[-1]
    # Its own command builds the network, and downloads it, even where both paths are statistics. SciPy no
    # longer knows the ``disp`` that it passes.
    peer = (
        "import sys; import numpy as np; from scipy import linalg; root = linalg.sqrtm\n"
        "linalg.sqrtm = lambda m, disp=True: root(m) if disp else (root(m), 0)\n"
        "from pytorch_fid import fid_score as f\n"
        "a, b = (np.load(path) for path in sys.argv[1:])\n"
        "print(f.calculate_frechet_distance(a['mu'], a['sigma'], b['mu'], b['sigma']))"
    )
    ours_found = json.loads(ours())["value"]
    found = float(command(sys.executable, "-c", peer, *files)())
    return interleaved(
        f"Fréchet distance of two {WIDTH}-d statistics files, a process each",
        {OURS: ours, "pytorch-fid's function": command(sys.executable, "-c", peer, *files)},
        rounds=rounds,
        warm_up=False,
        notes=[f"torch loaded by evalkit: {told}", f"relative difference: {abs(found / ours_found - 1):.0e}"],
    )


def main() -> None:
    """Parse the flags and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    helped = start_up(flags.rounds)
    with tempfile.TemporaryDirectory() as folder:
        measured = statistics_files(flags.rounds, Path(folder))
    lines = [
        f"--help: {limit(helped, HELP_LIMIT)}",
        f"distance of two statistics files: {limit(measured, DISTANCE_LIMIT)}",
    ]
    print("\n\n".join([helped.text(), measured.text(), *lines]))
    save("start_up", [helped, measured], lines=lines)


if __name__ == "__main__":
    main()
