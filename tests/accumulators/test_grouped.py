"""Moments by class: equal to numpy's class by class, and no image is lost unseen."""

import numpy as np
import pytest

from evalkit.accumulators.grouped import GroupedMoments
from evalkit.accumulators.moments import moments_of
from evalkit.errors import InvalidInputError


def sample(n=60, d=4, classes=(0, 3, 7)):
    rng = np.random.default_rng(0)
    labels = np.asarray(classes)[rng.integers(0, len(classes), n)]
    return (rng.normal(size=(n, d)) + labels[:, None]).astype(np.float32), np.arange(n), labels


def test_each_class_has_the_moments_of_its_rows():
    x, index, labels = sample()
    grouped = GroupedMoments()
    for part in np.array_split(index, 7):
        grouped.update(x[part], part, labels[part])
    assert list(grouped.groups) == [0, 3, 7]
    assert grouped.count == 60
    for label, moments in grouped.groups.items():
        rows = x[labels == label].astype(np.float64)
        assert moments.count == len(rows)
        np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-12, atol=1e-14)


def test_the_classes_together_are_all_images():
    x, index, labels = sample()
    grouped = GroupedMoments()
    grouped.update(x, index, labels)
    groups = iter(grouped.groups.values())
    whole = next(groups)
    for part in groups:
        whole.merge(part)
    np.testing.assert_allclose(whole.covariance, moments_of([x]).covariance, rtol=1e-12, atol=1e-13)


def test_classes_that_come_late_are_sorted_in():
    x, index, labels = sample()
    early, late = GroupedMoments(), GroupedMoments()
    early.update(x[labels == 7], index[labels == 7], labels[labels == 7])
    late.update(x[labels == 0], index[labels == 0], labels[labels == 0])
    early.merge(late)
    assert list(early.groups) == [0, 7]
    assert early.state()["labels"].tolist() == [0, 7]


def test_images_without_a_label_are_counted_and_refused_when_read():
    x, index, labels = sample()
    grouped = GroupedMoments()
    grouped.update(x[:50], index[:50], labels[:50])
    grouped.update(x[50:], index[50:])
    assert grouped.count == 60
    with pytest.raises(InvalidInputError, match="10 of 60 images have no label"):
        _ = grouped.groups
    assert GroupedMoments.from_state(grouped.state()).count == 60


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "integers"), ([0.0, 1.0, 2.0], "integers"), ([0, 1, -2], "not -2"), ([[0, 1, 2]], "integers")],
)
def test_labels_that_do_not_fit_change_nothing(labels, message):
    grouped = GroupedMoments()
    with pytest.raises(InvalidInputError, match=message):
        grouped.update(np.zeros((3, 2), np.float32), np.arange(3), np.asarray(labels))
    assert grouped.count == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"labels": np.array([7, 3, 0])}, "ascending"), ({"labels": np.array([-2, 3, 7])}, "ascending"),
     ({"labels": np.array([0, 3])}, "int64"), ({"counts": np.array([1.0, 2.0, 3.0])}, "int64"),
     ({"m2": np.zeros((2, 4, 4))}, "one m2"), ({"m2": np.zeros((3, 4, 3))}, "moments state"),
     ({"means": np.full((3, 4), np.nan)}, "not finite")],
)  # fmt: skip
def test_a_state_that_cannot_be_is_refused(change, message):
    grouped = GroupedMoments()
    grouped.update(*sample())
    with pytest.raises(InvalidInputError, match=message):
        GroupedMoments.from_state({**grouped.state(), **change})
