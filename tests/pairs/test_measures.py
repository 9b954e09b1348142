"""Which measures are taken, and how their values are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evalkit.errors import InvalidInputError, UsageError
from evalkit.pairs.measures import Value, build_values, choose_measures, full_name
from evalkit.perceptual import PAIR_MEASURES
from evalkit.spec import Spec


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))


def chosen(*names: str, side: int = 256, **weights: Path) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    facts = choose_measures(names, smallest_side=side, weights=weights, notify=notes.append)
    return [f.name for f in facts], notes


def test_the_default_is_what_needs_no_download_and_fits():
    names, notes = chosen()
    assert names == ["psnr", "ssim", "ms-ssim", "pd-efficientnet-lite0", "style-efficientnet-lite0"]
    assert len(notes) == 1
    assert "lpips-alex" in notes[0]
    names, notes = chosen(side=160)
    assert "ms-ssim" not in names
    assert any("161" in note for note in notes)
    assert chosen(side=161)[0].count("ms-ssim") == 1
    assert "ssim" not in chosen(side=10)[0]


def test_given_weights_bring_lpips_into_the_default(tmp_path):
    file = tmp_path / "alexnet.pth"
    file.touch()
    assert "lpips-alex" in chosen(alexnet=file)[0]
    with pytest.raises(UsageError, match="vgg16=… is not used"):
        chosen(vgg16=file)
    with pytest.raises(UsageError, match="is not used"):
        chosen("psnr", alexnet=file)


def test_short_names():
    assert full_name("lpips") == "lpips-alex"
    assert full_name("lpips:vgg") == "lpips-vgg"
    assert chosen("ssim", "pd", "ssim", "pd:efficientnet-lite0")[0] == ["ssim", "pd-efficientnet-lite0"]
    with pytest.raises(UsageError, match="lpips-alx") as caught:
        chosen("lpips:alx")
    assert "lpips-alex" in (caught.value.hint or "")


def test_what_is_asked_for_must_fit():
    with pytest.raises(InvalidInputError, match="ms-ssim needs images of at least 161 x 161"):
        chosen("ms-ssim", side=100)


class OtherWeights:
    names = ("lpips-alex",)
    published = False
    spec = Spec.of("pair-measure", "lpips-alex", sha256="1a2b3c4d" + "0" * 56)


def test_labels_name_the_network_and_foreign_weights():
    (psnr, pd, luma) = build_values(
        [PAIR_MEASURES[n] for n in ("psnr", "pd-efficientnet-lite0", "ssim-y")],
        weights={},
        device=torch.device("cpu"),
    )
    assert [v.label for v in (psnr, pd, luma)] == ["psnr", "pd:efficientnet-lite0", "ssim:y"]
    assert Value(PAIR_MEASURES["lpips-alex"], OtherWeights()).label == "lpips:alex@1a2b3c4d"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(PAIR_MEASURES))
@pytest.mark.parametrize("region", ["whole", "inside"])
def test_every_measure_has_its_metric(name, region):
    value = Value(PAIR_MEASURES[name], OtherWeights())  # type: ignore[arg-type]
    metric = value.metric(region)
    assert metric.reads == "pairs"
    assert metric.better == value.facts.better
    assert metric.head == (name if region == "whole" else f"{name}/inside")
