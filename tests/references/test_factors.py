"""Factors of covariances in reference files: written, checked when read, used by metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError
from evalkit.metrics import frechet_target
from evalkit.metrics.frechet import FrechetDistance
from evalkit.metrics.frechet_target import target_of
from evalkit.numerics import gaussian_factor
from evalkit.references import (
    Description,
    HeadStatistics,
    Reference,
    load_reference,
    read_reference,
    store_reference,
    write_reference,
)
from evalkit.spec import Spec

SPEC = Spec.of("extractor", "pixels", sha256="a" * 64)


def toy(rank: int = 6) -> Reference:
    rng = np.random.default_rng(rank)
    heads = {}
    for name, width in (("block", 6), ("one", 1)):
        x = rng.standard_normal((40, min(rank, width))) @ rng.standard_normal((min(rank, width), width))
        cov = np.cov(x, rowvar=False).reshape(width, width)
        heads[name] = HeadStatistics(40, x.mean(axis=0), (cov + cov.T) / 2)
    about = Description("toy", "Toys", "toys", count=40, images_sha256="b" * 64, extractor=SPEC)
    return Reference.of(about, heads)


@pytest.mark.parametrize("rank", [6, 3, 0])
def test_a_factor_comes_back_bit_for_bit_and_moves_nothing_else(tmp_path: Path, rank: int):
    plain, path = toy(rank), tmp_path / "toy.safetensors"
    whole = plain.with_factors()
    write_reference(whole, path)
    read = read_reference(path)
    assert read.sha256 == whole.sha256 == plain.sha256
    for name, head in plain.heads.items():
        triangle, order = read.heads[name].factor
        expected = gaussian_factor(head.mean, head.covariance)
        np.testing.assert_array_equal(triangle, expected.columns)
        np.testing.assert_array_equal(order, expected.order)
        np.testing.assert_array_equal(read.heads[name].covariance, head.covariance)
    again = tmp_path / "again.safetensors"
    write_reference(read, again)
    assert again.read_bytes() == path.read_bytes()


def test_the_cache_has_factors_and_files_that_travel_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    stored = store_reference(toy(), name="mine")
    assert all(head.factor for head in stored.heads.values())
    assert all(head.factor for head in load_reference("mine", extractor=SPEC).heads.values())
    write_reference(toy(), tmp_path / "toy.safetensors")
    assert not any(head.factor for head in read_reference(tmp_path / "toy.safetensors").heads.values())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda triangle, order: (triangle * (1 + 1e-6), order),
        lambda triangle, order: (triangle, order[::-1].copy()),
        lambda triangle, order: (triangle, np.zeros_like(order)),
        lambda triangle, order: (np.full_like(triangle, np.nan), order),
        lambda triangle, order: (triangle[:, :3], order),
        lambda triangle, order: (triangle[:4, :4], order[:4]),
        # The same diagonal of the covariance, but other entries beside it.
        lambda triangle, order: (np.abs(triangle), order),
    ],
)
def test_a_factor_of_another_covariance_is_found(tmp_path: Path, spoil):
    whole = toy().with_factors()
    head = whole.heads["block"]
    wrong = replace(whole, heads={"block": replace(head, factor=spoil(*head.factor))})
    write_reference(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(InvalidInputError, match="head 'block': the factor"):
        read_reference(tmp_path / "wrong.safetensors")


def test_metrics_use_the_stored_factor_and_find_the_same(monkeypatch: pytest.MonkeyPatch):
    whole, rng = toy().with_factors(), np.random.default_rng(1)
    blocks = tuple(rng.standard_normal((30, 6)).astype(np.float32) for _ in range(4))
    plain = FrechetDistance().compute(FeatureSet(blocks), toy().heads["block"], rng=rng)
    factored = []
    monkeypatch.setattr(frechet_target, "gaussian_factor", lambda *moments: factored.append(moments))
    assert FrechetDistance().compute(FeatureSet(blocks), whole.heads["block"], rng=rng) == plain
    assert not factored


def test_a_covariance_is_factored_once_in_a_run(monkeypatch: pytest.MonkeyPatch):
    head, factored = toy(5).heads["block"], []

    def counted(mean, cov):
        factored.append(cov)
        return gaussian_factor(mean, cov)

    monkeypatch.setattr(frechet_target, "gaussian_factor", counted)
    head = replace(head, covariance=head.covariance * 1.25)
    first = target_of(head)
    again = target_of(replace(head, mean=head.mean + 1, covariance=head.covariance.copy()))
    assert len(factored) == 1
    assert again.columns is first.columns
    np.testing.assert_array_equal(again.mean, head.mean + 1)
    with pytest.raises(InvalidInputError, match="mean does not fit"):
        target_of(replace(head, mean=head.mean[:3]))
