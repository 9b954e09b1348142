"""Every metric that claims quality ranks real images by how far they were corrupted.

A metric declares ``ranks_fidelity`` (noise, blur, JPEG), ``ranks_noise`` alone, or ``ranks_diversity``
(classes left out, classes made unequal). The features are those of real images through the embedded
extractor (see tests/data/README.md); the references are those that ship. The same ladders with more rungs
and images are in ``benchmarks/metric_ladders.csv``.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.metrics import METRICS
from evalkit.references import load_reference

ROOT = Path(__file__).parents[2]
FEATURES = ROOT / "tests" / "data" / "ladder_features.npz"
REPORT = ROOT / "benchmarks" / "metric_ladders.csv"
LADDERS = {
    "noise": ("ranks_fidelity", ("noise-0", "noise-10", "noise-40")),
    "blur": ("ranks_fidelity", ("noise-0", "blur-0.9", "blur-1.4")),
    "jpeg": ("ranks_fidelity", ("noise-0", "jpeg-15", "jpeg-5")),
    "classes": ("ranks_diversity", ("classes-10", "classes-4", "classes-2")),
    "imbalance": ("ranks_diversity", ("classes-10", "imbalance-0.4", "imbalance-0.2")),
}
RANKS = {"ranks_fidelity", "ranks_diversity", "ranks_noise"}
NOISE_ONLY = "ranks_noise"


def claims(name, ladder):
    """Whether a metric declares that it ranks a ladder."""
    laws = METRICS[name].laws
    return LADDERS[ladder][0] in laws or (ladder == "noise" and NOISE_ONLY in laws)


CLAIMS = [
    (name, ladder)
    for name in METRICS
    for ladder in LADDERS
    if claims(name, ladder) and METRICS[name]().head == "features"
]


@pytest.fixture(scope="module")
def features():
    with np.load(FEATURES) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def reference():
    train, test = load_reference("cifar10-jpeg-train"), load_reference("cifar10-jpeg-test")
    return train.with_held_out(test).head("block")


@pytest.mark.parametrize(("name", "ladder"), CLAIMS)
def test_real_images_are_ranked(features, reference, name, ladder):
    metric = METRICS[name]()
    values = []
    for rung in LADDERS[ladder][1]:
        rows = features[rung].astype(np.float32)
        if len(rows) < metric.minimum_for(rows.shape[1]):
            pytest.skip(
                f"{name} needs {metric.minimum_for(rows.shape[1])} images; see benchmarks/metric_ladders.csv"
            )
        generated = FeatureSet((rows,), labels=(features[f"{rung} labels"].astype(np.int64),))
        real = reference if metric.needs_reference else None
        values.append(metric.compute(generated, real, rng=np.random.default_rng(0)).value)
    assert values == sorted(set(values), reverse=metric.better == "higher"), values


def test_the_report_is_ranked_by_everything_that_claims_it():
    """At 1 024 images a rung: the ends of every ladder in order, and hardly a rung out of place."""
    points = defaultdict(list)
    with REPORT.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points[row["metric"], row["ladder"]].append(
                (int(row["position"]), float(row["value"]), float(row["stderr"]))
            )
    checked = 0
    for name in METRICS:
        for ladder in LADDERS:
            if not claims(name, ladder) or (name, ladder) not in points:
                continue
            sign = 1 if METRICS[name].better == "lower" else -1
            rungs = [(sign * value, error) for _, value, error in sorted(points[name, ladder])]
            assert rungs[-1][0] > rungs[0][0], (name, ladder)
            for (better, e1), (worse, e2) in itertools.pairwise(rungs):
                assert worse > better - 2 * np.hypot(e1, e2), (name, ladder, better, worse)
            checked += 1
    assert checked >= 30


def test_every_distribution_metric_says_what_it_ranks():
    """Claims nothing only what judges copying, text or class, and says so by its other laws."""
    silent = [name for name in METRICS if METRICS[name].reads == "images" and not METRICS[name].laws & RANKS]
    assert set(silent) == {"accuracy", "authpct", "clip-score", "ct"}
