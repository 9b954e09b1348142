"""What is known of extractors without torch agrees with what can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.asset_catalogue import ASSETS
from evalkit.errors import OfflineError, UsageError
from evalkit.extractors import EXTRACTORS, FACTS, build_extractor
from evalkit.extractors.resizers import RESIZERS


def test_every_extractor_has_facts_and_the_other_way_round() -> None:
    assert list(EXTRACTORS) == list(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_whole(name: str) -> None:
    facts = FACTS[name]
    assert facts.name == name
    assert facts.summary
    assert facts.heads
    assert facts.presets
    heads = dict(facts.heads)
    assert all(size > 0 for size in heads.values())
    assert {head for _, head in facts.roles} <= set(heads)
    assert facts.head_for("features") in heads
    for _, preset in facts.presets:
        assert preset.resizer in RESIZERS or name == "pixels"  # which averages areas itself
        assert preset.divisor > 0
        assert all(deviation > 0 for deviation in preset.std)


@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name].downloads])
def test_what_must_be_fetched_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EVALKIT_OFFLINE", "1")
    with pytest.raises(OfflineError) as caught:
        build_extractor(name)
    assert ASSETS[FACTS[name].assets[0]].asset.url in (caught.value.hint or "")


def test_vgg16_is_what_its_network_says() -> None:
    from evalkit.extractors.vgg import VGG_16

    registered = FACTS["vgg16"]
    assert (registered.heads, registered.roles) == (VGG_16.heads, VGG_16.roles)
    assert registered.presets == VGG_16.presets


def test_unknown_names_heads_roles_and_presets_are_explained() -> None:
    facts = FACTS["dinov2"]
    for ask in (
        lambda: FACTS["dinov3"],
        lambda: facts.dimensions("pooled"),
        lambda: facts.head_for("logits"),
        lambda: facts.preset("edm"),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.hint
    assert "dinov9" not in FACTS
    assert 3 not in FACTS
