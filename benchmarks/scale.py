"""How far one machine goes: a million features through moments, and 100 000 x 100 000 neighbours.

    python benchmarks/scale.py                                       # both in full: an hour or more
    python benchmarks/scale.py --moments 20000 --neighbours 3000 --width 256      # a try
    python benchmarks/scale.py --neighbours 0                        # moments alone

Features are made on the fly from one seed a chunk, as a stream that nobody keeps. Peak memory is that of a
process of its own and includes the interpreter and the libraries. What is computed is checked: the moments
against those that the made-up features have, the neighbours against a small corner done by brute force.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from interleaved import save
from numpy.typing import NDArray

from evalkit.accumulators.moments import MomentsAccumulator
from evalkit.numerics import precision_recall_density_coverage
from evalkit.numerics.products import products_on

CHUNK = 1000
_CORNER = 1500
_GIB = 2**30
_PROMISED_GIB = {"moments": 1.0, "neighbours": 24.0}


def spread(width: int) -> NDArray[np.float32]:
    """Standard deviation of each dimension: very unequal, as in features of networks."""
    return (np.arange(1, width + 1) ** -0.35).astype(np.float32)


def chunks(
    count: int, width: int, *, seed: int, variety: float = 1.0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield features ``[CHUNK, width]`` and their indices; each chunk has a seed of its own."""
    deviation, offset = spread(width) * np.float32(variety), np.float32(3.0)
    for number, start in enumerate(range(0, count, CHUNK)):
        rows = min(CHUNK, count - start)
        made = np.random.default_rng((seed, number)).standard_normal((rows, width), dtype=np.float32)
        made *= deviation
        made += offset
        yield made, np.arange(start, start + rows, dtype=np.int64)


def moments(count: int, width: int) -> str:
    """Stream ``count`` features through the accumulator; say how far the moments are from the true ones."""
    accumulator = MomentsAccumulator()
    making = 0.0
    start = mark = time.perf_counter()
    for rows, index in chunks(count, width, seed=1):
        making += time.perf_counter() - mark
        accumulator.update(rows, index)
        mark = time.perf_counter()
    seconds = time.perf_counter() - start - making
    true = spread(width).astype(np.float64) ** 2
    # Standard error of a variance is sqrt(2 / n) of itself: six of them are no accident.
    error = float(np.abs(accumulator.covariance.diagonal() / true - 1).max())
    bound = 6 * (2 / count) ** 0.5
    if error > bound:
        raise RuntimeError(f"a variance is off by {error:.2e}, more than {bound:.2e}")
    rate = count * width**2 / 2 / seconds / 1e9
    return (
        f"moments of {count:,} x {width}: {seconds:.1f} s beside {making:.1f} s of making the features, "
        f"{rate:.1f} G multiply-adds/s; variances within {error:.1e}"
    )


def filled(count: int, width: int, *, seed: int, variety: float) -> NDArray[np.float32]:
    """Return all chunks as one array, with no second copy of them on the way."""
    features = np.empty((count, width), dtype=np.float32)
    for rows, index in chunks(count, width, seed=seed, variety=variety):
        features[index] = rows
    return features


def neighbours(count: int, width: int) -> str:
    """Compare ``count`` generated features with as many reference ones."""
    generated = filled(count, width, seed=1, variety=0.97)  # a model that lacks a little variety
    reference = filled(count, width, seed=2, variety=1.0)
    corner = min(count, _CORNER)
    _check_corner(generated[:corner], reference[:corner])
    start = time.perf_counter()
    with products_on("cpu"):
        scores = precision_recall_density_coverage(generated, reference, k=5)
    seconds = time.perf_counter() - start
    rate = 2 * count**2 * width / seconds / 1e9
    return (
        f"precision, recall, density and coverage of {count:,} x {count:,}, d = {width}: {seconds:.1f} s, "
        f"{rate:.1f} G multiply-adds/s; precision {scores.precision:.4f}, recall {scores.recall:.4f}, "
        f"density {scores.density:.4f}, coverage {scores.coverage:.4f}"
    )


def _check_corner(generated: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    """Precision of a few rows against every distance written out (Kynkäänniemi et al. 2019, eqs. 1-2)."""
    found = precision_recall_density_coverage(generated, reference, k=5)
    ours, theirs = generated.astype(np.float64), reference.astype(np.float64)
    within = np.sort(_distances(theirs, theirs), axis=1)[:, 5]
    expected = float((_distances(ours, theirs) <= within).any(axis=1).mean())
    if abs(found.precision - expected) > 1 / len(ours):
        raise RuntimeError(f"precision of the corner is {found.precision}, not {expected}")


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squared, 0.0))


WORK: dict[str, Callable[[int, int], str]] = {"moments": moments, "neighbours": neighbours}


def alone(kind: str, count: int, width: int) -> str:
    """Do one of them in a process of its own; return what it says, with its peak memory."""
    command = [sys.executable, str(Path(__file__)), "--inner", kind, str(count), str(width)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file
    said = json.loads(done.stdout.splitlines()[-1])
    peak = said["peak"] / _GIB
    promised = _PROMISED_GIB[kind]
    verdict = "met" if peak <= promised else "missed"
    return f"{said['text']}; peak memory {peak:.2f} GiB (promised: {promised:g} GiB: {verdict})"


def _inner(kind: str, count: int, width: int) -> None:
    text = WORK[kind](count, width)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"text": text, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=1_000_000, help="features; 0 leaves them out")
    parser.add_argument("--neighbours", type=int, default=100_000, help="features a side; 0 leaves them out")
    parser.add_argument("--width", type=int, default=2048, help="dimensions")
    parser.add_argument("--save", action="store_true", help="write results/scale.json")
    parser.add_argument("--inner", nargs=3, metavar=("KIND", "N", "D"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        kind, count, width = arguments.inner
        _inner(kind, int(count), int(width))
        return
    lines = []
    for kind, count in (("moments", arguments.moments), ("neighbours", arguments.neighbours)):
        if count:
            lines.append(alone(kind, count, arguments.width))
            print(lines[-1], flush=True)
    if arguments.save:
        save("scale", [], lines=lines)


if __name__ == "__main__":
    main()
