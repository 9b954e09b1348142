"""Do the 95 % intervals of every metric cover 95 %, and are its error bars as wide as its spread?

An interval is of the metric's expectation at that number of images against that reference. Here it is the
mean over all repetitions, each of fresh images: coverage is the share of intervals that hold it, ratio the
root mean square of the standard errors over the standard deviation of the values. One row of the CSV is one
metric on one kind of data:

    synthetic   the data of the metric laws (tests/contract/metric_cases.py), 0.3 from the reference
    real        CIFAR-10 training images outside the reference: a perfect model
    unequal     the same, class k drawn 0.8^k times as often as class 0: a model that neglects classes

Real images are drawn without replacement, 512 or 2048 from the 45 000 outside the bank, so that subsets
share little and no image is its own neighbour; the variance that this takes away, a share of n / 45 000, is
1 or 5 % (0.6 or 2.3 % of an error bar), and of the smaller classes of ``unequal`` more.

    python benchmarks/sample_efficient_fd.py features train.parquet train.npz
    python benchmarks/interval_coverage.py train.npz --out benchmarks/interval_coverage.csv
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from evalkit import load_reference
from evalkit.core import FeatureSet, Metric
from evalkit.metrics import METRICS, compute_all
from evalkit.references import HeadStatistics
from evalkit.spec import Score

# The tests are no package: their data are found by folder.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "contract"))
metric_cases = importlib.import_module("metric_cases")

BLOCKS = 20
CLASSES = 10
NEGLECT = 0.8
SYNTHETIC, SYNTHETIC_REFERENCE = 320, 400
SLOW = {"fld": (120, 160)}  # generated and reference rows of what is slow
FIELDS = ("data", "metric", "n", "reference", "dimension", "blocks", "repetitions", "coverage", "ratio")

FRECHET = ("fd", "intra-fd", "mifd")
PLAIN = (
    "kd", "cmmd", "precision", "recall", "density", "coverage", "f-score", "realism", "vendi", "authpct",
    "ct",
)  # fmt: skip
# At its own threshold mifd is fd itself for images that are no copies; here its division counts.
PARAMS = {"mifd": {"epsilon": 1.0}}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Metrics that see the same real images.

    Attributes:
        metrics: names of metrics of features or, where ``logits``, of logits.
        n: generated images.
        bank: reference images that are kept one by one, and as many held-out ones.
        axes: leading principal axes that are seen; 0 for all dimensions.
        logits: whether the rows are logits of a linear classifier instead.
        repetitions: at most so many.
    """

    metrics: tuple[str, ...]
    n: int
    bank: int
    axes: int = 0
    logits: bool = False
    repetitions: int = 1000


SETTINGS = {
    "few": Setting(PLAIN, n=512, bank=2000),
    "many": Setting(PLAIN, n=2048, bank=5000),
    "frechet-few": Setting(FRECHET, n=512, bank=2000),
    "frechet-many": Setting(FRECHET, n=2048, bank=5000),
    "limit": Setting(("fd-infinity",), n=512, bank=2000, axes=64),
    "likelihood": Setting(("fld",), n=128, bank=500, repetitions=100),
    "logits": Setting(("is", "accuracy"), n=512, bank=2000, logits=True),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A reference as one setting sees it."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    bank: np.ndarray
    groups: Mapping[int, Seen]
    held_out: Seen | None = None

    @classmethod
    def of(cls, head: HeadStatistics, *, bank: int, axes: np.ndarray | None, held: Seen | None) -> Seen:
        """The first ``bank`` images along ``axes`` ``[d, k]``, all dimensions where there are none."""

        def along(x: np.ndarray) -> np.ndarray:
            return x if axes is None else x @ axes

        def moments(part: HeadStatistics) -> tuple[int, np.ndarray, np.ndarray]:
            return part.count, along(part.mean), along(along(part.covariance).T)

        nothing = np.zeros((0, 0), dtype=np.float32)
        groups = {label: cls(*moments(part), nothing, {}) for label, part in head.classes.items()}
        return cls(*moments(head), along(head.bank[:bank]).astype(np.float32), groups, held)


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Real images outside the bank: rows ``[n, d]``, labels ``[n]``; the chance of each ``[n]`` or None."""

    rows: np.ndarray
    labels: np.ndarray
    chance: np.ndarray | None = None

    def draw(self, n: int, repetition: int) -> FeatureSet:
        """Return ``n`` different images, in blocks."""
        rng = np.random.default_rng([repetition, n])
        chosen = rng.choice(len(self.rows), n, replace=False, p=self.chance)
        parts = np.array_split(chosen, BLOCKS)
        return FeatureSet(
            tuple(self.rows[part] for part in parts), labels=tuple(self.labels[part] for part in parts)
        )


Repetition = Callable[[int], Mapping[str, Score]]


def summaries(scores: Sequence[Mapping[str, Score]]) -> Iterator[dict[str, object]]:
    """Coverage and width of each metric over repetitions."""
    for metric in scores[0]:
        found = [score[metric] for score in scores]
        values = np.array([score.value for score in found])
        inside = [score.ci.low <= values.mean() <= score.ci.high for score in found]
        wide = np.sqrt(np.mean([score.stderr**2 for score in found])) / values.std(ddof=1)
        yield {
            "metric": metric,
            "blocks": len(found[0].blocks) or BLOCKS,
            "repetitions": len(found),
            "coverage": f"{np.mean(inside):.3f}",
            "ratio": f"{wide:.2f}",
        }


def synthetic(name: str) -> Repetition:
    """Repetitions of one metric on the data of the metric laws."""
    n, bank = SLOW.get(name, (SYNTHETIC, SYNTHETIC_REFERENCE))
    real = metric_cases.reference(name, 10**6, n=bank)

    def repeat(repetition: int) -> Mapping[str, Score]:
        # Off the seeds of the module itself: repetition 99 would be the very features of the texts.
        generated = metric_cases.side(name, 1000 + repetition, n=n, shift=0.3)
        if name == "clip-score":  # prompts are part of the sample
            texts = np.random.default_rng(repetition).standard_normal(generated.texts.shape)
            texts = texts.astype(np.float32)
            rows = generated.rows - generated.texts + texts
            generated = dataclasses.replace(generated, rows=rows, texts=texts)
        return {name: metric_cases.compute(name, generated, real, blocks=BLOCKS)}

    return repeat


def on_real_images(setting: Setting, pool: Pool, reference: Seen) -> Repetition:
    """Repetitions of the metrics of a setting on images of a pool."""
    metrics: dict[str, Metric] = {name: METRICS[name](**PARAMS.get(name, {})) for name in setting.metrics}

    def repeat(repetition: int) -> Mapping[str, Score]:
        generated = pool.draw(setting.n, repetition)
        inputs = [(metric, generated, reference) for metric in metrics.values()]
        scores = compute_all(inputs, rng=lambda: np.random.default_rng(0))
        return dict(zip(metrics, scores, strict=True))

    return repeat


def pools(path: Path, setting: Setting) -> tuple[dict[str, Pool], Seen]:
    """The images outside the bank, as they are and with unequal classes, and the reference."""
    training = load_reference("cifar10-jpeg-train").head("block")
    held = load_reference("cifar10-jpeg-test").head("block")
    axes = None
    if setting.axes:
        axes = np.linalg.eigh(training.covariance)[1][:, ::-1][:, : setting.axes]
    reference = Seen.of(
        training,
        bank=setting.bank,
        axes=axes,
        held=Seen.of(held, bank=setting.bank, axes=axes, held=None),
    )
    with np.load(path) as file:
        free = ~np.isin(file["index"], training.kept.index)
        rows, labels = file["block"][free], file["labels"][free]
        known, answers = file["block"][~free], file["labels"][~free]
    if setting.logits:
        rows = linear_logits(known, answers, rows)
    elif axes is not None:
        rows = (rows @ axes).astype(np.float32)
    chance = NEGLECT ** labels.astype(np.float64)
    return {"real": Pool(rows, labels), "unequal": Pool(rows, labels, chance / chance.sum())}, reference


def linear_logits(known: np.ndarray, answers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Logits of a least-squares classifier; times 6 they are about as sure as it is right."""

    def design(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)

    weights = np.linalg.lstsq(design(known), np.eye(CLASSES)[answers], rcond=None)[0]
    return (6 * design(rows) @ weights).astype(np.float32)


def repeated(repeat: Repetition, count: int) -> list[Mapping[str, Score]]:
    return [repeat(repetition) for repetition in range(count)]


def measured(
    path: Path, chosen: Sequence[str], wanted: Sequence[str], repetitions: int
) -> Iterator[dict[str, object]]:
    """Yield the rows of the CSV."""
    if "synthetic" in chosen:
        for name in wanted:
            n, bank = SLOW.get(name, (SYNTHETIC, SYNTHETIC_REFERENCE))
            width = metric_cases.side(name, 0, n=1).rows.shape[1]
            size = {"data": "synthetic", "n": n, "reference": bank, "dimension": width}
            yield from (size | row for row in summaries(repeated(synthetic(name), repetitions)))
    for key in chosen:
        if key == "synthetic":
            continue
        setting = SETTINGS[key]
        setting = dataclasses.replace(setting, metrics=tuple(m for m in setting.metrics if m in wanted))
        if not setting.metrics:
            continue
        by_name, reference = pools(path, setting)
        for name, pool in by_name.items():
            size = {"data": name, "n": setting.n, "reference": setting.bank, "dimension": pool.rows.shape[1]}
            count = min(repetitions, setting.repetitions)
            found = repeated(on_real_images(setting, pool, reference), count)
            yield from (size | row for row in summaries(found))


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path, help="features of the training images")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument(
        "--only", nargs="+", choices=["synthetic", *SETTINGS], default=["synthetic", *SETTINGS]
    )
    parser.add_argument("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in measured(options.features, options.only, options.metrics, options.repetitions):
            writer.writerow(row)
            file.flush()
            print(*(f"{row[field]!s:>12}" for field in FIELDS), flush=True)


if __name__ == "__main__":
    main()
