"""Layouts are told apart by names alone: one fits, or none, or it is said why not."""

from __future__ import annotations

import itertools

import pytest

from evalkit.errors import CheckpointError
from evalkit.generators.description import LayoutFacts
from evalkit.generators.facts import LAYOUTS
from evalkit.generators.recognition import choose_part, common_prefix, nearest_layouts, recognise
from tests.generators.layouts import NAMES, shapes

ONE = LayoutFacts("one", "first", fingerprint=("a.weight", "b.weight"), averaged=("avg",), raw=("plain",))
TWO = LayoutFacts("two", "second", fingerprint=("a.weight", "c.weight"), absent=("b.weight",))
NAMED = LayoutFacts("named", "third", class_names=("UNet",))
ALL = (ONE, TWO, NAMED)
A, B = ("a.weight", "b.weight", "x"), ("a.weight", "c.weight")


def test_one_fits_by_its_names():
    assert recognise({"": A}, ALL).layout is ONE
    assert recognise({"": B}, ALL).layout is TWO
    assert recognise({"": ("x",)}, ALL) is None
    assert recognise({}, ALL) is None


def test_names_that_must_be_absent():
    assert recognise({"": (*A, "c.weight")}, ALL).layout is ONE


def test_class_name_decides_where_a_layout_names_one():
    assert recognise({"": ("x",)}, ALL, class_names={"": "UNet"}).layout is NAMED
    assert recognise({"": ("x",)}, ALL, class_names={"": "VAE"}) is None


def test_layout_that_says_nothing_fits_nothing():
    assert recognise({"": A}, (LayoutFacts("empty", "says nothing"),)) is None


def test_several_that_fit_are_refused_unless_the_model_decides():
    wide = LayoutFacts("wide", "fits too", fingerprint=("a.weight",))
    with pytest.raises(CheckpointError, match="one, wide"):
        recognise({"": A}, (ONE, wide))
    assert recognise({"": A}, (ONE, wide), prefer=("wide",)).layout is wide
    with pytest.raises(CheckpointError, match="several"):
        recognise({"": A}, (ONE, wide), prefer=("other",))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(prefix):
    found = recognise({"": [prefix + name for name in A]}, ALL)
    assert (found.layout, found.prefix) == (ONE, prefix)
    assert recognise({"": [*(prefix + name for name in A), "other"]}, ALL) is None


def test_prefix_of_the_layout_and_of_a_wrapper():
    layout = LayoutFacts("p", "prefixed", fingerprint=("a",), prefixes=("net.",))
    for prefix in ("net.", "module.net.", "net.module."):
        assert recognise({"": [prefix + "a"]}, (layout,)).prefix == prefix


def test_names_that_begin_like_a_wrapper_stay():
    layout = LayoutFacts("m", "has modules", fingerprint=("module.a",))
    assert recognise({"": ["module.a", "module.b"]}, (layout,)).prefix == ""


def test_averaged_first_raw_on_demand():
    parts = {"plain": A, "avg": A, "optim": ("step",)}
    assert recognise(parts, ALL).part == "avg"
    assert recognise(parts, ALL, weights="raw").part == "plain"
    with pytest.raises(CheckpointError, match="averaged weights only"):
        recognise({"avg": A}, ALL, weights="raw")
    assert recognise({"plain": A}, ALL).part == "plain"
    # Usual names count where the layout lists none.
    assert recognise({"model": B, "ema": B}, ALL).part == "ema"
    assert recognise({"model": B, "ema": B}, ALL, weights="raw").part == "model"


def test_part_of_an_unusual_name_is_used_when_it_is_the_only_one():
    assert recognise({"weights_of_mine": A}, ALL).part == "weights_of_mine"
    with pytest.raises(CheckpointError, match="first, second"):
        recognise({"first": A, "second": A}, ALL)


def test_parts_without_a_layout():
    assert choose_part([], weights="ema") is None
    assert choose_part(["", "x"], weights="raw") == ""
    assert choose_part(["model", "ema"], weights="ema") == "ema"
    with pytest.raises(CheckpointError, match="averaged"):
        choose_part(["ema"], weights="raw")


def test_order_of_layouts_and_parts_does_not_matter():
    parts = {"plain": A, "avg": A, "D": ("x", "y")}
    for layouts in itertools.permutations(ALL):
        for order in itertools.permutations(parts):
            assert recognise({name: parts[name] for name in order}, layouts).part == "avg"


def test_nearest_by_share_of_the_fingerprint():
    near = nearest_layouts({"": ("module.a.weight",), "D": ("x",)}, ALL)
    assert [(n.layout.name, n.share, n.missing) for n in near] == [
        ("one", 0.5, ("b.weight",)),
        ("two", 0.5, ("c.weight",)),
    ]
    assert nearest_layouts({"": ("x",)}, ALL) == []
    assert nearest_layouts({}, ALL) == []


def test_common_prefix():
    assert common_prefix(["module.a", "module.b"]) == "module."
    assert common_prefix(["module.a", "b"]) == ""
    assert common_prefix([]) == ""


@pytest.mark.parametrize("name", NAMES)
def test_real_layouts_fit_at_most_one_description(name):
    """Never two: a layout that fits several would be refused wherever it turns up."""
    names = tuple(shapes(name))
    found = recognise({"": names}, LAYOUTS.values())
    wrapped = recognise({"": [f"module.{n}" for n in names]}, LAYOUTS.values())
    if found is not None:
        assert wrapped is not None
        assert wrapped.layout is found.layout
        assert wrapped.prefix == f"module.{found.prefix}"
