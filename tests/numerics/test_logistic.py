"""Multinomial regression against scikit-learn; ranks against its top-k accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from evalkit.errors import InvalidInputError
from evalkit.numerics.logistic import fit_multinomial, true_class_rank


def blobs(seed: int, n: int = 300, classes: int = 4, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d)) * 1.2
    labels = rng.integers(classes, size=n)
    scales = 10.0 ** rng.uniform(-2, 2, d)  # features of very different sizes
    return (centres[labels] + rng.standard_normal((n, d))) * scales + 3 * scales, labels


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_agrees_with_scikit_learn(penalty: float) -> None:
    x, y = blobs(0)
    model = fit_multinomial(x, y, classes=4, penalty=penalty, tolerance=1e-10)
    scaler = StandardScaler().fit(x)
    peer = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-12, max_iter=10_000)
    peer.fit(scaler.transform(x), y)
    logits = model.logits(x)
    expected = peer.decision_function(scaler.transform(x))
    centred = [values - values.mean(axis=1, keepdims=True) for values in (logits, expected)]
    # Only differences of logits are determined. scikit-learn stops at a gradient of about 1e-8.
    assert np.abs(centred[0] - centred[1]).max() <= 1e-5 * np.abs(centred[1]).max()


def test_recovers_the_model_that_drew_the_labels() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60_000, 3))
    weight = np.array([[1.0, 0, -1], [0, 1, 0], [-1, -1, 1]])
    logits = x @ weight.T + np.array([0.5, 0.0, -0.5])
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    model = fit_multinomial(x, labels, classes=3, penalty=0)
    found = model.weight - model.weight.mean(axis=0)
    assert np.abs(found - (weight - weight.mean(axis=0))).max() < 0.03


def test_constant_features_weigh_nothing() -> None:
    x, y = blobs(2)
    wide = np.concatenate([x, np.full((len(x), 1), 7.0)], axis=1)
    model = fit_multinomial(wide, y, classes=4, penalty=1e-2)
    plain = fit_multinomial(x, y, classes=4, penalty=1e-2)
    assert np.array_equal(model.weight[:, -1], np.zeros(4))
    assert np.allclose(model.logits(wide), plain.logits(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ranks_are_scikit_learns_accuracies(k: int) -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((200, 5)), rng.integers(5, size=200)
    share = (true_class_rank(logits, labels) < k).mean()
    assert share == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=range(5)))
    if k == 1:
        assert share == accuracy_score(labels, logits.argmax(axis=1))


def test_of_equal_logits_the_smaller_class_comes_first() -> None:
    logits = np.zeros((3, 3))
    assert true_class_rank(logits, np.arange(3)).tolist() == [0, 1, 2]
    rng = np.random.default_rng(4)
    coarse, labels = rng.integers(3, size=(500, 4)).astype(float), rng.integers(4, size=500)
    assert np.array_equal(true_class_rank(coarse, labels) == 0, coarse.argmax(axis=1) == labels)


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([-1, 0]), np.array([0]), np.array([0.0, 1.0])])
def test_labels_that_cannot_be_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="label"):
        true_class_rank(np.zeros((2, 3)), labels)
    with pytest.raises(InvalidInputError, match="label"):
        fit_multinomial(np.zeros((2, 3)), labels, classes=3, penalty=1)


def test_values_that_cannot_be_are_refused() -> None:
    x, y = blobs(5)
    x[3, 2] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        fit_multinomial(x, y, classes=4, penalty=1)
    with pytest.raises(InvalidInputError, match="NaN"):
        true_class_rank(x, y)
    with pytest.raises(InvalidInputError, match="penalty"):
        fit_multinomial(blobs(5)[0], y, classes=4, penalty=-1)
    with pytest.raises(InvalidInputError):
        fit_multinomial(blobs(5)[0], np.zeros(300, dtype=np.int64), classes=1, penalty=1)
