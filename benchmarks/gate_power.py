"""How many images does the gate need to see a small change? Paired, unpaired, and stopped as soon as it can.

The baseline is the bundled GAN, the candidate the same network with a little noise on every weight: a change
of the kind that a wrong cast or a bad merge makes. ``features`` draws the images of both with the same seeds
and keeps their features; it goes on where it was stopped. ``measure`` cuts them into trials that share no
image, puts every trial through the gate itself at margin 0, and writes one row for each way of comparing and
number of images; trials that are measured already are kept. ``gate_power_figure.py`` draws them.

    python benchmarks/gate_power.py features --images 16384 --noise 0.08 --out pools     # 1 minute per 4 000
    python benchmarks/gate_power.py measure pools --out benchmarks/gate_power.csv        # 15 minutes
    python benchmarks/gate_power_figure.py benchmarks/gate_power.csv --out docs/figures/gate_power

``paired``: trial i is images i of both models, drawn from the same seeds; ``unpaired``: images i of one and
i + 1 of the other; ``anytime``: as paired, looking after every block and stopping at a verdict; ``equal``:
images i and i + 1 of the baseline, where every regression that is found is a false alarm.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, randn

from evalkit.anytime.watch import WatchedRule
from evalkit.calibration import Rate
from evalkit.calibration.synthetic import judged, record_of
from evalkit.core import FeatureSet, Metric, ReferenceFeatures
from evalkit.extractors import build_extractor
from evalkit.gate.facts import Rule
from evalkit.gate.quantities import quantities
from evalkit.generators import load_generator
from evalkit.metrics import METRICS
from evalkit.numerics.sequential import FEWEST_BLOCKS, pseudo_values, student_boundary
from evalkit.plan import Planned
from evalkit.record import MetricResult
from evalkit.references import load_reference
from evalkit.references.heads import Bank
from evalkit.runtime import strict_numerics
from evalkit.seeding import balanced_labels, image_seeds
from evalkit.shards import ShardLayout

MODEL = "cgan"
EXTRACTOR, HEAD = "efficientnet-lite0", "block"
CHUNK = 512
BATCH = 64
BASE_SEED = 12345
REFERENCE = "cifar10-jpeg-train"
EVERY = 5  # of the 5 000 reference images that metrics read one by one: they are nearly all of the cost
ALPHA = 0.05
COUNTS = (32, 64, 128, 256, 512, 1024, 2048)
MOST_TRIALS = 128  # of one number of images
AGAIN = 1024  # from here on the images are dealt into trials twice, since there are few
COLUMNS = (
    "noise", "metric", "mode", "images", "trials", "disjoint", "share", "low", "high", "wrong", "drawn",
    "drawn_se",
)  # fmt: skip
TOLERANT = 0.08  # the margin of the trials that should pass: twice the change


def noisy_checkpoint(path: Path, noise: float) -> None:
    """Write the bundled checkpoint with ``noise`` times its own spread added to every weight."""
    bundled = Path(__file__).parents[1] / "evalkit" / "generators" / "bundled" / f"{MODEL}.safetensors"
    generator = Generator().manual_seed(0)
    tensors = {}
    with safe_open(bundled, "pt") as file:
        metadata = file.metadata()
        for name in sorted(file.keys()):
            value = file.get_tensor(name)
            if name.endswith("weight") and value.is_floating_point():
                wide = value.float()
                value = wide + noise * wide.std() * randn(wide.shape, generator=generator)
            tensors[name] = value.contiguous()
    save_file(tensors, path, metadata=metadata)


def extract(options: argparse.Namespace) -> None:
    """Draw both pools, chunk by chunk; a chunk that is there is kept."""
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "noisy.safetensors"
    if not checkpoint.exists():
        noisy_checkpoint(checkpoint, options.noise)
    (options.out / "about.json").write_text(json.dumps({"noise": options.noise}), encoding="utf-8")
    models: Mapping[str, Path | None] = {"baseline": None, "candidate": checkpoint}
    extractor = build_extractor(EXTRACTOR, device="cpu")
    for start in range(0, options.images, CHUNK):
        for side, ckpt in models.items():
            path = options.out / f"{side}-{start:06d}.npy"
            if path.exists():
                continue
            generator = load_generator(MODEL, ckpt)
            parts = []
            for first in range(start, start + CHUNK, BATCH):
                index = np.arange(first, first + BATCH)
                seeds = image_seeds(BASE_SEED, index)
                labels = balanced_labels(BASE_SEED, index, generator.num_classes)
                with strict_numerics():
                    images = generator.generate(seeds, labels=labels)
                    parts.append(extractor(images, [HEAD])[HEAD].numpy())
            partial = path.with_suffix(".part.npy")
            np.save(partial, np.concatenate(parts))
            partial.rename(path)
            print(path, flush=True)


@dataclass(frozen=True)
class Trial:
    """One trial: what was asked, what the gate said, and how many images each side needed for it."""

    metric: str
    mode: str
    images: int
    deal: int
    number: int
    verdict: str
    difference: float
    se: float
    drawn: int


@dataclass(frozen=True)
class Sides:
    """The features of both models, row i from the same seed."""

    baseline: np.ndarray
    candidate: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Sides:
        """Read the chunks that both models have."""
        starts = sorted(path.name[-10:] for path in folder.glob("candidate-??????.npy"))
        return cls(*(np.concatenate([np.load(folder / f"{side}-{start}") for start in starts])
                     for side in ("baseline", "candidate")))  # fmt: skip

    def deal(self, count: int, number: int) -> list[np.ndarray]:
        """Return disjoint sets of ``count`` rows, dealt at random anew for each ``number``."""
        rows = np.random.default_rng([count, number]).permutation(len(self.candidate))
        return np.split(rows[: len(rows) // count * count], len(rows) // count)


def scored(
    metric: Metric, features: np.ndarray, reference: ReferenceFeatures, *, blocks: int | None = None
) -> MetricResult:
    """Return the metric of the first ``blocks`` blocks, all by default, as a run would record it."""
    layout = ShardLayout(len(features))
    parts = [
        np.concatenate([features[layout.indices(shard)] for shard in block]) for block in layout.blocks()
    ]
    score = metric.compute(FeatureSet(tuple(parts[:blocks])), reference, rng=np.random.default_rng(0))
    return MetricResult.from_score(score, metric=metric.name, variant=HEAD)


def fixed(
    candidate: MetricResult, baseline: MetricResult, *, mode: str, where: tuple[int, int, int]
) -> Trial:
    """Put two results through the gate at margin 0."""
    count, deal, number = where
    before = record_of((baseline,), images=count, base_seed=0)
    after = record_of((candidate,), images=count, base_seed=0 if mode == "paired" else 1)
    rule = Rule(metric=baseline.metric, mode="stat")
    (outcome,) = judged(after, before, (rule,), ALPHA).outcomes
    return Trial(baseline.metric, mode, count, deal, number, outcome.status,
                 outcome.difference or 0.0, outcome.se or 0.0, count)  # fmt: skip


def anytime(
    metric: Metric, candidate: np.ndarray, baseline: MetricResult, reference: ReferenceFeatures,
    *, margin: float, where: tuple[int, int, int],
) -> Trial:  # fmt: skip
    """Look after every block, and stop at a verdict."""
    count, deal, number = where
    sizes = baseline.blocks.sizes
    (known,) = quantities(record_of((baseline,), images=count, base_seed=0))
    watched = WatchedRule(
        rule=Rule(metric=metric.name, relative=margin),
        baseline=known,
        planned=Planned(metric, HEAD, None),
        blocks=pseudo_values(baseline.value, baseline.blocks.loo, sizes=sizes),
        step=metric.step,
    )
    c = student_boundary(ALPHA, sizes)
    for blocks in range(FEWEST_BLOCKS, len(sizes) + 1):
        result = scored(metric, candidate, reference, blocks=blocks)
        watched.look(result, planned=count, regression=c, acceptance=c)
        if watched.status != "inconclusive":
            break
    if watched.seen is None:
        raise ValueError(f"{count} images are too few blocks to look at")
    mode = "anytime, tolerant" if margin else "anytime"
    result, look = watched.seen
    return Trial(metric.name, mode, count, deal, number, watched.status, look.difference, look.se, result.n)


@dataclass(frozen=True)
class Deal:
    """Sets of images that share none, and their scores, each computed once."""

    sides: Sides
    metric: Metric
    reference: ReferenceFeatures
    count: int
    number: int
    sets: list[np.ndarray]
    scores: dict[tuple[str, int], MetricResult] = field(default_factory=dict)

    def score(self, side: str, i: int) -> MetricResult:
        """Return the score of set ``i`` (the last is followed by the first) of one model."""
        key = (side, i % len(self.sets))
        if key not in self.scores:
            rows = self.sets[key[1]]
            self.scores[key] = scored(self.metric, getattr(self.sides, side)[rows], self.reference)
        return self.scores[key]

    def run(self, mode: str, i: int) -> Trial:
        """Run trial ``i`` of a mode."""
        where, before = (self.count, self.number, i), self.score("baseline", i)
        if mode == "paired":
            return fixed(self.score("candidate", i), before, mode=mode, where=where)
        if mode == "unpaired":
            return fixed(self.score("candidate", i + 1), before, mode=mode, where=where)
        if mode == "equal":
            return fixed(self.score("baseline", i + 1), before, mode=mode, where=where)
        margin = TOLERANT if mode.endswith("tolerant") else 0.0
        images = self.sides.candidate[self.sets[i]]
        return anytime(self.metric, images, before, self.reference, margin=margin, where=where)

    def modes(self, i: int) -> tuple[str, ...]:
        """What can be tried on set ``i``: pairs of equals share no image, and a look needs enough blocks."""
        early = ("anytime", "anytime, tolerant")
        watched = self.metric.any_count and self.count > COUNTS[0]
        return ("paired", "unpaired", *(() if i % 2 else ("equal",)), *(early if watched else ()))


def trials(
    sides: Sides, name: str, reference: ReferenceFeatures, known: set[tuple[str, ...]]
) -> Iterator[Trial]:
    """Yield every trial of one metric that is not ``known``, small numbers of images first."""
    metric = METRICS[name]()
    for count in COUNTS:
        for number in range(2 if count >= AGAIN else 1):
            sets = sides.deal(count, number)[:MOST_TRIALS]
            deal = Deal(sides, metric, reference, count, number, sets)
            for i in range(len(sets)):
                for mode in deal.modes(i):
                    if (name, mode, str(count), str(number), str(i)) not in known:
                        yield deal.run(mode, i)


def measure(options: argparse.Namespace) -> None:
    """Run the trials that are not there yet, then write one row for each mode and number of images."""
    sides = Sides.read(options.pools)
    reference = load_reference(REFERENCE).head(HEAD)
    bank = reference.bank[::EVERY]
    reference = replace(reference, kept=Bank.of(bank, np.arange(len(bank))))
    path = options.pools / "trials.csv"
    known = {tuple(row[:5]) for row in rows_of(path)[1:]} if path.exists() else set()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow([column.name for column in fields(Trial)])
        for name in options.metrics.split(","):
            for trial in trials(sides, name, reference, known):
                writer.writerow(astuple(trial))
                file.flush()
    summarise(path, json.loads((options.pools / "about.json").read_text(encoding="utf-8")), options.out)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def summarise(path: Path, about: Mapping[str, float], out: Path) -> None:
    """Write the rates; their interval counts only trials that share no image."""
    groups: dict[tuple[str, str, int], list[dict[str, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            groups[row["metric"], row["mode"], int(row["images"])].append(row)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (metric, mode, images), found in sorted(groups.items()):
            wanted = "pass" if "tolerant" in mode else "regression"
            share = np.mean([row["verdict"] == wanted for row in found])
            disjoint = sum(row["deal"] == "0" for row in found)
            low, high = Rate(round(share * disjoint), disjoint).interval()
            wrong = sum(
                row["verdict"] == {"pass": "regression", "regression": "pass"}[wanted] for row in found
            )
            drawn = np.array([int(row["drawn"]) for row in found])
            error = drawn.std() / np.sqrt(disjoint)
            writer.writerow([
                about["noise"], metric, mode, images, len(found), disjoint, round(float(share), 4),
                round(low, 4), round(high, 4), wrong, round(float(drawn.mean()), 1), round(float(error), 1),
            ])  # fmt: skip


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(required=True)
    features = steps.add_parser("features")
    features.add_argument("--images", type=int, default=12_288)
    features.add_argument("--noise", type=float, default=0.05)
    features.add_argument("--out", type=Path, required=True)
    features.set_defaults(run=extract)
    measuring = steps.add_parser("measure")
    measuring.add_argument("pools", type=Path)
    measuring.add_argument("--metrics", default="cmmd,fd")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.set_defaults(run=measure)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
