"""The metric over rows of latents and logits: value, error bar, warnings."""

import itertools
import math

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.separability import LinearSeparability
from evalkit.numerics import block_edges, jackknife
from evalkit.numerics.separability import separability


def rows(seed, n, d=4, noise=(0.5, 2.0)):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    logits = [x @ rng.standard_normal(d) + s * rng.standard_normal(n) for s in noise]
    return np.column_stack([x, *logits]).astype(np.float32)


def compute(x, blocks=1, **params):
    parts = tuple(x[i:j] for i, j in itertools.pairwise(block_edges(len(x), blocks)))
    metric = LinearSeparability(**({"attributes": 2} | params))
    return metric.compute(FeatureSet(parts), None, rng=np.random.default_rng(0))


def test_value_details_and_blocks():
    x = rows(0, 1000)
    score = compute(x, 10)
    direct = separability(x[:, :4], x[:, 4:])
    assert score.value == direct.score == pytest.approx(math.exp(sum(direct.entropies)), rel=1e-15)
    assert score.details == {"entropy_0": direct.entropies[0], "entropy_1": direct.entropies[1], "kept": 500}
    assert 1 < score.value < 4
    assert len(score.blocks) == 10
    assert score.stderr > 0
    for block, value in enumerate(score.blocks):
        rest = np.delete(x, np.s_[100 * block : 100 * block + 100], axis=0)
        assert value == pytest.approx(compute(rest).value, rel=1e-12)
    assert score.warnings == ()


def test_the_error_bar_is_the_spread():
    """By balanced halves; the jackknife of its blocks is 1.3 times the spread of 60 runs (known to 9 %).

    Measured: 0.97 to 1.1 times over 320 to 4000 images, 3 and 30 dimensions, 1 and 3 attributes.
    """
    scores = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((1200, 3))
        y = x @ [1.0, 0.5, 0.0] + rng.standard_normal(1200)
        scores.append(compute(np.column_stack([x, y]).astype(np.float32), 20, attributes=1))
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.sqrt(np.mean([s.stderr**2 for s in scores])) == pytest.approx(spread, rel=0.2)
    left_out = [jackknife(s.value, s.blocks, sizes=s.block_sizes).stderr for s in scores]
    assert np.sqrt(np.mean(np.square(left_out))) > 1.15 * spread


def test_without_halves_the_error_bar_is_the_jackknife():
    score = compute(rows(3, 30), 5)
    plain = jackknife(score.value, score.blocks, sizes=score.block_sizes)
    assert score.stderr == pytest.approx(plain.stderr, rel=1e-12)


def test_spec_and_head():
    metric = LinearSeparability(space="z", attributes=40)
    assert METRICS["separability"](**dict(metric.spec.params)) == metric
    assert (metric.head, metric.reads) == ("z", "latents")
    assert metric.minimum_images == 10


def test_warnings():
    x = rows(1, 80)
    assert any("small sample: 40 images kept for 4" in w for w in compute(x).warnings)
    x = rows(1, 800)
    x[:, 4] = np.abs(x[:, 4]) + 1
    assert any("never vary" in w and w.endswith(": 0") for w in compute(x).warnings)
    x[700:703] = x[0]
    assert any(w.startswith("3 of 800") for w in compute(x).warnings)


def test_a_score_next_to_one_says_that_its_error_bar_is_no_use():
    none, some, many = (compute(rows(0, 800, noise=(s, s)), 20) for s in (0.02, 1.0, 3.0))
    assert (none.value, none.stderr) == (1.0, 0.0)
    assert [w.startswith("only 0 images on the wrong side") for w in none.warnings] == [True]
    assert many.warnings == ()
    x = rows(0, 800, noise=(1.0, 1.0))
    result = separability(x[:, :4], x[:, 4:])
    assert result.wrong > 0
    assert bool(some.warnings) == (result.wrong < 10)


def test_errors():
    with pytest.raises(InvalidInputError, match="at least"):
        compute(rows(0, 1))
    with pytest.raises(InvalidInputError, match="at least 22 latents"):
        compute(rows(0, 21))
    with pytest.raises(InvalidInputError, match="a latent and 2 logits"):
        compute(np.ones((200, 2), dtype=np.float32))
    x = rows(0, 200)
    x[:, 4:] = 1
    with pytest.raises(InvalidInputError, match="no attribute varies"):
        compute(x)
    for column in (0, 5):
        x = rows(0, 200)
        x[3, column] = np.nan
        with pytest.raises(InvalidInputError, match="NaN"):
            compute(x, 4)
    for params in ({"space": "x"}, {"attributes": 0}):
        with pytest.raises(UsageError):
            LinearSeparability(**params)
