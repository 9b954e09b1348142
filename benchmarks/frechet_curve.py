"""Seconds of the Fréchet distance against d and N, for ``python benchmarks/frechet.py --curve``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from curves import Point, write_curve
from frechet import DISTANCES, MOMENTS, PEERS, features, moments, to_factor
from interleaved import OURS

from evalkit.numerics import gaussian_factor


def write() -> None:
    """Seconds from moments against d, and from features against N, best of three."""
    rows = []
    for width in (64, 128, 256, 512, 1024, 2048):
        sides = [moments(features(2 * width, width, seed)) for seed in (1, 0)]
        for name, run in DISTANCES.items():
            seconds = _best(partial(run, *sides), 1 if name == "pytorch-fid" else 3)
            rows.append(Point("Fréchet distance from moments", "d", width, name, seconds))
    real = moments(features(4000))
    factor = gaussian_factor(*real)
    work = "Fréchet distance from features, d = 2048"
    for count in (500, 1000, 2000, 5000, 10_000, 20_000):
        x = features(count, seed=1)
        rows.append(Point(work, "N", count, OURS, _best(partial(to_factor, x, factor), 3)))
        for name in PEERS[:2]:
            seconds = _best(lambda x=x, name=name: DISTANCES[name](MOMENTS[name](x), real), 2)
            rows.append(Point(work, "N", count, name, seconds))
        features.cache_clear()
    write_curve("frechet", rows)


def _best(run: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)
