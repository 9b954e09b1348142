"""Does every metric that claims quality rank images of known order right?

Five ladders are made from labelled real images that neither the reference nor the held-out reference keeps:
growing noise, growing blur, lower JPEG quality, fewer classes, and more unequal classes, each at the same
number of images. A sixth is made of checkpoints of one training, in the order of their steps. Every metric
that the embedded protocol can serve scores every rung through `evalkit score`, so that the report is made by
what users run.

    python benchmarks/metric_ladders.py test.parquet --work /tmp/ladders --out benchmarks/metric_ladders.csv
    # with `--model ddpm --snapshots FOLDER` also the checkpoints of one training (`evalkit train --keep`);
    # with `--only-training` these alone are scored, and replace those in the CSV
    # with `--features tests/data/ladder_features.npz` keeps features of some rungs for the test suite
    python benchmarks/metric_ladders_figure.py   # draws docs/figures/metric_ladders.png from the CSV
"""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import evalkit
from evalkit.extraction import Job, extract, state_store
from evalkit.extractors import build_extractor
from evalkit.lanes import Lane
from evalkit.record import RunRecord
from evalkit.sample_files import write_samples
from evalkit.seeding import stream
from evalkit.shards import ShardLayout
from evalkit.sources import open_source

COUNT = 1024
TRAIN, TEST = "cifar10-jpeg-train", "cifar10-jpeg-test"
NOISE = (5.0, 10.0, 20.0, 40.0)  # standard deviation in grey levels
BLUR = (0.4, 0.6, 0.9, 1.4)  # standard deviation in pixels
QUALITY = (60, 30, 15, 5)  # of a JPEG file
KEPT = (8, 6, 4, 2)  # of ten classes
RATIO = (0.8, 0.6, 0.4, 0.2)  # of the sizes of one class and the next

KEPT_IMAGES = 400
KEPT_RUNGS = (  # further apart than the error at so few images
    "noise-0", "noise-10", "noise-40", "blur-0.9", "blur-1.4", "jpeg-15", "jpeg-5",
    "classes-10", "classes-4", "classes-2", "imbalance-0.4", "imbalance-0.2",
)  # fmt: skip

Rung = tuple[str, float, np.ndarray, np.ndarray]  # ladder, rung, uint8 [n, 3, h, w], labels
FIELDS = ("ladder", "rung", "position", "metric", "better", "value", "stderr", "n")


def pool(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels that the held-out reference does not keep features of."""
    source = open_source(path)
    bank = evalkit.load_reference(TEST).head("block").kept
    kept = set() if bank is None else set(bank.index.tolist())
    free = np.array([i for i in range(len(source)) if i not in kept], dtype=np.int64)
    batch = source.read(free)
    if batch.labels is None:
        raise SystemExit("the images need labels")
    return np.stack([image.numpy() for image in batch.images]), batch.labels


def by_pixels(images: np.ndarray, labels: np.ndarray) -> Iterator[Rung]:
    """Ladders that change pixels; the first rung of each is the images as they are."""
    noise = stream(0, "subset").normal(size=images.shape).astype(np.float32)
    for ladder in ("noise", "blur", "jpeg"):
        yield ladder, 0.0, images, labels
    for sigma in NOISE:
        yield "noise", sigma, np.clip(np.rint(images + sigma * noise), 0, 255).astype(np.uint8), labels
    for sigma in BLUR:
        blurred = ndimage.gaussian_filter(images.astype(np.float32), sigma=(0, 0, sigma, sigma))
        yield "blur", sigma, np.rint(blurred).astype(np.uint8), labels
    for quality in QUALITY:
        yield "jpeg", float(quality), np.stack([recompressed(image, quality) for image in images]), labels


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Return uint8 ``[3, h, w]`` after a JPEG file of ``quality``."""
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="jpeg", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def by_classes(images: np.ndarray, labels: np.ndarray) -> Iterator[Rung]:
    """Ladders that leave classes out or make them unequal; every rung holds ``COUNT`` different images."""
    classes = int(labels.max()) + 1
    shares = {("classes", float(classes)): np.ones(classes), ("imbalance", 1.0): np.ones(classes)}
    shares |= {("classes", float(kept)): (np.arange(classes) < kept) * 1.0 for kept in KEPT}
    shares |= {("imbalance", ratio): ratio ** np.arange(classes) for ratio in RATIO}
    for (ladder, rung), share in shares.items():
        wanted = share / share.sum() * COUNT
        chosen = np.concatenate([np.flatnonzero(labels == c)[: round(wanted[c])] for c in range(classes)])
        yield ladder, rung, images[chosen], labels[chosen]


def scored(images: Path, work: Path, name: str) -> RunRecord:
    """Score a file of images with every metric at hand."""
    return evalkit.score(
        images=images,
        name=name,
        protocol="embedded",
        metrics=["all"],
        reference=TRAIN,
        held_out=TEST,
        out=work,
    )


def rows_of(record: RunRecord, ladder: str, rung: float, position: int) -> list[dict[str, object]]:
    """Return a row for each metric."""
    return [
        {
            "ladder": ladder, "rung": rung, "position": position, "metric": result.metric.partition(":")[0],
            "better": result.direction, "value": result.value, "stderr": result.se, "n": result.n_gen,
        }
        for result in record.results
    ]  # fmt: skip


def image_ladders(path: Path, work: Path) -> Iterator[dict[str, object]]:
    """Score the five ladders of images."""
    images, labels = pool(path)
    positions: dict[str, int] = {}
    for ladder, rung, changed, kept in (
        *by_pixels(images[:COUNT], labels[:COUNT]),
        *by_classes(images, labels),
    ):
        position = positions[ladder] = positions.get(ladder, -1) + 1
        name = f"{ladder}-{rung:g}"
        file = work / f"{name}.npz"
        write_samples(file, changed, labels=kept)
        record = scored(file, work, name)
        print(name, {r.metric.partition(":")[0]: float(f"{r.value:.4g}") for r in record.results}, flush=True)
        yield from rows_of(record, ladder, rung, position)


def keep_features(work: Path, out: Path) -> None:
    """Write features of some images of the rungs that the test suite ranks, from the state of the runs."""
    extractor = build_extractor("efficientnet-lite0")
    kept = {}
    for name in KEPT_RUNGS:
        source = open_source(work / f"{name}.npz")
        layout = ShardLayout(len(source))
        lane = Lane.of_extractor(extractor, ["block"], state_store(work / "state", source, extractor, layout))
        job = Job(
            source=source, lanes=(lane,), layout=layout, batch_size=64,
            device=torch.device("cpu"), needs_labels=True,
        )  # fmt: skip
        (extracted,) = extract(job, progress=lambda _n: None, stop=lambda: 0)
        chosen = np.sort(stream(0, "block").permutation(len(source))[:KEPT_IMAGES])
        labels = extracted.labels()
        kept[name] = extracted.features("block")[chosen].astype(np.float16)
        kept[f"{name} labels"] = np.zeros(0, np.int8) if labels is None else labels[chosen].astype(np.int8)
    np.savez_compressed(out, **kept)


def snapshot_ladder(folder: Path, model: str, work: Path) -> Iterator[dict[str, object]]:
    """Score the checkpoints of one training, worst (fewest steps) last, as in the other ladders."""

    def steps(path: Path) -> int:
        return int(re.findall(r"\d+", path.stem)[-1])

    for position, path in enumerate(sorted(folder.glob("*.safetensors"), key=steps, reverse=True)):
        record = evalkit.score(
            model=model,
            ckpt=path,
            protocol="embedded",
            metrics=["all"],
            reference=TRAIN,
            held_out=TEST,
            out=work,
        )
        print(
            path.stem,
            {r.metric.partition(":")[0]: float(f"{r.value:.4g}") for r in record.results},
            flush=True,
        )
        yield from rows_of(record, "training", float(steps(path)), position)


def main() -> None:
    """Score the ladders and write one CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="labelled images, for example the test split")
    parser.add_argument("--work", type=Path, required=True, help="folder for images, records and state")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="ddpm")
    parser.add_argument("--snapshots", type=Path, help="folder of checkpoints with their steps in the names")
    parser.add_argument("--only-training", action="store_true", help="leave the other ladders as they are")
    parser.add_argument("--features", type=Path, help="npz of features of some rungs, for tests")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.only_training:
        with options.out.open(encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file) if row["ladder"] != "training"]
    else:
        rows = list(image_ladders(options.images, options.work))
    if options.features is not None:
        keep_features(options.work, options.features)
    if options.snapshots is not None:
        rows += snapshot_ladder(options.snapshots, options.model, options.work)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
