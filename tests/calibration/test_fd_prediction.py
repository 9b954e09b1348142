"""Coverage and bias of the predicted Fréchet distance on real features: the bundled CIFAR-10 references.

The generated side is the 70 % of the test bank that lie lowest along its first principal axis ("a model that
dropped modes"), the reference the training images' moments. To stay fast, both are seen along the 64 leading
principal axes of the 320; whole heads, with dropped classes, are in ``benchmarks/sample_efficient_fd.py``.
"""

import math
from functools import cache

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.metrics.frechet import FrechetDistance
from evalkit.references import load_reference

BLOCKS = 16
HEAD = "block"
DIRECTIONS = 64
REPETITIONS = 200


class Moments:
    """The training images' moments along ``axes`` ``[d, k]``."""

    def __init__(self, head, axes):
        self.count, self.mean = head.count, head.mean @ axes
        self.covariance = axes.T @ head.covariance @ axes


@cache
def pool_and_reference():
    training = load_reference("cifar10-jpeg-train").head(HEAD)
    axes = np.linalg.eigh(training.covariance)[1][:, ::-1][:, :DIRECTIONS]
    reference = Moments(training, axes)
    bank = load_reference("cifar10-jpeg-test").head(HEAD).bank.astype(np.float64) @ axes
    along = bank[:, 0] - bank[:, 0].mean()
    along *= np.sign(np.mean(along**3))  # the sign of an eigenvector is arbitrary
    return bank[along <= np.quantile(along, 0.7)].astype(np.float32), reference


def predictions(count, repetitions):
    """Errors of the prediction at the whole pool, their intervals' reach, and the observed distance.

    The subsets come out of the pool that is also the observation, which leaves ``1 - n / pool`` of the
    variance; the intervals are narrowed by its root.
    """
    pool, reference = pool_and_reference()
    everything = FrechetDistance().compute(FeatureSet((pool,)), reference, rng=np.random.default_rng(0))
    label = f"predicted_{len(pool)}"
    found = []
    for number in range(repetitions):
        rows = np.random.default_rng([number, count]).permutation(len(pool))[:count]
        blocks = tuple(pool[part] for part in np.array_split(rows, BLOCKS))
        score = FrechetDistance(report_at=len(pool)).compute(
            FeatureSet(blocks), reference, rng=np.random.default_rng(0)
        )
        reach = (score.details[f"{label}_high"] - score.details[f"{label}_low"]) / 2
        found.append((score.details[label], reach * np.sqrt(1 - count / len(pool)), score.value))
    values, reach, raw = np.transpose(found)
    return values - everything.value, reach, raw - everything.value, everything.value


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.6, 3])
def test_predictions_from_few_images_hold(ratio):
    error, reach, raw, observed = predictions(math.ceil(ratio * DIRECTIONS), REPETITIONS)
    doubt = error.std(ddof=1) / np.sqrt(REPETITIONS)
    allowed = 0.04 if ratio < 3 else 0.01
    assert abs(error.mean()) < allowed * observed + 2 * doubt
    assert abs(error.mean()) < 0.1 * raw.mean()
    assert 0.92 <= np.mean(np.abs(error) <= reach) <= 0.98
