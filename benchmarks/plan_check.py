"""How near `evalkit plan` comes: what it says beforehand, against the clock and the memory of the run itself.

    python benchmarks/plan_check.py                  # four small runs
    python benchmarks/plan_check.py --rounds 3 --only cgan

Each round plans and then scores, both as commands of their own, so that a machine that is slower for a while
is slower for both. Predicted over actual should lie within a factor of 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from interleaved import save

FACTOR = 1.5
_EVALKIT = (sys.executable, "-m", "evalkit.cli")
_TOY = "evalkit.generators.toy:make"


@dataclass(frozen=True)
class Case:
    """Flags of a run; ``FOLDER`` in them is where its images were drawn to."""

    name: str
    flags: tuple[str, ...]
    draw: tuple[str, ...] = ()


CASES = (
    Case("a GAN, 1 024 images, all of embedded", ("--model", "cgan", "--num-samples", "1024")),
    Case("DDPM in 5 steps, 96 images", ("--model", "ddpm", "--steps", "5", "--num-samples", "96")),
    Case(
        "1 024 PNG files, FD and KD",
        ("--images", "FOLDER", "--reference", "cifar10-jpeg-train", "--metrics", "fd,kd"),
        ("--model", "cgan", "-n", "1024"),
    ),
    Case(
        "6 000 made-up images without a network: numerics",
        ("--model", _TOY, "--protocol", "pixels", "--num-samples", "6000", "--reference", "FOLDER"),
        ("--model", _TOY, "-n", "4000"),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """Seconds and bytes of one round, predicted and actual."""

    predicted_seconds: float
    actual_seconds: float
    predicted_bytes: int
    actual_bytes: int
    plan_seconds: float


def measured(flags: tuple[str, ...], folder: Path) -> Outcome:
    """Plan a run, then make it."""
    start = time.perf_counter()
    planned = subprocess.run(  # noqa: S603 - evalkit
        [*_EVALKIT, "plan", *flags, "--out", str(folder / "out"), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    plan_seconds = time.perf_counter() - start
    estimate = json.loads(planned.stdout)
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - evalkit
        [*_EVALKIT, "score", *flags, "--out", str(folder / "out")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"evalkit score {' '.join(flags)} ended with {process.returncode}")
    return Outcome(
        estimate["seconds"], seconds, estimate["memory_bytes"], usage.ru_maxrss * 1024, plan_seconds
    )


def run(case: Case, rounds: int) -> list[Outcome]:
    """Draw the images of a case once, then plan and score it a few times, each time afresh."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if case.draw:
            # An npz where images stand for a reference, so that reading them is no work.
            images = folder / ("images" if "--images" in case.flags else "images.npz")
            subprocess.run(  # noqa: S603 - evalkit
                [*_EVALKIT, "sample", *case.draw, "--out", str(images)], check=True, capture_output=True
            )
            flags = tuple(str(images) if flag == "FOLDER" else flag for flag in case.flags)
        else:
            flags = case.flags
        return [measured(flags, folder / str(number)) for number in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    lines = []
    for case in CASES:
        if arguments.only.lower() not in case.name.lower():
            continue
        outcomes = run(case, arguments.rounds)
        lines.append(said(case, outcomes))
        print(lines[-1], flush=True)
    if not arguments.only:
        save("plan_check", [], lines=lines)


def said(case: Case, outcomes: list[Outcome]) -> str:
    """Return one line: medians over the rounds, and the range of what was predicted over what it took."""
    ratios = sorted(one.predicted_seconds / one.actual_seconds for one in outcomes)
    memory = statistics.median(one.predicted_bytes / one.actual_bytes for one in outcomes)
    seconds = statistics.median(one.actual_seconds for one in outcomes)
    planning = statistics.median(one.plan_seconds for one in outcomes)
    peak = max(one.actual_bytes for one in outcomes) / 2**20
    middle = statistics.median(ratios)
    verdict = "met" if 1 / FACTOR <= middle <= FACTOR else "missed"
    return (
        f"{case.name}: {seconds:.1f} s, predicted {middle:.2f} x that ({ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"promised: within {FACTOR}: {verdict}); peak {peak:.0f} MiB, predicted {memory:.2f} x that; "
        f"planning took {planning:.1f} s"
    )


if __name__ == "__main__":
    main()
