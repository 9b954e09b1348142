"""What ``fd`` says about other numbers of images: details, conditions, and that nothing else moves."""

import itertools
import math

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import UsageError
from evalkit.metrics.frechet import FrechetDistance, without_neighbours
from evalkit.numerics import block_edges, gaussian_factor, jackknife
from evalkit.numerics.extrapolation import distance_shifts

WIDTH = 10
SUFFIXES = ("", "_stderr", "_low", "_high")


class Reference:
    count, mean, covariance = 1000, np.full(WIDTH, 0.2), 1.5 * np.eye(WIDTH)


def in_blocks(x, blocks):
    return FeatureSet(tuple(x[i:j] for i, j in itertools.pairwise(block_edges(len(x), blocks))))


def features(seed, n):
    return np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)


def compute(x, *, report_at=0, blocks=8, reference=None):
    metric = FrechetDistance(report_at=report_at)
    return metric.compute(in_blocks(x, blocks), reference or Reference(), rng=np.random.default_rng(0))


def test_report_at_adds_details_and_moves_nothing_else():
    x = features(0, 80)
    plain, asked = compute(x), compute(x, report_at=5000)
    assert plain.details == {}
    assert set(asked.details) == {f"predicted_{n}{s}" for n in ("inf", "5000") for s in SUFFIXES}
    assert (asked.value, asked.blocks, asked.bias_corrected, asked.warnings) == (
        plain.value, plain.blocks, plain.bias_corrected, plain.warnings,
    )  # fmt: skip
    assert asked.details["predicted_inf"] == asked.bias_corrected
    low, value, high = (asked.details[f"predicted_5000{s}"] for s in ("_low", "", "_high"))
    assert low < value < high
    assert asked.bias_corrected < value < asked.value


def test_prediction_by_hand():
    x, at = features(1, 80), 200
    score = compute(x, report_at=at)
    target = gaussian_factor(Reference.mean, Reference.covariance)

    def shifted(rows, value):
        cov = np.cov(rows.astype(np.float64), rowvar=False)
        return value + distance_shifts(target, cov=cov, count=len(rows), at=[at])[0]

    here = shifted(x, score.value)
    rests = [np.delete(x, np.s_[10 * b : 10 * b + 10], axis=0) for b in range(8)]
    without = [shifted(rest, value) for rest, value in zip(rests, score.blocks, strict=True)]
    bar = jackknife(here, without, sizes=score.block_sizes)
    expected = here + (bar.bias_corrected - here) * (1 - 80 / at)
    assert score.details["predicted_200"] == pytest.approx(expected, rel=1e-9)
    assert score.details["predicted_200_stderr"] == pytest.approx(bar.stderr, rel=1e-6)


def test_at_its_own_number_the_prediction_is_the_measurement():
    score = compute(features(2, 80), report_at=80)
    assert score.details["predicted_80"] == pytest.approx(score.value, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "blocks", "report_at", "needed"),
    [(15, 5, 5000, "at least 19"), (16, 4, 5000, "at least 20"), (9, 3, 5000, "at least 23"),
     (80, 1, 5000, "two blocks")],
)  # fmt: skip
def test_what_is_not_proven_is_left_out_with_the_number_needed(n, blocks, report_at, needed):
    score = compute(features(3, n), report_at=report_at, blocks=blocks)
    assert score.bias_corrected is None
    assert score.details == {}
    assert any(needed in w for w in score.warnings)
    plain = compute(features(3, n), blocks=blocks)
    assert plain.value == score.value
    assert not any("predict" in w for w in plain.warnings)


def test_a_reference_of_low_rank_needs_fewer_images():
    reference = Reference()
    reference.covariance = np.diag([1.0] * 4 + [0.0] * (WIDTH - 4))
    assert compute(features(4, 12), reference=reference).bias_corrected is not None
    assert compute(features(4, 12)).bias_corrected is None


def test_a_number_below_the_proven_range_leaves_the_limit():
    plain, asked = compute(features(3, 80)), compute(features(3, 80), report_at=12)
    assert asked.bias_corrected == plain.bias_corrected is not None
    assert set(asked.details) == {f"predicted_inf{s}" for s in SUFFIXES}
    assert any("from 16 on" in w for w in asked.warnings)


def test_the_spec_does_not_name_it_as_it_moves_no_value():
    assert FrechetDistance().spec == FrechetDistance(report_at=50_000).spec
    with pytest.raises(UsageError, match="report_at"):
        FrechetDistance(report_at=-1)


def test_identical_images_have_a_prediction():
    score = compute(np.ones((80, WIDTH), dtype=np.float32), report_at=5000)
    assert math.isclose(score.details["predicted_5000"], score.value, rel_tol=1e-9)


@pytest.mark.parametrize("n", [9, 40])  # no more images than dimensions, and more
def test_neighbouring_blocks_are_left_out_exactly(n):
    x = features(5, n)
    blocks = [x[i:j] for i, j in itertools.pairwise(block_edges(n, 7))]
    target = gaussian_factor(Reference.mean, Reference.covariance)
    found = without_neighbours([*blocks[:3], x[:0], *blocks[3:]], target)
    assert len(found) == 7
    rests = [np.concatenate([b for k, b in enumerate(blocks) if k not in {i, i + 1}]) for i in range(6)]
    one = [np.concatenate([b for k, b in enumerate(blocks) if k != i]) for i in (2, 3)]
    expected = [*rests[:2], one[0], one[1], *rests[3:]]
    for value, rest in zip(found, expected, strict=True):
        assert value == pytest.approx(compute(rest, blocks=1).value, rel=1e-6)
    assert without_neighbours(blocks[:2], target) == []
    assert without_neighbours([x[:1]] * 3, target) == []


def test_error_bar_below_the_proven_range_is_the_spread():
    """As many images as dimensions, of a perfect model: the jackknife alone is 1.3 times too wide."""
    reference = Reference()
    reference.mean = np.zeros(WIDTH)
    reference.covariance = np.eye(WIDTH)
    scores = [compute(features(100 + r, WIDTH), reference=reference, blocks=10) for r in range(150)]
    assert all(s.bias_corrected is None for s in scores)
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.sqrt(np.mean([s.stderr**2 for s in scores])) == pytest.approx(spread, rel=0.18)
