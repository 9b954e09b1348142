"""Who belongs to whom: names, order, and what is said where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.pairs.matching import choose_rule, match_by_index, match_by_name, match_masks, stem


def test_names_match_without_their_extension_and_with_their_folder():
    pairing = match_by_name(["b/1.PNG", "a/1.jpg", "2.v2.png"], ["a/1.png", "2.v2.JPEG", "b/1.webp"])
    assert pairing.rule == "name"
    found = list(zip(pairing.generated.tolist(), pairing.reference.tolist(), strict=True))
    assert found == [(2, 1), (1, 0), (0, 2)]  # byte order of the reference names: 2, a, b
    assert stem("a.b/c") == "a.b/"  # no extension in a folder's name
    assert stem("a/b.tar.png") == "a/b.tar"


def test_case_of_a_name_counts():
    with pytest.raises(InvalidInputError, match="no reference of the same name"):
        match_by_name(["A.png"], ["a.png"])


def test_one_sided_images_are_listed_on_both_sides_up_to_ten():
    generated = [f"g{i:02d}.png" for i in range(12)] + ["x.png"]
    with pytest.raises(InvalidInputError) as caught:
        match_by_name(generated, ["x.png", "r.png"])
    message = caught.value.message
    assert "12 generated images have no reference" in message
    assert "1 reference image has no generated" in message
    assert "'g09.png'" in message
    assert "g10" not in message
    assert "and 2 more" in message
    assert "--match index" in caught.value.hint
    assert "--allow-unmatched" in caught.value.hint


def test_unmatched_images_can_be_left_out_and_are_counted():
    pairing = match_by_name(["a.png", "b.png"], ["b.png", "c.png", "d.png"], allow_unmatched=True)
    assert pairing.unmatched == (1, 2)
    assert len(pairing) == 1
    with pytest.raises(NothingMeasuredError):
        match_by_name(["a.png"], ["b.png"], allow_unmatched=True)


@pytest.mark.parametrize("allow", [False, True])
def test_ambiguous_names_are_refused(allow):
    with pytest.raises(InvalidInputError, match=r"differ only in their extension:\n  'a\.jpg' and 'a\.png'"):
        match_by_name(["a.png", "a.jpg"], ["a.png"], allow_unmatched=allow)


def test_order_needs_equal_counts():
    assert match_by_index(3, 3).reference.tolist() == [0, 1, 2]
    with pytest.raises(InvalidInputError, match="3 generated images and 4 reference images"):
        match_by_index(3, 4)


def test_the_rule_is_names_where_both_sides_have_them():
    assert choose_rule("auto", generated_named=True, reference_named=True) == "name"
    assert choose_rule("auto", generated_named=True, reference_named=False) == "index"
    assert choose_rule("index", generated_named=True, reference_named=True) == "index"
    with pytest.raises(UsageError, match="reference images have no names"):
        choose_rule("name", generated_named=True, reference_named=False)


def test_masks_are_named_like_the_generated_images():
    pairing = match_by_name(["b.png", "a.png"], ["a.png", "b.png"])
    masked = match_masks(pairing, ["b.png", "a.png"], ["a.png", "b.PNG"])
    assert masked.masks is not None
    assert masked.masks.tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="1 pairs have no mask"):
        match_masks(pairing, ["b.png", "a.png"], ["a.png"])
    with pytest.raises(InvalidInputError, match="1 masks belong to no pair"):
        match_masks(pairing, ["b.png", "a.png"], ["a.png", "b.png", "c.png"])
    assert match_masks(pairing, ["b.png", "a.png"], ["a.png", "b.png", "c.png"], allow_unmatched=True)


names = st.lists(st.text("ab/.", min_size=1, max_size=5).map(lambda t: f"{t}.png"), min_size=1, unique=True)


@given(names, st.randoms(use_true_random=False))
def test_the_order_of_a_side_does_not_matter(reference, random):
    shuffled = list(reference)
    random.shuffle(shuffled)
    pairing = match_by_name(shuffled, reference)
    assert [shuffled[i] for i in pairing.generated] == [reference[i] for i in pairing.reference]
    assert sorted(pairing.generated.tolist()) == list(range(len(reference)))
    chosen = np.array([0], dtype=np.int64)
    assert pairing.take(chosen).generated.tolist() == [pairing.generated[0]]
