"""Measures of one network share one pass over the images, and give the values that each gives alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evalkit.errors import InvalidInputError
from evalkit.perceptual import PairMeasure, build_pair_measure, build_pair_measures
from evalkit.perceptual.passes import SharedPass, StageMeasure, in_shared_passes

from .conftest import noisy, photographs

NAMES = ("pd-efficientnet-lite0", "ssim", "style-efficientnet-lite0")


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    reference = photographs(48)
    mask = torch.zeros((3, 1, 48, 48), dtype=torch.bool)
    mask[..., 10:30, 5:40] = True
    return noisy(reference, 20), reference, {"inside": mask, "outside": ~mask}


def test_values_are_those_of_each_measure_alone(images):
    generated, reference, masks = images
    measures = build_pair_measures(NAMES, weights={}, device="cpu")
    passes = in_shared_passes(measures)
    assert [p.names for p in passes] == [("ssim",), (NAMES[0], NAMES[2])]
    assert all(isinstance(p, PairMeasure) for p in passes)
    together = {name: v for p in passes for name, v in p(generated, reference, masks=masks).items()}
    alone = {
        name: values
        for measure in (build_pair_measure(n, weights={}, device="cpu") for n in NAMES)
        for name, values in measure(generated, reference, masks=masks).items()
    }
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[name], alone[name]) for name in alone)


def test_the_network_runs_once_for_each_chunk_of_both_sides(images, monkeypatch):
    generated, reference, masks = images
    measures = build_pair_measures(NAMES, weights={}, device="cpu")
    first, _, last = measures
    assert isinstance(first, StageMeasure)
    assert first.network is last.network
    seen: list[int] = []
    stages = first.network.stages

    def counted(batch):
        seen.append(len(batch))
        return stages(batch)

    monkeypatch.setattr(first.network, "stages", counted)
    for measure in in_shared_passes(measures):
        measure(generated, reference, masks=masks)
    assert sorted(seen) == [2, 4]  # chunks of 1 and 2 pairs, both sides at once: each image once


def test_other_weights_are_another_network(backbone_files: dict[str, Path]):
    weights = {"lpips-alex": backbone_files["alexnet"], "vgg16": backbone_files["vgg16"]}
    names = ["pd-vgg16", "style-vgg16", "lpips-vgg", "lpips-alex"]
    measures = build_pair_measures(names, weights=weights, device="cpu")
    assert [p.names for p in in_shared_passes(measures)] == [tuple(names[:3]), ("lpips-alex",)]


def test_the_spec_follows_its_measures_and_size_is_checked_for_each(backbone_files: dict[str, Path]):
    weights = {"vgg16": backbone_files["vgg16"]}
    pd, style = build_pair_measures(["pd-vgg16", "style-vgg16"], weights=weights, device="cpu")
    both = SharedPass([pd, style])  # type: ignore[list-item]
    assert both.spec != SharedPass([pd]).spec  # type: ignore[list-item]
    small = torch.zeros((1, 3, 15, 40), dtype=torch.uint8)
    with pytest.raises(InvalidInputError, match="pd-vgg16 needs images of at least 16x16"):
        both(small, small, masks={})


def test_a_reference_that_the_next_pair_has_too_goes_through_the_network_once(
    backbone_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    """Seven generated pictures and three references at 64 x 64: one pass of ten images."""
    (measure,) = build_pair_measures(["lpips-squeeze"], weights=backbone_files, device="cpu")
    assert isinstance(measure, StageMeasure)
    reference = photographs(64)[[0, 0, 0, 1, 2, 2, 2]]
    generated = noisy(reference, 30)
    alone = [measure(generated[i : i + 1], reference[i : i + 1], masks={}) for i in range(7)]
    seen: list[int] = []
    stages = measure.network.stages

    def counted(batch):
        seen.append(len(batch))
        return stages(batch)

    monkeypatch.setattr(measure.network, "stages", counted)
    mask = torch.ones((7, 1, 64, 64), dtype=torch.bool)
    found = measure(generated, reference, masks={"all": mask})
    assert seen == [10]
    expected = torch.cat([values["lpips-squeeze"] for values in alone])
    torch.testing.assert_close(found["lpips-squeeze"], expected, rtol=1e-6, atol=0)
    assert found["lpips-squeeze/all"].isfinite().all()


@pytest.mark.parametrize(
    ("name", "size", "pairs"),
    [
        ("squeeze", (16, 20), 8),
        ("squeeze", (64, 64), 8),
        ("squeeze", (96, 96), 3),
        ("squeeze", (800, 600), 2),
        ("alex", (64, 64), 16),
        ("alex", (800, 600), 2),
    ],
)
def test_a_pass_holds_more_pairs_of_smaller_images(backbone_files: dict[str, Path], name, size, pairs):
    (measure,) = build_pair_measures([f"lpips-{name}"], weights=backbone_files, device="cpu")
    assert isinstance(measure, StageMeasure)
    assert measure.network.pairs_at_once(*size) == pairs
