"""CLIP score: each published convention on equal embeddings, the error bar, and what is refused."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
import torch

from evalkit.core import FeatureSet
from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.metrics.clip_score import CONVENTIONS, ClipScore
from evalkit.numerics import block_edges
from evalkit.spec import Score


def embeddings(
    seed: int, n: int = 60, d: int = 16, *, together: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((n, d))
    images = together * texts + 2 * rng.standard_normal((n, d))
    return images.astype(np.float32), texts.astype(np.float32)


def in_blocks(images: np.ndarray, texts: np.ndarray | None, blocks: int = 6) -> FeatureSet:
    spans = list(itertools.pairwise(block_edges(len(images), blocks)))
    parts = tuple(images[i:j] for i, j in spans)
    return FeatureSet(parts, texts=None if texts is None else tuple(texts[i:j] for i, j in spans))


def compute(images: np.ndarray, texts: np.ndarray | None, *, blocks: int = 6, **params: object) -> Score:
    metric = ClipScore(**params)  # type: ignore[arg-type]
    return metric.compute(in_blocks(images, texts, blocks), None, rng=np.random.default_rng(0))


@pytest.mark.parametrize("together", [1.0, 0.0, -1.0])
def test_torchmetrics_convention_is_torchmetrics(together: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    # The name in the package is hidden where transformers is not installed; the module is there.
    peer = importlib.import_module("torchmetrics.functional.multimodal.clip_score")
    images, texts = embeddings(0, together=together)

    def ready(_data: object, modality: str, *_: object) -> torch.Tensor:
        """Stand in for the network: embeddings that are equal on both sides of the comparison."""
        return torch.from_numpy(images if modality == "image" else texts).double()

    monkeypatch.setattr(peer, "_get_features", ready)
    expected = peer.clip_score(
        torch.zeros(60, 3, 8, 8, dtype=torch.uint8), ["x"] * 60, lambda: (torch.nn.Identity(), None)
    )
    score = compute(images, texts, **CONVENTIONS["torchmetrics"])
    assert score.value == pytest.approx(float(expected), rel=1e-6, abs=1e-12)
    assert (score.value == 0) == (together < 0)


def test_hessels_convention_is_the_paper() -> None:
    """w * max(cos, 0) for each pair, w = 2.5, then the mean; as the authors' clipscore.py computes it."""
    from sklearn.preprocessing import normalize

    images, texts = embeddings(1, together=0.2)
    cosines = np.sum(normalize(images) * normalize(texts), axis=1)
    assert (cosines < 0).any()
    expected = np.mean(2.5 * np.clip(cosines, 0, None))
    score = compute(images, texts)
    assert score.value == pytest.approx(float(expected), rel=1e-6)  # scikit-learn keeps float32
    assert score.details["negative_cosines"] == (cosines < 0).sum()
    assert score.details["cosine"] == pytest.approx(float(cosines.mean()), rel=1e-5)
    assert ClipScore().prefix == "A photo depicts "


def test_conventions_on_a_toy() -> None:
    """One pair at cosine 1, one at -1, two at 0.5: what each convention makes of it."""
    e = np.eye(2, dtype=np.float32)
    half = np.array([0.5, np.sqrt(0.75)], dtype=np.float32)
    images, texts = np.stack([e[0], -e[0], half, 7 * half]), np.stack([e[0]] * 4)
    expected = {"hessel": 2.5 * 2 / 4, "torchmetrics": 100 * 1 / 4, "clip-t": 1 / 4}
    for name, value in expected.items():
        assert compute(images, texts, blocks=1, **CONVENTIONS[name]).value == pytest.approx(value)
    away = np.stack([-e[0], -half])
    assert compute(away, texts[:2], blocks=1, **CONVENTIONS["torchmetrics"]).value == 0
    assert compute(away, texts[:2], blocks=1, **CONVENTIONS["hessel"]).value == 0
    assert compute(away, texts[:2], blocks=1, **CONVENTIONS["clip-t"]).value == pytest.approx(-0.75)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_are_named_and_rebuilt_from_their_spec(name: str) -> None:
    metric = ClipScore(**CONVENTIONS[name])  # type: ignore[arg-type]
    assert metric.convention == name
    assert ClipScore(**dict(metric.spec.params)) == metric  # type: ignore[arg-type]
    assert ClipScore(scale=3.0).convention == "custom"


@pytest.mark.parametrize("name", CONVENTIONS)
def test_error_bar_is_the_standard_error_of_the_mean(name: str) -> None:
    from scipy import stats

    images, texts = embeddings(2)
    score = compute(images, texts, **CONVENTIONS[name])
    each = np.array([compute(images[[i, i]], texts[[i, i]], blocks=1, **CONVENTIONS[name]).value
                     for i in range(60)])  # fmt: skip
    if name != "torchmetrics":  # which cuts the mean alone, so that its single values are not cut
        assert score.value == pytest.approx(each.mean())
        assert score.stderr == pytest.approx(stats.sem(each))
        low, high = stats.t.interval(0.95, 59, loc=each.mean(), scale=stats.sem(each))
        assert score.ci is not None
        assert (score.ci.low, score.ci.high) == pytest.approx((low, high))
    assert score.block_sizes == (10,) * 6
    for block, value in enumerate(score.blocks):
        rest = np.delete(np.arange(60), np.s_[10 * block : 10 * block + 10])
        alone = compute(images[rest], texts[rest], blocks=1, **CONVENTIONS[name])
        assert value == pytest.approx(alone.value)
    one = compute(images, texts, blocks=1)
    assert one.stderr == pytest.approx(compute(images, texts).stderr)
    assert (one.ci is None, one.blocks, one.block_sizes) == (False, (), ())


def test_order_does_not_matter_but_the_pairing_does() -> None:
    images, texts = embeddings(3)
    order = np.random.default_rng(0).permutation(60)
    assert compute(images[order], texts[order]).value == pytest.approx(compute(images, texts).value)
    assert compute(images, texts[order]).value < compute(images, texts).value / 2


def test_lengths_of_embeddings_do_not_matter() -> None:
    images, texts = embeddings(4)
    assert compute(images * 100, texts / 7).value == pytest.approx(compute(images, texts).value, rel=1e-6)


def test_what_cannot_be_scored_is_refused() -> None:
    images, texts = embeddings(5)
    with pytest.raises(NothingMeasuredError, match="prompt"):
        compute(images, None)
    with pytest.raises(InvalidInputError, match="at least 2"):
        compute(images[:1], texts[:1], blocks=1)
    with pytest.raises(InvalidInputError):
        compute(images, texts[:, :5])
    for bad in (np.nan, np.inf):
        spoilt = images.copy()
        spoilt[3, 3] = bad
        with pytest.raises(InvalidInputError, match="NaN"):
            compute(spoilt, texts)
    with pytest.raises(InvalidInputError, match="zero"):
        compute(np.zeros_like(images), texts)
    generated = FeatureSet((images[:30], images[30:]), texts=(texts,))
    with pytest.raises(InvalidInputError, match="blocks"):
        ClipScore().compute(generated, None, rng=np.random.default_rng(0))


@pytest.mark.parametrize("params", [{"clamp": "all"}, {"scale": 0.0}, {"scale": -1.0}])
def test_parameters_that_cannot_be_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ClipScore(**params)  # type: ignore[arg-type]


def test_duplicates_are_counted() -> None:
    images, texts = embeddings(6)
    images[9] = images[2]
    assert compute(images, texts).warnings[0].startswith("1 of 60")
