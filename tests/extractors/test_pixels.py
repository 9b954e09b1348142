"""The pixel extractor in closed form, and the facts table against every extractor."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from evalkit.core import Extractor
from evalkit.errors import UsageError
from evalkit.extractors import EXTRACTORS, FACTS, build_extractor
from evalkit.extractors.pixels import Pixels
from evalkit.extractors.resizers import RESIZERS


def noise(n: int, size: int) -> torch.Tensor:
    rng = np.random.Generator(np.random.Philox(size))
    return torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))


@pytest.mark.parametrize(("head", "cells"), [("pixels", 8), ("thumbnail", 4)])
def test_heads_are_area_means(head: str, cells: int) -> None:
    images = noise(3, 32)
    side = 32 // cells
    expected = images.double().view(3, 3, cells, side, cells, side).mean((3, 5)).flatten(1) / 255
    torch.testing.assert_close(Pixels()(images, [head])[head].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1, 5, 32, 37])
def test_any_size_gives_values_in_range(size: int) -> None:
    features = Pixels()(noise(2, size), ["pixels"])["pixels"]
    assert features.shape == (2, 192)
    assert features.min() >= 0
    assert features.max() <= 1


def test_logits_are_a_fixed_linear_map_of_the_pixels() -> None:
    extractor, images = Pixels(), noise(20, 16)
    features = extractor(images, ["pixels", "logits"])
    torch.testing.assert_close(features["logits"], (features["pixels"] - 0.5) @ extractor._projection)
    assert features["logits"].argmax(1).unique().numel() > 1


def test_the_projection_never_changes() -> None:
    # A golden digest: a new one is another extractor, and moves every score made with it.
    expected = "2bb660739d1d1169cae84ab0542197e1094cc8996a7d6d3e7fc572d0360b87ec"
    assert Pixels().spec.sha256 == expected


def test_features_do_not_depend_on_the_batch() -> None:
    images, extractor = noise(300, 8), Pixels()
    together = extractor(images, ["logits"])["logits"]
    torch.testing.assert_close(extractor(images[290:], ["logits"])["logits"], together[290:])


def test_weights_are_refused(tmp_path: object) -> None:
    with pytest.raises(UsageError):
        build_extractor("pixels", weights=tmp_path)  # type: ignore[arg-type]


def test_every_extractor_has_facts_and_every_fact_an_extractor() -> None:
    assert set(EXTRACTORS) == set(FACTS)


@pytest.mark.parametrize("name", list(FACTS))
def test_facts_are_consistent(name: str) -> None:
    facts = FACTS[name]
    assert facts.name == name
    assert facts.summary
    assert {head for _, head in facts.roles} <= dict(facts.heads).keys()
    assert facts.dimensions(facts.head_for("features")) > 0
    for preset_name, preset in facts.presets:
        assert preset.resizer in RESIZERS or name == "pixels"
        assert facts.preset(preset_name) == (preset_name, preset)
    assert facts.preset(None)[0] == facts.presets[0][0]


@pytest.mark.parametrize("name", ["pixels", "efficientnet-lite0"])
def test_facts_agree_with_the_extractor(name: str) -> None:
    extractor = build_extractor(name)
    assert isinstance(extractor, Extractor)
    assert extractor.spec.name == name
    assert dict(extractor.heads) == dict(FACTS[name].heads)


@pytest.mark.parametrize("ask", ["dimensions", "head_for", "preset"])
def test_unknown_names_are_explained(ask: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(FACTS["inception-v3"], ask)("204")
    assert caught.value.hint


def test_unknown_extractor_device_and_preset_are_refused() -> None:
    with pytest.raises(UsageError, match="inception"):
        build_extractor("inception")
    with pytest.raises(UsageError):
        build_extractor("pixels", device="gpu")
    with pytest.raises(UsageError):
        build_extractor("efficientnet-lite0", preset="fid")


def test_facts_import_no_torch() -> None:
    code = "import sys, evalkit.extractors, evalkit.extractors.facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
