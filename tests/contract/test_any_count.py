"""Which metrics a part of the images estimates: every metric says so of itself, and it is measured."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.metrics import METRICS
from evalkit.numerics.sequential import pseudo_values
from tests.contract.metric_cases import compute, reference, side

TRIALS = 150
BLOCK = 10
FEW, MANY = 3, 12  # blocks


def _estimates(name: str, blocks: int, real) -> np.ndarray:
    """The jackknife's bias-corrected value of many draws."""
    found = []
    for seed in range(TRIALS):
        count = blocks * BLOCK
        # Prompts come in the order of a list: a random part of them stands for all.
        chosen = np.random.default_rng(seed).permutation(150)[:count]
        drawn = side(name, 10_000 * blocks + seed, n=150).take(chosen)
        score = compute(name, drawn, real, blocks=blocks)
        found.append(pseudo_values(score.value, score.blocks, sizes=score.block_sizes).mean())
    return np.asarray(found)


def _gap(name: str) -> float:
    """Difference of the means at few and at many images, in standard errors."""
    real = reference(name, 1)
    few, many = _estimates(name, FEW, real), _estimates(name, MANY, real)
    return abs(few.mean() - many.mean()) / np.sqrt((few.var() + many.var()) / TRIALS + 1e-18)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_whether_part_of_the_images_estimates_it(name):
    kind = METRICS[name]
    assert isinstance(getattr(kind, "any_count", None), bool), f"{name} does not declare any_count"
    assert kind.step >= 0
    assert kind.any_count or not kind.step, f"{name} has a step and is not watched"
    metric = kind()
    assert metric.watched.name == name
    assert metric.watched.head == metric.head
    assert metric.watched.any_count == metric.any_count


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].any_count])
def test_its_expectation_is_the_same_at_every_number_of_images(name):
    assert _gap(name) < 4


@pytest.mark.parametrize("name", ["coverage", "intra-fd"])
def test_others_would_be_caught(name):
    assert not METRICS[name].any_count
    assert _gap(name) > 4


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].step])
def test_a_step_is_what_one_image_can_move(name):
    real = reference(name, 1)
    moved = []
    for seed in range(20):
        drawn = side(name, seed, n=40)
        other = side(name, seed + 500, n=40)
        swapped = drawn.take(np.arange(40))
        swapped.rows[7] = other.rows[7]
        one, two = (compute(name, each, real, blocks=4).value for each in (drawn, swapped))
        moved.append(abs(one - two) * 40)
    step = METRICS[name].step
    if name == "density":  # an image can lie in any number of balls
        assert 0 < np.median([m for m in moved if m]) < 2 * step
    else:
        assert {round(m, 6) for m in moved} == {0.0, step}


def test_the_mean_over_subsets_is_watched_as_the_exact_statistic():
    published = METRICS["kd"](subsets=100, subset_size=1000)
    assert published.watched == METRICS["kd"]()
    assert METRICS["kd"]().watched == METRICS["kd"]()
