"""Does the 320-d head of the embedded extractor rank images as the 1280-d head does?

Three ladders of known order are made from labelled real images: growing noise, growing blur, and more and
more classes dropped. Each is measured by the bias-corrected Fréchet distance to a reference, on ``block``
(320-d) with 1 024 images and on ``pooled`` (1280-d) with 4 096. The protocol ``embedded`` stands on both
heads putting every ladder in order.

    python benchmarks/embedded_head_ladders.py test.parquet --reference cifar10-jpeg-train --out ladders.csv
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import kendalltau

from evalkit.accumulators.moments import MomentsAccumulator, moments_without_blocks
from evalkit.core import FloatArray
from evalkit.extractors import build_extractor
from evalkit.numerics import frechet_distance_to, gaussian_factor, jackknife
from evalkit.references import Reference, load_reference
from evalkit.seeding import stream
from evalkit.sources import OpenedSource, open_source

COUNTS = {"block": 1024, "pooled": 4096}
NOISE = (0.0, 5.0, 10.0, 20.0)  # standard deviation in grey levels
BLUR = (0.0, 0.4, 0.6, 0.8)  # standard deviation in pixels
DROPPED = (0, 1, 2, 3, 5)  # classes left out
BLOCKS = 16

Extract = Callable[[np.ndarray], dict[str, np.ndarray]]
Row = tuple[str, float, str, int, float, float]  # ladder, rung, head, images, distance, error


def ladders(images: np.ndarray) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield (ladder, rung, uint8 images) for the ladders that change pixels."""
    noise = stream(0, "subset").normal(size=images.shape).astype(np.float32)
    for sigma in NOISE:
        yield "noise", sigma, np.clip(np.rint(images + sigma * noise), 0, 255).astype(np.uint8)
    for sigma in BLUR[1:]:
        blurred = ndimage.gaussian_filter(images.astype(np.float32), sigma=(0, 0, sigma, sigma))
        yield "blur", sigma, np.rint(blurred).astype(np.uint8)


def distance(features: FloatArray, reference: Reference, head: str) -> tuple[float, float]:
    """Return the bias-corrected distance to the reference and its jackknife standard error."""
    statistics = reference.head(head)
    target = gaussian_factor(statistics.mean, statistics.covariance)
    blocks = np.array_split(features, BLOCKS)
    whole = MomentsAccumulator()
    whole.update(features, np.arange(len(features)))

    def to_target(moments: MomentsAccumulator) -> float:
        return frechet_distance_to(target, mean=moments.mean, cov=moments.covariance)

    without = [to_target(moments) for moments in moments_without_blocks(blocks)]
    bar = jackknife(to_target(whole), without, sizes=[len(block) for block in blocks])
    return bar.bias_corrected, bar.stderr


def main() -> None:
    """Measure every ladder on both heads and print Kendall's rank correlation with the known order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="labelled images, for example the test split")
    parser.add_argument("--reference", default="cifar10-jpeg-train")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    reference = load_reference(options.reference)
    extractor = build_extractor("efficientnet-lite0")
    source = open_source(options.images)
    order = stream(0, "block").permutation(len(source))

    def extract(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = extractor(torch.from_numpy(images), list(COUNTS))
        return {head: values.numpy() for head, values in found.items()}

    rows = []
    base = source.read(np.sort(order[: max(COUNTS.values())]))
    images = torch.stack(list(base.images)).numpy()
    shuffled = stream(1, "block").permutation(len(images))
    for ladder, rung, changed in ladders(images[shuffled]):
        features = extract(changed)
        names = ["noise", "blur"] if ladder == "noise" and rung == 0.0 else [ladder]
        for head, count in COUNTS.items():
            value, error = distance(features[head][:count], reference, head)
            rows += [(name, rung, head, count, value, error) for name in names]
            print(f"{ladder:8} {rung:5.1f} {head:7} N={count} {value:.4f} ± {error:.4f}", flush=True)
    rows += dropped_classes(source, extract, order, reference)
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ladder", "rung", "head", "n", "fd_bias_corrected", "stderr"])
        writer.writerows(sorted(rows))
    for ladder in ("noise", "blur", "dropped"):
        for head in COUNTS:
            chosen = [row for row in rows if row[0] == ladder and row[2] == head]
            tau = kendalltau([row[1] for row in chosen], [row[4] for row in chosen]).statistic
            print(f"{ladder:8} {head:7} Kendall tau {tau:.3f}")


def dropped_classes(
    source: OpenedSource, extract: Extract, order: np.ndarray, reference: Reference
) -> list[Row]:
    """Measure the ladder of dropped classes at equal N: as many images from fewer classes."""
    needed = {head: {rung: [] for rung in DROPPED} for head in COUNTS}
    labels = source.read(np.arange(len(source))).labels
    for rung in DROPPED:
        kept = order[labels[order] < labels.max() + 1 - rung]
        for head, count in COUNTS.items():
            needed[head][rung] = kept[:count]
    used = np.unique(np.concatenate([rows for by_rung in needed.values() for rows in by_rung.values()]))
    features = {head: {} for head in COUNTS}
    for part in np.array_split(used, max(len(used) // 512, 1)):
        found = extract(torch.stack(list(source.read(part).images)).numpy())
        for head in COUNTS:
            features[head].update(zip(part.tolist(), found[head], strict=True))
    rows = []
    for rung in DROPPED:
        for head, count in COUNTS.items():
            chosen = np.stack([features[head][i] for i in needed[head][rung].tolist()])
            value, error = distance(chosen, reference, head)
            rows.append(("dropped", float(rung), head, count, value, error))
            print(f"dropped  {rung:5d} {head:7} N={count} {value:.4f} ± {error:.4f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
