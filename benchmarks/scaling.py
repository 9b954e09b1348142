"""How much faster two workers are than one: a whole ``evalkit score`` of a bundled generator on two cores.

    python benchmarks/scaling.py                 # ten minutes on two idle cores
    python benchmarks/scaling.py --rounds 1 --num-samples 256

Each worker has one thread. The contenders are whole commands in fresh folders, start-up included: two ranks
of ``torchrun``; two processes of ``--shard`` side by side and then ``merge``; and one process. The same
commands with a single shard for each worker show the start-up; the rest is the work that is shared. The
scores of the three are compared first: they must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from interleaved import Comparison, interleaved, save

WORKERS = 2
START_UP = 16  # images: a shard for each worker
TORCHRUN, SHARDS, ONE = (
    "evalkit, torchrun with 2 ranks",
    "evalkit, 2 x --shard and merge",
    "evalkit, 1 process",
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment() -> dict[str, str]:
    """Return that of a worker with one thread."""
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), "EVALKIT_OFFLINE": "1"}


def score(model: str, images: int, out: Path) -> list[str]:
    """Return the arguments of ``evalkit`` that score ``images`` images of ``model``."""
    return [
        "score", "--model", model, "--num-samples", str(images), "--protocol", "embedded", "--device", "cpu",
        "--out", str(out), "--format", "json",
    ]  # fmt: skip


def command(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start ``python`` with ``arguments``, quietly."""
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )


def finished(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for all; return what each printed."""
    texts = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a worker failed: {[process.args for process in processes]}")
    return texts


def by_torchrun(model: str, images: int) -> str:
    """Score by the ranks of one machine."""
    with tempfile.TemporaryDirectory() as out:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
        return finished([command([*launch, "-m", "evalkit", *score(model, images, Path(out))])])[0]


def by_shards(model: str, images: int) -> str:
    """Score by processes that know nothing of each other."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["-m", "evalkit", *score(model, images, Path(out))]
        finished([command([*arguments, "--shard", f"{n + 1}/{WORKERS}"]) for n in range(WORKERS)])
        return finished([command(["-m", "evalkit", "merge", out, "--format", "json"])])[0]


def by_one(model: str, images: int) -> str:
    """Score by one process."""
    with tempfile.TemporaryDirectory() as out:
        return finished([command(["-m", "evalkit", *score(model, images, Path(out))])])[0]


WAYS: dict[str, Callable[[str, int], str]] = {TORCHRUN: by_torchrun, SHARDS: by_shards, ONE: by_one}


def check_equal(model: str, images: int) -> None:
    """Refuse to time what does not give equal scores."""
    results = [json.loads(way(model, images))["results"] for way in WAYS.values()]
    if any(result != results[0] for result in results):
        raise SystemExit("the scores differ")


def compared(model: str, images: int, *, rounds: int) -> Comparison:
    """Time the three ways in turns."""
    return interleaved(
        f"evalkit score --model {model} --num-samples {images:,}, one thread a worker",
        {name: partial(way, model, images) for name, way in WAYS.items()},
        rounds=rounds,
        warm_up=False,
        amount=images,
        unit="images",
    )


def efficiency(whole: Comparison, start_up: Comparison) -> list[str]:
    """Return a line for each way of sharing: of the whole command, and of the work beyond its start-up."""
    lines = []
    for name in (TORCHRUN, SHARDS):
        pairs = zip(whole.seconds[ONE], whole.seconds[name], strict=True)
        total = statistics.median(one / two / WORKERS for one, two in pairs)
        one, two = (min(whole.seconds[way]) - min(start_up.seconds[way]) for way in (ONE, name))
        seconds = f"{min(start_up.seconds[name]):.1f} s; of 1 process {min(start_up.seconds[ONE]):.1f} s"
        lines.append(
            f"scaling efficiency, {name}: {total:.0%} of the whole command, "
            f"{one / two / WORKERS:.0%} of the work beyond its start-up ({seconds})"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vae")
    parser.add_argument("--num-samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    check_equal(options.model, START_UP)
    start_up = compared(options.model, START_UP, rounds=options.rounds)
    whole = compared(options.model, options.num_samples, rounds=options.rounds)
    lines = efficiency(whole, start_up)
    for text in (start_up.text(), whole.text(), *lines):
        print(text)
    print(f"wrote {save('scaling', [whole, start_up], lines=lines)}")


if __name__ == "__main__":
    main()
