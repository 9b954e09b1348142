"""The spectral correction against closed forms, an independent real integral, and simulated Gaussians."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import hyp2f1

from evalkit.errors import InvalidInputError
from evalkit.numerics import frechet_distance, frechet_distance_to, gaussian_factor
from evalkit.numerics.extrapolation import (
    PROVEN_RATIO,
    PROVEN_REST,
    ShiftedDistances,
    check_proven,
    distance_shifts,
    extrapolated,
    images_needed,
    root_trace_at,
)

positive = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)


def limit_by_real_integrals(eigenvalues, freedom):
    """The contour of ``root_trace_at`` wrapped around its cuts, in real numbers (Tiomoko & Couillet 2019).

    T = 2 n / pi sum_i integral from e_i to l_i of sqrt(m(x)) dx, with m the Stieltjes transform
    1/n sum 1/(l - x) - (1 - d/n) / x and e_i the eigenvalues of diag(l) - sqrt(l) sqrt(l)^T / n.
    """
    values = np.sort(eigenvalues)
    roots = np.sqrt(values)
    zeros = np.linalg.eigvalsh(np.diag(values) - np.outer(roots, roots) / freedom)

    def transform(x):
        return (1 / (values - x)).sum() / freedom - (1 - len(values) / freedom) / x

    total = 0.0
    for low, high in zip(zeros, values, strict=True):
        # x = low + (high - low) sin^2 a removes both root singularities
        def integrand(a, low=low, high=high):
            x = low + (high - low) * math.sin(a) ** 2
            return math.sqrt(max(transform(x), 0.0)) * (high - low) * math.sin(2 * a)

        total += quad(integrand, 0, math.pi / 2, epsabs=0, epsrel=1e-11, limit=200)[0]
    return 2 * freedom / math.pi * total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("width", "count"), [(1, 3), (4, 7), (9, 40), (12, 16)])
def test_limit_equals_the_real_integrals(seed, width, count):
    values = np.exp(np.random.default_rng(seed).normal(scale=2, size=width))
    (limit,) = root_trace_at(values, count=count, at=[math.inf])
    assert limit == pytest.approx(limit_by_real_integrals(values, count - 1), rel=1e-8)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.6, 0.9])
def test_sample_of_the_identity_has_the_marchenko_pastur_moment(ratio):
    # the moment of order 1/2 of the law with unit variance and ratio c is 2F1(-1/2, 1/2; 2; c);
    # a million samples stand for the population, whose own ratio of 1e-4 is the tolerance
    width = 100
    (found,) = root_trace_at(np.ones(width), count=10**6, at=[width / ratio + 1])
    assert found / width == pytest.approx(hyp2f1(-0.5, 0.5, 2, ratio), rel=2e-4)


def test_gaussian_populations_are_found_from_1_6_samples_a_dimension():
    rng = np.random.default_rng(0)
    width = 200
    for decay in (10, 40, 1000):
        spread = np.exp(-np.arange(width) / decay)
        found = []
        for _ in range(10):
            x = rng.standard_normal((320, width)) * np.sqrt(spread)
            values = np.linalg.eigvalsh(np.cov(x, rowvar=False))
            found.append(root_trace_at(values, count=320, at=[math.inf, 640]))
        limit, twice = np.mean(found, axis=0)
        truth = np.sqrt(spread).sum()
        assert limit == pytest.approx(truth, rel=0.005)
        assert abs(limit - truth) < 3 * np.std([row[0] for row in found]) / math.sqrt(len(found))
        x = rng.standard_normal((10, 640, width)) * np.sqrt(spread)
        at_640 = np.mean([np.sqrt(np.linalg.eigvalsh(np.cov(rows, rowvar=False))).sum() for rows in x])
        assert twice == pytest.approx(at_640, rel=0.005)


@given(values=positive, ratio=st.floats(1.2, 50), scale=st.floats(1e-8, 1e8))
@settings(max_examples=60, deadline=None)
def test_laws(values, ratio, scale):
    count = math.ceil(ratio * len(values)) + 2
    more = [count, 2 * count, 100 * count, math.inf]
    traces = root_trace_at(values, count=count, at=more)
    assert traces[0] == pytest.approx(np.sqrt(values).sum(), rel=1e-9)
    assert (np.diff(traces) > 0).all()
    shuffled = np.random.default_rng(0).permutation(values)
    np.testing.assert_allclose(root_trace_at(shuffled, count=count, at=more), traces, rtol=1e-9)
    scaled = root_trace_at(np.asarray(values) * scale, count=count, at=more)
    np.testing.assert_allclose(scaled, traces * math.sqrt(scale), rtol=1e-8)


def test_spectra_over_twelve_decades_and_null_directions():
    values = np.logspace(-12, 0, 400)
    with_null = np.concatenate([np.zeros(50), [-1e-18], values])
    wide = root_trace_at(values, count=700, at=[700, math.inf])
    assert wide[0] == pytest.approx(np.sqrt(values).sum(), rel=1e-10)
    np.testing.assert_allclose(root_trace_at(with_null, count=700, at=[700, math.inf]), wide, rtol=1e-12)
    assert root_trace_at(np.zeros(3), count=10, at=[math.inf]) == [0.0]


@pytest.mark.parametrize(
    ("values", "count", "at"),
    [(np.ones(5), 6, [50]), (np.ones(5), 4, [50]), (np.ones(5), 20, [6]), (np.ones(5), 20, [math.nan]),
     ([1, np.nan], 20, [50]), (np.ones((2, 2)), 20, [50])],
)  # fmt: skip
def test_what_has_no_answer_is_refused(values, count, at):
    with pytest.raises(InvalidInputError):
        root_trace_at(values, count=count, at=at)


def test_shift_is_the_trace_and_the_root():
    cov = np.diag([4.0, 1.0])
    factor = gaussian_factor(np.zeros(2), np.diag([9.0, 4.0]))
    (shift,) = distance_shifts(factor, cov=cov, count=30, at=[90])
    there, here = root_trace_at([36.0, 4.0], count=30, at=[90, 30])
    assert shift == pytest.approx(5 * (1 / 90 - 1 / 30) - 2 * (there - here), rel=1e-12)
    assert shift < 0
    assert distance_shifts(factor, cov=cov, count=30, at=[30]) == pytest.approx(0, abs=1e-9)
    point = gaussian_factor(np.zeros(2), np.zeros((2, 2)))
    assert distance_shifts(point, cov=cov, count=30, at=[math.inf]) == pytest.approx(-5 / 30, rel=1e-12)
    for bad in (np.eye(3), np.array([[1, np.nan], [np.nan, 1]])):
        with pytest.raises(InvalidInputError):
            distance_shifts(factor, cov=bad, count=30, at=[90])


def test_second_step_by_hand():
    # d(n) = 7 + 60 / n exactly and no shift: the jackknife finds 7, and 7 + 60 / at elsewhere
    sizes, at = [5, 5, 10], [math.inf, 60, 20]
    without = np.array([7 + 60 / 15, 7 + 60 / 15, 7 + 60 / 10])
    measured = ShiftedDistances(10.0, np.zeros(3), without, np.zeros((3, 3)))
    found = extrapolated(measured, sizes=sizes, at=at)
    assert [p.value for p in found] == pytest.approx([7, 8, 10], rel=1e-12)
    assert [p.at for p in found] == at
    for p in found:
        assert p.low + p.high == pytest.approx(2 * p.value)
        assert p.level == 0.95
    with pytest.raises(InvalidInputError, match="shifts of 3 blocks"):
        extrapolated(measured, sizes=sizes, at=[60])


@pytest.mark.parametrize(("rank", "blocks", "needed"), [(320, 16, 512), (1280, 16, 2048), (2048, 20, 3277)])
def test_images_needed(rank, blocks, needed):
    assert images_needed(rank, blocks) == needed


@given(rank=st.integers(0, 3000), blocks=st.integers(2, 40))
def test_the_number_needed_passes_and_is_the_least(rank, blocks):
    def sizes(total):
        return [total // blocks + (i < total % blocks) for i in range(blocks)]

    needed = images_needed(rank, blocks)
    check_proven(sizes(needed), rank=rank, at=[math.inf, needed])
    fewer = sizes(needed - 1)
    if min(fewer) > 1:
        assert sum(fewer) < PROVEN_RATIO * rank or sum(fewer) - max(fewer) < PROVEN_REST * rank
        with pytest.raises(InvalidInputError, match=f"at least {needed} in equal blocks"):
            check_proven(fewer, rank=rank)


@pytest.mark.parametrize("at", [100, math.nan, 0, -5])
def test_numbers_of_images_below_the_condition_are_refused(at):
    with pytest.raises(InvalidInputError, match="from 160 on"):
        check_proven([20] * 16, rank=100, at=[at])


def test_one_block_is_refused():
    with pytest.raises(InvalidInputError, match="two blocks"):
        check_proven([1000], rank=10)


def simulated(rng, *, width, count, blocks, heavy):
    """One set of features, Gaussian or with row norms that vary, as (mean, cov, count) of all and rests."""
    scale = np.sqrt(np.exp(-np.arange(width) / (width / 3)))
    x = rng.standard_normal((count, width)) * scale + 0.2
    if heavy:
        x = 0.2 + (x - 0.2) * np.sqrt(rng.gamma(4, 0.25, size=(count, 1)))
    parts = np.array_split(np.arange(count), blocks)
    sets = [x, *(np.delete(x, part, axis=0) for part in parts)]
    return [(s.mean(axis=0), np.cov(s, rowvar=False), len(s)) for s in sets], [len(p) for p in parts]


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "heavy"), [(1.6, True), (4, False)])
def test_simulated_distances_are_predicted_and_covered(ratio, heavy):
    """240 repetitions against the closed form: bias within 3 of its standard errors, coverage 92 to 98 %."""
    width, blocks = 40, 16
    rng = np.random.default_rng(7)
    spread = np.exp(-np.arange(width) / (width / 3))
    real = gaussian_factor(np.zeros(width), 1.3 * np.diag(spread))
    truth = frechet_distance(np.full(width, 0.2), np.diag(spread), np.zeros(width), 1.3 * np.diag(spread))
    found, raw = [], []
    for _ in range(240):
        sets, sizes = simulated(rng, width=width, count=round(ratio * width), blocks=blocks, heavy=heavy)
        distances = [frechet_distance_to(real, mean=m, cov=c) for m, c, _ in sets]
        shifts = np.stack([distance_shifts(real, cov=c, count=n, at=[math.inf]) for _, c, n in sets])
        measured = ShiftedDistances(distances[0], shifts[0], np.array(distances[1:]), shifts[1:])
        found.append(extrapolated(measured, sizes=sizes, at=[math.inf])[0])
        raw.append(distances[0])
    values = np.array([p.value for p in found])
    error = values.mean() - truth
    assert abs(error) < max(3 * values.std() / math.sqrt(len(values)), 0.02 * (np.mean(raw) - truth))
    assert 0.92 <= np.mean([p.low <= truth <= p.high for p in found]) <= 0.98
