"""Every metric that claims quality ranks real images by how far they were corrupted.

A metric declares ``ranks_fidelity`` (noise, blur, JPEG) or ``ranks_diversity`` (classes left out, classes made
unequal). The images are real, the features the embedded extractor's, the references those that ship.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from evalkit.core import FeatureSet
from evalkit.extractors import build_extractor
from evalkit.metrics import METRICS
from evalkit.numerics import block_edges
from evalkit.references import load_reference
from evalkit.runtime import strict_numerics
from evalkit.sources import open_source

IMAGES = Path(__file__).parents[1] / "data" / "cifar10-jpeg-520.parquet"
COUNT = 240
FIDELITY = ("noise", "blur", "jpeg")
DIVERSITY = ("classes", "imbalance")


def claiming(law):
    return [name for name in METRICS if law in METRICS[name].laws]


@pytest.fixture(scope="module")
def pool():
    source = open_source(IMAGES)
    batch = source.read(np.arange(len(source)))
    return np.stack([image.numpy() for image in batch.images]), batch.labels


def noisy(images, sigma):
    noise = np.random.default_rng(0).normal(size=images.shape)
    return np.clip(np.rint(images + sigma * noise), 0, 255).astype(np.uint8)


def blurred(images, sigma):
    return np.rint(ndimage.gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma))).astype(np.uint8)


def recompressed(images, quality):
    def one(image):
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="jpeg", quality=quality)
        return np.asarray(Image.open(buffer)).transpose(2, 0, 1)

    return np.stack([one(image) for image in images])


@pytest.fixture(scope="module")
def ladders(pool):
    """Ladder -> rungs, best first, each {head: features} with the labels of its images."""
    images, labels = pool
    extractor = build_extractor("efficientnet-lite0")

    def extract(pixels):
        with strict_numerics():
            found = [
                extractor(torch.from_numpy(part), ["block", "logits"]) for part in np.array_split(pixels, 8)
            ]
        return {head: torch.cat([part[head] for part in found]).numpy() for head in ("block", "logits")}

    whole = extract(images)
    first = np.random.default_rng(0).permutation(len(images))[:COUNT]

    def rung(index):
        return {head: rows[index] for head, rows in whole.items()}, labels[index]

    def of_classes(shares):
        wanted = np.round(np.asarray(shares) / np.sum(shares) * COUNT).astype(int)
        found = [np.flatnonzero(labels == c)[np.arange(n) % 52] for c, n in enumerate(wanted)]
        return rung(np.concatenate(found))

    clean, changed = rung(first), images[first]
    even = of_classes(np.ones(10))
    return {
        "noise": [clean, *((extract(noisy(changed, s)), labels[first]) for s in (12, 40))],
        "blur": [clean, *((extract(blurred(changed, s)), labels[first]) for s in (0.7, 1.4))],
        "jpeg": [clean, *((extract(recompressed(changed, q)), labels[first]) for q in (20, 4))],
        # At most 52 different images a class: the rungs below 5 classes would repeat images.
        "classes": [even, of_classes(np.arange(10) < 7), of_classes(np.arange(10) < 5)],
        "imbalance": [even, of_classes(0.83 ** np.arange(10))],
    }


def value(name, rung):
    features, labels = rung
    metric = METRICS[name]()
    head = {"features": "block", "logits": "logits"}[metric.head]
    reference = None
    if metric.needs_reference:
        train, test = load_reference("cifar10-jpeg-train"), load_reference("cifar10-jpeg-test")
        reference = train.with_held_out(test).head(head)
    edges = block_edges(len(labels), 1)
    rows = FeatureSet((features[head][edges[0] : edges[1]],), labels=(labels,))
    return metric.compute(rows, reference, rng=np.random.default_rng(0)).value


@pytest.mark.slow
@pytest.mark.parametrize("ladder", FIDELITY)
@pytest.mark.parametrize("name", claiming("ranks_fidelity"))
def test_fidelity_is_ranked(ladders, name, ladder):
    check(name, [value(name, rung) for rung in ladders[ladder]])


@pytest.mark.slow
@pytest.mark.parametrize("ladder", DIVERSITY)
@pytest.mark.parametrize("name", claiming("ranks_diversity"))
def test_diversity_is_ranked(ladders, name, ladder):
    check(name, [value(name, rung) for rung in ladders[ladder]])


def check(name, values):
    falling = METRICS[name].better == "higher"
    assert values == sorted(values, reverse=falling), values
    assert len(set(values)) == len(values), values


def test_every_distribution_metric_says_what_it_ranks():
    """Claims nothing only what judges copying, text or class, and says so by its other laws."""
    silent = [
        name
        for name in METRICS
        if METRICS[name].reads == "images" and not METRICS[name].laws & {"ranks_fidelity", "ranks_diversity"}
    ]
    assert set(silent) == {"accuracy", "authpct", "clip-score", "ct"}
