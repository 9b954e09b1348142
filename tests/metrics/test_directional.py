"""CLIP directional similarity over the rows of its probe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError
from evalkit.metrics.directional import COLUMNS, ClipDirectional
from evalkit.numerics import block_edges
from evalkit.spec import Score


def rows(seed: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = rng.uniform(-1, 1, (n, 4)).astype(np.float32)
    table[:, 1] = 1
    return table


def compute(table: np.ndarray, blocks: int = 6) -> Score:
    edges = block_edges(len(table), blocks)
    generated = FeatureSet(tuple(table[i:j] for i, j in itertools.pairwise(edges)))
    return ClipDirectional().compute(generated, None, rng=np.random.default_rng(0))


def test_the_score_is_the_mean_over_edits() -> None:
    table = rows(0)
    score = compute(table)
    values = table[:, 0].astype(np.float64)
    assert score.value == pytest.approx(values.mean())
    assert score.stderr == pytest.approx(stats.sem(values))
    assert score.details["image_similarity"] == pytest.approx(table[:, 2].mean(), rel=1e-5)
    assert score.details["text_similarity"] == pytest.approx(table[:, 3].mean(), rel=1e-5)
    assert score.blocks[0] == pytest.approx(values[10:].mean())
    one = compute(table, blocks=1)
    assert (one.stderr, one.blocks, one.block_sizes) == (pytest.approx(score.stderr), (), ())


def test_edits_without_a_direction_are_left_out_and_counted() -> None:
    table = rows(1)
    table[:7, :2] = 0
    score = compute(table)
    assert score.value == pytest.approx(table[7:, 0].astype(np.float64).mean())
    assert score.n == 60
    assert score.details["undefined"] == 7
    assert score.warnings[0].startswith("7 of 60 edits")


def test_order_does_not_matter() -> None:
    table = rows(2)
    mixed = np.random.default_rng(0).permutation(table)
    assert compute(mixed).value == pytest.approx(compute(table).value)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(rows(3, 1), blocks=1)
    still = rows(3)
    still[1:, :2] = 0
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(still)
    with pytest.raises(InvalidInputError, match=COLUMNS[2]):
        compute(rows(3)[:, :3])
    spoilt = rows(3)
    spoilt[5, 0] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        compute(spoilt)
