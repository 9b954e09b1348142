"""The support vector machine against scikit-learn and its optimum; the conditional entropy; the score."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.svm import LinearSVC

from evalkit.errors import InvalidInputError
from evalkit.numerics import block_edges
from evalkit.numerics.linear_svm import SquaredHinge, linear_svm
from evalkit.numerics.separability import (
    conditional_entropy,
    fewest_kept,
    half_sample_variance,
    most_confident,
    separability,
    separability_by_blocks,
)


def problem(seed, n, d, *, noise=1.0, scale=1.0, shift=0.3):
    rng = np.random.default_rng(seed)
    x = (scale * rng.standard_normal((n, d)) + shift).astype(np.float32)
    side = (x - shift) @ rng.standard_normal(d) / scale + noise * rng.standard_normal(n)
    return x, side.astype(np.float32)


def objective(x, positive, w, b, c):
    slack = np.maximum(1 - np.where(positive, 1, -1) * (x.astype(np.float64) @ w + b), 0)
    return (w @ w + b * b) / 2 + c * (slack**2).sum()


@pytest.mark.parametrize(
    ("n", "d", "noise", "scale", "c"),
    [(200, 1, 1.0, 1.0, 1.0), (500, 5, 1.0, 1.0, 1.0), (2000, 40, 3.0, 1.0, 1.0), (300, 5, 0.0, 1.0, 1.0),
     (300, 8, 1.0, 20.0, 1.0), (300, 8, 1.0, 0.01, 1.0), (60, 100, 1.0, 1.0, 1.0), (400, 6, 1.0, 1.0, 0.01),
     (400, 6, 1.0, 1.0, 50.0)],
)  # fmt: skip
def test_scikit_learn(n, d, noise, scale, c):
    x, side = problem(n + d, n, d, noise=noise, scale=scale)
    ours = linear_svm(x, side >= 0, c=c)
    theirs = LinearSVC(C=c, dual=False, tol=1e-12, max_iter=10**6).fit(x.astype(np.float64), side >= 0)
    largest = np.abs(theirs.coef_).max()
    # liblinear's trust region stops at a relative gradient; the minimum is ours, see the next test.
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], rtol=0, atol=2e-6 * largest)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=2e-6 * largest)
    best = objective(x, side >= 0, ours.weights, ours.intercept, c)
    assert best <= objective(x, side >= 0, theirs.coef_[0], theirs.intercept_[0], c) * (1 + 1e-14)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 120), d=st.integers(1, 12), noise=st.floats(0, 3))
def test_the_gradient_is_zero(seed, n, d, noise):
    x, side = problem(seed, n, d, noise=noise)
    positive = side >= np.median(side)
    svm = linear_svm(x, positive)
    sign, wide = np.where(positive, 1.0, -1.0), np.column_stack([x.astype(np.float64), np.ones(n)])
    theta = np.append(svm.weights, svm.intercept)
    slack = np.maximum(1 - sign * (wide @ theta), 0)
    gradient = theta - 2 * (sign * slack) @ wide
    assert np.abs(gradient).max() < 1e-9 * (1 + np.abs(wide).sum())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_swapping_the_classes_mirrors_the_plane(seed):
    x, side = problem(seed, 80, 4)
    one, other = linear_svm(x, side >= 0), linear_svm(x, side < 0)
    np.testing.assert_allclose(one.weights, -other.weights, rtol=0, atol=1e-11)


def test_a_warm_start_ends_in_the_same_place():
    x, side = problem(3, 600, 10)
    machine = SquaredHinge(x, side >= 0, c=1.0)
    whole = machine.solve(np.ones(600, dtype=bool))
    for start in range(0, 600, 100):
        rest = np.ones(600, dtype=bool)
        rest[start : start + 100] = False
        cold = linear_svm(x[rest], side[rest] >= 0)
        np.testing.assert_allclose(machine.solve(rest, start=whole)[:-1], cold.weights, rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "positive", "c"),
    [(np.ones((3, 2)), [True] * 3, 1.0), (np.ones((3, 2)), [True, False], 1.0), (np.ones(3), [True] * 3, 1.0),
     (np.full((3, 2), np.nan), [True, False, True], 1.0), (np.ones((3, 2)), [True, False, True], 0.0)],
    ids=["one class", "labels", "vector", "nan", "c"],
)  # fmt: skip
def test_svm_errors(x, positive, c):
    with pytest.raises(InvalidInputError):
        linear_svm(x, np.array(positive), c=c)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=6, max_size=6).filter(sum))
def test_conditional_entropy_is_joint_minus_marginal(counts):
    table = np.array(counts).reshape(3, 2)
    wanted = scipy_entropy(table.ravel() / table.sum()) - scipy_entropy(table.sum(axis=1) / table.sum())
    assert conditional_entropy(table) == pytest.approx(wanted, abs=1e-14)
    assert 0 <= conditional_entropy(table) <= math.log(2) + 1e-15


def test_conditional_entropy_by_hand():
    assert conditional_entropy(np.array([[5, 0], [0, 7]])) == 0
    assert conditional_entropy(np.array([[1, 1], [3, 3]])) == pytest.approx(math.log(2), rel=1e-15)
    assert conditional_entropy(np.array([[0, 0], [3, 1]])) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), rel=1e-15
    )
    for bad in (np.zeros((2, 2)), np.ones(3), np.array([[1, -1], [1, 1]]), np.array([[np.nan, 1], [1, 1]])):
        with pytest.raises(InvalidInputError):
            conditional_entropy(bad)


def published(latents, logits, keep):
    """The published recipe in plain words, with scikit-learn at full precision; bits, and 2 to their sum."""
    total = 0.0
    for column in logits.T:
        order = sorted(range(len(column)), key=lambda i: -abs(column[i]))[: int(len(column) * keep)]
        x, truth = latents[order].astype(np.float64), column[order] >= 0
        answer = LinearSVC(dual=False, tol=1e-12, max_iter=10**6).fit(x, truth).predict(x)
        for a, b in itertools.product((False, True), repeat=2):
            joint = np.mean((answer == a) & (truth == b))
            if joint:
                total -= joint * np.log2(joint / np.mean(answer == a))
    return 2**total


@pytest.mark.parametrize("keep", [0.5, 0.8, 1.0])
def test_the_score_is_the_published_recipe(keep):
    x, _ = problem(0, 900, 6)
    logits = np.column_stack([problem(0, 900, 6, noise=noise)[1] for noise in (0.5, 2.0, 6.0)])
    logits = (logits + np.random.default_rng(1).normal(size=logits.shape)).astype(np.float32)
    result = separability(x, logits, keep=keep)
    assert result.score == pytest.approx(published(x, logits, keep), rel=1e-9)
    assert result.kept == int(900 * keep)
    assert result.constant == ()


def test_a_direction_scores_one_and_noise_scores_two_per_attribute():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((6000, 4)).astype(np.float32)
    cut = (x @ [1.0, -1.0, 0.5, 0.0])[:, None]
    assert separability(x, cut).score == 1.0
    noise = rng.standard_normal((6000, 2))
    assert separability(x, noise).score == pytest.approx(4.0, rel=0.01)
    mixed = separability(x, np.hstack([cut, noise[:, :1]]))
    assert mixed.entropies[0] == 0
    assert mixed.score == pytest.approx(2.0, rel=0.01)


def test_how_much_entropy_few_rows_lose():
    """The bound beside COMFORTABLE: of a fair coin, a tenth at ten rows a dimension, most at two."""
    lost = {}
    for ratio in (2, 10):
        n, values = 2 * ratio * 41, []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal((n, 40)).astype(np.float32)
            values.append(separability(x, rng.standard_normal((n, 1)), keep=0.5 + 2 / n).entropies[0])
        lost[ratio] = 1 - np.mean(values) / math.log(2)
    assert lost[10] < 0.1
    assert lost[2] > 0.4


def test_blocks_are_the_score_without_each_block():
    x, side = problem(5, 500, 5)
    other = problem(6, 500, 5)[1]
    logits, edges = np.column_stack([side, other]), block_edges(500, 5)
    whole, without = separability_by_blocks(x, logits, edges=edges)
    assert whole.score == separability(x, logits).score
    for (start, stop), part in zip(itertools.pairwise(edges), without, strict=True):
        rows = np.delete(np.arange(500), np.s_[start:stop])
        np.testing.assert_allclose(part.entropies, separability(x[rows], logits[rows]).entropies, rtol=1e-12)
        assert part.kept == 200


def test_no_blocks_where_too_few_rows_would_be_left():
    x, side = problem(7, 60, 5)
    assert len(separability_by_blocks(x, side[:, None], edges=block_edges(60, 6))[1]) == 6
    assert separability_by_blocks(x, side[:, None], edges=(0, 40, 60))[1] == ()


def test_halves_give_the_spread_of_repeated_runs():
    """The error bar in ``ln score``; leaving blocks out, it is 1.3 times the spread here."""
    logs, variances = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((800, 3)).astype(np.float32)
        side = (x.sum(axis=1) + 2 * rng.standard_normal(800))[:, None]
        logs.append(separability(x, side).entropies[0])
        variances.append(half_sample_variance(x, side))
    # The spread of 60 runs is known to 9 %.
    assert np.sqrt(np.mean(variances)) == pytest.approx(np.std(logs, ddof=1), rel=0.2)


def test_halves_with_too_few_rows_say_nothing():
    x, side = problem(9, 60, 4)
    assert half_sample_variance(x[:40], side[:40, None]) is None
    assert half_sample_variance(x, side[:, None]) > 0
    x, side = problem(9, 19, 1)
    assert half_sample_variance(x, side[:, None]) is None


def test_an_attribute_that_never_varies_adds_nothing_and_is_named():
    x, side = problem(8, 200, 3)
    result = separability(x, np.column_stack([np.abs(side) + 1, side]))
    assert result.constant == (0,)
    assert result.entropies[0] == 0


def test_confidence_is_the_size_of_the_logit():
    assert most_confident(np.array([0.1, -9.0, 3.0, 8.9]), 0.5).tolist() == [1, 3]
    assert most_confident(np.array([1.0, -1.0, 1.0, 1.0]), 0.5).tolist() == [0, 1]
    # Both are 1.0 as float32 probabilities, where the published order falls back to the first.
    assert most_confident(np.array([20.0, 30.0]), 0.5).tolist() == [1]
    assert len(most_confident(np.arange(100.0), 0.29)) == 29


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_does_not_matter(seed):
    x, side = problem(seed, 120, 4)
    mixed = np.random.default_rng(seed).permutation(120)
    forward, shuffled = separability(x, side[:, None]), separability(x[mixed], side[mixed, None])
    assert forward.score == pytest.approx(shuffled.score, rel=1e-12)


def test_rows_on_the_wrong_side_are_counted():
    from sklearn.svm import LinearSVC

    x, side = problem(11, 400, 3)
    kept = most_confident(side, 0.5)
    truth = side[kept] >= 0
    peer = LinearSVC(dual=False, tol=1e-10, max_iter=100_000).fit(x[kept], truth)
    wrong = int((peer.predict(x[kept]) != truth).sum())
    both = separability(x, np.column_stack([side, side]))
    assert both.wrong == 2 * wrong


def test_errors():
    x, side = problem(0, 100, 4)
    with pytest.raises(InvalidInputError, match="at least 22 latents"):
        separability(x[:21], side[:21, None])
    assert separability(x[:22], side[:22, None]).kept == fewest_kept(4) == 11
    with pytest.raises(InvalidInputError, match="share"):
        separability(x, side[:, None], keep=0.0)
    with pytest.raises(InvalidInputError, match="rows of logits"):
        separability(x, side[:50, None])
    bad = x.copy()
    bad[3, 2] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        separability(bad, side[:, None])
    with pytest.raises(InvalidInputError, match="NaN"):
        separability(x, np.full((100, 1), np.nan))
