"""Mean and covariance of 50 000 features of 2048 dimensions in float64 against numpy and torchmetrics.

    python benchmarks/moments.py            50 000 rows, in batches of 64 and of 1000
    python benchmarks/moments.py --curve    seconds against N and d, to moments_curve.csv

A batch is what one call hands over: 64 images are what an extraction brings, where the d x d sum is read and
written for each; 1000 are the most that suit the peer. numpy.cov gets everything at once.

A symmetric rank-k update of d x d counts n d^2 operations: half of a full product, whose rate is the ceiling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from curves import Point, write_curve
from interleaved import OURS, Comparison, ceilings, interleaved, peak_memory, roofline, save
from torchmetrics.image.fid import FrechetInceptionDistance

from evalkit.accumulators.moments import MomentsAccumulator

WIDTH, COUNT, BATCH = 2048, 50_000, 1000
SMALL_BATCH = 64
Array = np.ndarray[Any, np.dtype[Any]]


class _Features(torch.nn.Module):
    """Stands for a network whose features are its images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def by_evalkit(x: Array, batch: int = BATCH) -> Array:
    """Covariance by the accumulator, a batch at a time."""
    moments = MomentsAccumulator()
    for start in range(0, len(x), batch):
        rows = x[start : start + batch]
        moments.update(rows, np.arange(start, start + len(rows)))
    return moments.covariance


def by_numpy(x: Array, batch: int = BATCH) -> Array:  # noqa: ARG001 - as the others
    """Covariance of everything at once."""
    return np.cov(x, rowvar=False, dtype=np.float64)


def by_torchmetrics(x: Array, batch: int = BATCH) -> Array:
    """FID's sums over batches, and the covariance that its ``compute`` makes of them."""
    metric = FrechetInceptionDistance(feature=_Features(x.shape[1]))
    for start in range(0, len(x), batch):
        metric.update(torch.from_numpy(x[start : start + batch]), real=False)
    mean = metric.fake_features_sum / len(x)
    outer = len(x) * mean[:, None] @ mean[None]
    return np.asarray(((metric.fake_features_cov_sum - outer) / (len(x) - 1)).numpy())


CONTENDERS: Mapping[str, Callable[..., Array]] = {
    OURS: by_evalkit,
    "numpy.cov": by_numpy,
    "torchmetrics": by_torchmetrics,
}


def features(count: int, width: int) -> Array:
    """Float32 features."""
    return np.random.default_rng([count, width]).standard_normal((count, width), dtype=np.float32)


def with_offset() -> str:
    """Error of each contender where the mean is 100 times the spread, against long double."""
    x = np.random.default_rng(1).standard_normal((5000, 48)) + 100
    wide = x.astype(np.longdouble)
    wide -= wide.mean(axis=0)
    exact = (wide.T @ wide / (len(x) - 1)).astype(np.float64)
    found = {
        name: float(np.linalg.norm(run(x) - exact) / np.linalg.norm(exact))
        for name, run in CONTENDERS.items()
    }
    return "relative error with an offset of 100: " + ", ".join(f"{n} {e:.0e}" for n, e in found.items())


def peak_of(name: str, count: int) -> None:
    """Moments of batches that are made as they are needed, for :func:`peak_memory`."""
    if name != OURS:
        CONTENDERS[name](features(count, WIDTH))
        return
    moments = MomentsAccumulator()
    for start in range(0, count, BATCH):
        batch = features(BATCH, WIDTH)
        moments.update(batch, np.arange(start, start + BATCH))
    _ = moments.covariance


def compare(rounds: int) -> tuple[list[Comparison], list[str]]:
    """50 000 rows, and what each needs beside."""
    x, ceiling = features(COUNT, WIDTH), ceilings()
    found = [
        interleaved(
            f"mean and covariance of {COUNT} x {WIDTH} float32 features in float64, batches of {batch}",
            {name: partial(CONTENDERS[name], x, batch) for name in (OURS, *target)}, rounds=rounds,
            target=target, notes=notes,
        )
        for batch, target, notes in (
            (SMALL_BATCH, {"torchmetrics": 2.5}, []),
            (BATCH, {"numpy.cov": 1.2, "torchmetrics": 2.5}, [with_offset()]),
        )
    ]  # fmt: skip
    ceiling = ceiling.raised()
    line = roofline(
        f"moments of {COUNT} x {WIDTH} (n d^2 operations)", operations=COUNT * WIDTH**2,
        traffic=4 * COUNT * WIDTH, seconds=min(found[-1].seconds[OURS]), ceiling=ceiling.float64,
        memory=ceiling.memory,
    )  # fmt: skip
    peaks = {
        f"evalkit {BATCH * 5}": peak_memory(peak_of, OURS, BATCH * 5),
        f"evalkit {COUNT}": peak_memory(peak_of, OURS, COUNT),
        f"numpy.cov {COUNT}, its features included": peak_memory(peak_of, "numpy.cov", COUNT),
    }
    told = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items())
    return found, [line, f"peak memory: {told}"]


def curve() -> None:
    """Seconds against N at 2048 dimensions, and against d at 10 000 rows: the better of two."""
    shapes = [("N", n, (n, WIDTH)) for n in (1000, 2000, 5000, 10_000, 20_000, COUNT)]
    shapes += [("d", d, (10_000, d)) for d in (64, 256, 512, 1024, 2048)]
    rows = []
    for variable, at, shape in shapes:
        work = f"moments, {'d = 2048' if variable == 'N' else 'N = 10 000'}"
        x = features(*shape)
        for name, run in CONTENDERS.items():
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                run(x)
                seconds.append(time.perf_counter() - start)
            rows.append(Point(work, variable, at, name, min(seconds)))
    write_curve("moments", rows)


def main() -> None:
    """Parse the flags and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", action="store_true", help="write moments_curve.csv instead")
    flags = parser.parse_args()
    if flags.curve:
        curve()
        return
    found, lines = compare(flags.rounds)
    print("\n".join([*(comparison.text() for comparison in found), *lines]))
    save("moments", found, lines=lines)


if __name__ == "__main__":
    main()
