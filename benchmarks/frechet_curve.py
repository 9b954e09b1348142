"""Seconds of the Fréchet distance against d and N, for ``python benchmarks/frechet.py --curve``."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from frechet import DISTANCES, MOMENTS, PEERS, features, moments, to_factor
from interleaved import OURS

from evalkit.numerics import gaussian_factor

CURVE = Path(__file__).parent / "frechet_curve.csv"


def write_curve(path: Path = CURVE) -> None:
    """Seconds from moments against d, and from features against N, best of three."""
    rows = []
    for width in (64, 128, 256, 512, 1024, 2048):
        sides = [moments(features(2 * width, width, seed)) for seed in (1, 0)]
        for name, run in DISTANCES.items():
            rows.append(("d", width, name, _best(partial(run, *sides), 1 if name == "pytorch-fid" else 3)))
    real = moments(features(4000))
    factor = gaussian_factor(*real)
    for count in (500, 1000, 2000, 5000, 10_000, 20_000):
        x = features(count, seed=1)
        rows.append(("N", count, OURS, _best(partial(to_factor, x, factor), 3)))
        for name in PEERS[:2]:
            seconds = _best(lambda x=x, name=name: DISTANCES[name](MOMENTS[name](x), real), 2)
            rows.append(("N", count, name, seconds))
        features.cache_clear()
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("axis", "size", "contender", "seconds"), *rows])
    print(f"wrote {path}")


def _best(run: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return round(min(found), 5)
