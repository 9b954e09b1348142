"""The metric over rows of a path probe: value, error bar, warnings, names."""

import itertools

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, UsageError
from evalkit.metrics import METRICS
from evalkit.metrics.path_length import PerceptualPathLength
from evalkit.numerics import block_edges, jackknife
from evalkit.numerics.path_length import path_length, path_length_without_blocks


def rows(seed, n):
    return np.random.default_rng(seed).lognormal(2, 1, (n, 1)).astype(np.float32)


def compute(x, blocks=1, **params):
    parts = tuple(x[i:j] for i, j in itertools.pairwise(block_edges(len(x), blocks)))
    return PerceptualPathLength(**params).compute(FeatureSet(parts), None, rng=np.random.default_rng(0))


def test_value_details_and_jackknife():
    x = rows(0, 2000)
    score = compute(x, 20)
    whole = path_length(x[:, 0])
    assert score.value == whole.mean
    assert score.details == {"median": whole.median, "discarded": 38.0}
    edges = block_edges(2000, 20)
    without = [part.mean for part in path_length_without_blocks(x[:, 0], edges)]
    assert score.blocks == tuple(without)
    assert score.stderr == jackknife(whole.mean, without, sizes=[100] * 20).stderr
    assert (score.n, score.n_reference, score.better, score.warnings) == (2000, 0, "lower", ())


def test_the_error_bar_is_that_of_repeated_runs():
    """Standard errors of 60 runs of 1000 paths average to the spread of their values within a fifth."""
    scores = [compute(rows(seed, 1000), 20) for seed in range(60)]
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.sqrt(np.mean([s.stderr**2 for s in scores])) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(
    ("params", "variant"),
    [({}, "ppl2_wend"), ({"crop": True}, "ppl_wend"), ({"space": "z", "sampling": "full"}, "ppl2_zfull"),
     ({"space": "z", "sampling": "full", "crop": True}, "ppl_zfull")],
)  # fmt: skip
def test_published_names(params, variant):
    metric = PerceptualPathLength(**params)
    assert metric.variant == variant
    assert METRICS["ppl"](**dict(metric.spec.params)) == metric
    assert (metric.reads, metric.head) == ("paths", "distance")


def test_few_paths_are_scored_with_a_warning():
    assert "no extremes are discarded" in compute(rows(0, 100), 5).warnings[0]
    assert compute(rows(0, 101), 5).warnings == ()
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(rows(0, 1))


def test_still_and_repeated_paths_are_counted():
    x = rows(1, 500)
    x[:3] = 0
    assert compute(x).warnings == ("3 of 500 paths do not change the image at all",)
    x[:] = 0
    assert compute(x).value == 0
    y = rows(1, 500)
    y[250:] = y[:250]
    assert any(w.startswith("250 of 500") for w in compute(y).warnings)
    # In a large sample a few float32 distances are equal by chance; that is no fault.
    assert compute(rows(2, 50_000)).warnings == ()


def test_errors():
    for bad in (np.nan, np.inf, -1.0):
        x = rows(0, 200)
        x[7] = bad
        with pytest.raises(InvalidInputError, match="1 of 200"):
            compute(x, 4)
    with pytest.raises(InvalidInputError, match="one column"):
        compute(np.ones((200, 2), dtype=np.float32))
    for params in ({"space": "x"}, {"sampling": "middle"}):
        with pytest.raises(UsageError):
            PerceptualPathLength(**params)
