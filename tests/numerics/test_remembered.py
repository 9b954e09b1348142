"""What is kept by content: the same result, once, and never another array's."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.numerics.mmd import kernel_sums
from evalkit.numerics.remembered import remembered


def _counting():
    calls = []

    @remembered
    def scaled(x, factor=1.0):
        calls.append(factor)
        return x * factor

    return scaled, calls


def test_the_same_content_is_computed_once():
    scaled, calls = _counting()
    x = np.arange(6.0).reshape(2, 3)
    first = scaled(x, 2.0)
    assert (scaled(x.copy(), 2.0) == first).all()
    assert (scaled(np.asfortranarray(x), 2.0) == first).all()
    assert calls == [2.0]


@pytest.mark.parametrize(
    "other",
    [
        lambda x: (x + 1, 2.0),
        lambda x: (x.astype(np.float32), 2.0),
        lambda x: (x.reshape(3, 2), 2.0),
        lambda x: (x, 3.0),
    ],
)
def test_other_content_shape_type_or_argument_is_another(other):
    scaled, calls = _counting()
    x = np.arange(6.0).reshape(2, 3)
    scaled(x, 2.0)
    y, factor = other(x)
    assert (scaled(y, factor) == y * factor).all()
    assert len(calls) == 2


def test_a_changed_array_is_seen():
    scaled, calls = _counting()
    x = np.ones(3)
    scaled(x)
    x[0] = 5
    assert scaled(x)[0] == 5
    assert len(calls) == 2


def test_results_cannot_be_written_to_and_only_a_few_are_kept():
    scaled, calls = _counting()
    with pytest.raises(ValueError, match="read-only"):
        scaled(np.ones(3))[0] = 2
    for number in range(20):
        scaled(np.full(3, number))
    scaled(np.full(3, 19))
    assert len(calls) == 21
    scaled(np.full(3, 0))
    assert len(calls) == 22


def test_an_array_that_is_given_back_stays_its_owners():
    same = remembered(lambda x: x)
    x = np.ones(3)
    assert not same(x).flags.writeable
    x[0] = 5
    assert same(np.ones(3))[0] == 1
    assert same(np.ones((0, 4))).shape == (0, 4)


def test_a_metric_is_the_same_with_and_without_memory():
    rng = np.random.default_rng(0)
    bank, blocks = rng.normal(size=(40, 5)), [rng.normal(size=(7, 5)) for _ in range(3)]
    assert kernel_sums(blocks, bank).value() == kernel_sums(blocks, bank).value()
    assert kernel_sums(blocks, bank + 0.1).value() != kernel_sums(blocks, bank).value()
