"""How few images give the Fréchet distance of many? Prediction against observation, on real features.

The generated side is every image of seven classes outside the reference ("a model that dropped three
classes"), the reference 25 000 images of all ten. From random subsets of N images the distance at all of them
is predicted and compared with what is observed there. One row of the CSV is one repetition.

    python benchmarks/sample_efficient_fd.py features train.parquet train.npz     # 1 minute per 4 000 images
    python benchmarks/sample_efficient_fd.py features test.parquet test.npz
    python benchmarks/sample_efficient_fd.py measure train.npz test.npz --head block --repetitions 300 \
        --out block.csv
    python benchmarks/sample_efficient_fd.py measure train.npz test.npz --head pooled --repetitions 20 \
        --out pooled.csv
    python benchmarks/sample_efficient_fd.py report block.csv pooled.csv \
        --out benchmarks/sample_efficient_fd.csv --figure docs/figures/sample_efficient_fd

``bias`` has the sampling noise that a linear term explains taken off: the subset's mean influence (its
expectation over subsets is exactly zero). The subsets come from the finite pool that is also the observation,
so ``coverage`` is that of intervals narrowed by ``sqrt(1 - N / pool)``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evalkit.core import FeatureSet
from evalkit.extractors import build_extractor
from evalkit.metrics.frechet import FrechetDistance
from evalkit.numerics import GaussianFactor, gaussian_factor, jackknife
from evalkit.numerics.extrapolation import ShiftedDistances, extrapolated, root_trace_at
from evalkit.seeding import stream
from evalkit.sources import open_source

HEADS = ("block", "pooled")
RATIOS = (1.2, 1.6, 2.0, 3.0, 5.0)
LADDER = (2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 26.0, 40.0, 60.0)  # of the raw distance, for the table of cost
BLOCKS = 16
KEPT_CLASSES = 7
REFERENCE_IMAGES = 25_000
COLUMNS = (
    "head", "dimension", "pool", "observed", "repetition", "n", "raw", "influence", "first_order",
    "spectrum", "predicted", "stderr", "low", "high",
)  # fmt: skip


@dataclass(frozen=True)
class Statistics:
    """Sums of one block, in feature space (mean, squares) and in the reference's coordinates."""

    count: int
    gap: np.ndarray
    squares: float
    centre: np.ndarray
    scatter: np.ndarray


class Pool:
    """All images of the generated side, seen from a fixed reference."""

    def __init__(self, features: np.ndarray, reference: np.ndarray) -> None:
        self.reference = reference
        self.features = features
        mean, cov = reference.mean(axis=0), np.cov(reference, rowvar=False)
        self.factor: GaussianFactor = gaussian_factor(mean, cov)
        self.offsets = features - mean
        self.projected = self.offsets @ self.factor.factor
        self.squares = np.square(self.offsets).sum(axis=1)
        whole = self.spread(self.statistics(np.arange(len(features))))
        self.observed = whole[0]
        self.influence = self._influence()

    @property
    def dimension(self) -> int:
        """Rank of the reference."""
        return self.factor.factor.shape[1]

    def statistics(self, index: np.ndarray) -> Statistics:
        """Return the sums of the images at ``index``."""
        rows = self.projected[index]
        centre = rows.mean(axis=0)
        rows = rows - centre
        gap = self.offsets[index].mean(axis=0)
        return Statistics(len(index), gap, float(self.squares[index].sum()), centre, rows.T @ rows)

    def spread(self, s: Statistics) -> tuple[float, float, np.ndarray]:
        """Return the distance, the trace of the covariance, and the eigenvalues of ``F^T S F``."""
        trace = (s.squares - s.count * float(s.gap @ s.gap)) / (s.count - 1)
        values = np.clip(np.linalg.eigvalsh(s.scatter / (s.count - 1)), 0, None)
        distance = float(s.gap @ s.gap) + trace + self.factor.trace - 2 * float(np.sqrt(values).sum())
        return distance, trace, values

    def shifted(self, s: Statistics, at: float) -> tuple[float, float]:
        """Return the distance and its shift to ``at`` images, as ``distance_shifts`` defines it."""
        distance, trace, values = self.spread(s)
        there, here = root_trace_at(values, count=s.count, at=[at, s.count])
        return distance, float(trace * (1 / at - 1 / s.count) - 2 * (there - here))

    def _influence(self) -> np.ndarray:
        """First-order influence of each image on the distance of the pool, mean zero."""
        gap = self.offsets.mean(axis=0)
        rows = self.projected - self.projected.mean(axis=0)
        values, vectors = np.linalg.eigh(rows.T @ rows / (len(rows) - 1))
        root = vectors / np.sqrt(np.sqrt(values))
        term = 2 * self.offsets @ gap + np.square(self.offsets - gap).sum(axis=1)
        term -= np.square(rows @ root).sum(axis=1)
        return np.asarray(term - term.mean())


def merged(parts: Sequence[Statistics]) -> Statistics:
    count = sum(p.count for p in parts)
    centre = sum(p.count * p.centre for p in parts) / count
    gap = sum(p.count * p.gap for p in parts) / count
    scatter = sum(p.scatter + p.count * np.outer(p.centre - centre, p.centre - centre) for p in parts)
    return Statistics(count, gap, sum(p.squares for p in parts), centre, scatter)


def repetition(pool: Pool, index: np.ndarray) -> dict[str, float]:
    """Predict the distance of the whole pool from the images at ``index``."""
    at = float(len(pool.features))
    parts = [pool.statistics(part) for part in np.array_split(index, BLOCKS)]
    sizes = [part.count for part in parts]
    value, shift = pool.shifted(merged(parts), at)
    rest = np.array([pool.shifted(merged(parts[:j] + parts[j + 1 :]), at) for j in range(BLOCKS)])
    measured = ShiftedDistances(value, np.array([shift]), rest[:, 0], rest[:, 1:])
    (found,) = extrapolated(measured, sizes=sizes, at=[at])
    limit = jackknife(value, rest[:, 0], sizes=sizes).bias_corrected
    return {
        "n": len(index), "raw": value, "influence": float(pool.influence[index].mean()),
        "first_order": limit + (value - limit) * len(index) / at, "spectrum": value + shift,
        "predicted": found.value, "stderr": found.stderr, "low": found.low, "high": found.high,
    }  # fmt: skip


def check_against_metric(pool: Pool, index: np.ndarray) -> None:
    """The shortcut through projected features must give what the metric gives."""
    blocks = tuple(pool.features[part].astype(np.float32) for part in np.array_split(index, BLOCKS))

    class Reference:
        count, mean = len(pool.reference), pool.reference.mean(axis=0)
        covariance = np.cov(pool.reference, rowvar=False)

    metric = FrechetDistance(report_at=len(pool.features))
    score = metric.compute(FeatureSet(blocks), Reference(), rng=np.random.default_rng(0))
    ours = repetition(pool, index)
    label = f"predicted_{len(pool.features)}"
    pairs = [(score.value, "raw"), (score.details[label], "predicted")]
    pairs.append((score.details[f"{label}_stderr"], "stderr"))
    for theirs, name in pairs:
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-6)


def features(options: argparse.Namespace) -> None:
    """Extract both heads of the embedded extractor from labelled images."""
    source = open_source(options.images)
    extractor = build_extractor("efficientnet-lite0")
    found: dict[str, list[np.ndarray]] = {head: [] for head in HEADS}
    labels = []
    for part in np.array_split(np.arange(len(source)), max(len(source) // 256, 1)):
        batch = source.read(part)
        with torch.inference_mode():
            rows = extractor(torch.stack(list(batch.images)), list(HEADS))
        labels.append(batch.labels)
        for head in HEADS:
            found[head].append(rows[head].numpy())
    arrays = {head: np.concatenate(rows) for head, rows in found.items()}
    np.savez(options.out, labels=np.concatenate(labels), index=np.arange(len(source)), **arrays)


def measure(options: argparse.Namespace) -> None:
    """Write one row for every repetition at every N/d, and the ladder of raw distances."""
    files = [np.load(path) for path in options.features]
    rows = np.concatenate([file[options.head] for file in files]).astype(np.float64)
    labels = np.concatenate([file["labels"] for file in files])
    order = stream(0, "subset").permutation(len(rows))
    rest = order[REFERENCE_IMAGES:]
    pool = Pool(rows[rest[labels[rest] < KEPT_CLASSES]], rows[order[:REFERENCE_IMAGES]])
    total = len(pool.features)

    def subset(count: int, number: int) -> np.ndarray:
        return stream(number, "subset", count).permutation(total)[:count]

    check_against_metric(pool, subset(2 * pool.dimension, 0))
    facts = {"head": options.head, "dimension": pool.dimension, "pool": total, "observed": pool.observed}
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number in range(options.repetitions):
            for ratio in RATIOS:
                row = repetition(pool, subset(round(ratio * pool.dimension), number))
                writer.writerow(rounded({**facts, "repetition": number, **row}))
            for ratio in LADDER if number < options.ladder_repetitions else ():
                index = subset(round(ratio * pool.dimension), 10_000 + number)
                if len(index) == round(ratio * pool.dimension):
                    raw = pool.spread(pool.statistics(index))[0]
                    row = {"n": len(index), "raw": raw, "influence": float(pool.influence[index].mean())}
                    writer.writerow(rounded({**facts, "repetition": 10_000 + number, **row}))
            file.flush()


def rounded(row: dict[str, object]) -> dict[str, object]:
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}


def report(options: argparse.Namespace) -> None:
    """Print the tables, join the CSV files and draw the figure."""
    from sample_efficient_fd_report import draw, joined, tables  # noqa: PLC0415 - it needs matplotlib

    rows = joined(options.measured, options.out)
    print(tables(rows))
    draw(rows, options.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    extract = commands.add_parser("features")
    extract.add_argument("images", type=Path)
    extract.add_argument("out", type=Path)
    extract.set_defaults(run=features)
    measuring = commands.add_parser("measure")
    measuring.add_argument("features", type=Path, nargs="+")
    measuring.add_argument("--head", choices=HEADS, required=True)
    measuring.add_argument("--repetitions", type=int, default=20)
    measuring.add_argument("--ladder-repetitions", type=int, default=20)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.set_defaults(run=measure)
    reporting = commands.add_parser("report")
    reporting.add_argument("measured", type=Path, nargs="+")
    reporting.add_argument("--out", type=Path, required=True)
    reporting.add_argument("--figure", type=Path, required=True, help="path without its suffix")
    reporting.set_defaults(run=report)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
