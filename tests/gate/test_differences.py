"""Differences: worse-positive, and by which standard error, one condition at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError
from evalkit.gate.differences import (
    NUMERIC_FLOOR,
    difference,
    difference_of_runs,
    exceeds,
    margin_of,
    with_mean,
    worse_by,
)
from evalkit.gate.facts import Quantity
from evalkit.gate.rules import parse_rule
from evalkit.gate.subjects import same_seeds
from evalkit.numerics import jackknife

BLOCKS, SIZE = 16, 64


def of_blocks(means, *, share=1.0, **more):
    """The mean of equal blocks; ``share`` is what its recorded error bar holds to be its own variance."""
    means = np.asarray(means, dtype=np.float64)
    without = (means.sum() - means) / (len(means) - 1)
    values = {
        "metric": "kd:lite", "variant": "block", "unit": "", "direction": "lower",
        "value": float(means.mean()), "se": math.sqrt(share) * float(means.std(ddof=1) / len(means) ** 0.5),
        "degrees": len(means) - 1, "loo": tuple(without.tolist()), "sizes": (SIZE,) * len(means),
        "n": SIZE * len(means),
    }  # fmt: skip
    return Quantity(**(values | more))


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(BLOCKS)
    return (
        of_blocks(10.5 + shared + 0.3 * rng.standard_normal(BLOCKS)),
        of_blocks(10.0 + shared + 0.3 * rng.standard_normal(BLOCKS)),
    )


def test_sides_that_the_seeds_drive_apart_have_the_wider_error_bar():
    """Where image i is good on one side because it is bad on the other, pairing must not hide it."""
    rng = np.random.default_rng(1)
    shared, ours, theirs = rng.standard_normal((3, 400, BLOCKS))
    sides = [
        (of_blocks(10 + 0.9 * a + 0.436 * b), of_blocks(10 - 0.9 * a + 0.436 * c))
        for a, b, c in zip(shared, ours, theirs, strict=True)
    ]
    paired = [difference(*both, same_seeds=True) for both in sides]
    unpaired = [difference(*both, same_seeds=False) for both in sides]
    spread = np.std([found.value for found in paired], ddof=1)
    assert np.sqrt(np.mean([found.se**2 for found in paired])) == pytest.approx(spread, rel=0.1)
    assert np.sqrt(np.mean([found.se**2 for found in unpaired])) < 0.8 * spread


def test_a_paired_error_of_ragged_blocks_is_the_jackknife_of_the_differences():
    rng = np.random.default_rng(2)
    sizes = (3, 64, 65, 1, 64)
    ours, theirs = 10 + rng.standard_normal((2, len(sizes)))
    sides = [replace(of_blocks(loo), loo=tuple(loo.tolist()), sizes=sizes, se=1e9) for loo in (ours, theirs)]
    apart = ours - theirs
    expected = jackknife(float(apart.mean()), apart, sizes=sizes).stderr
    assert difference(*sides, same_seeds=True).se == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("same_seeds", [True, False])
def test_an_error_bar_of_nothing_but_rounding_is_zero(same_seeds):
    base = of_blocks(np.full(BLOCKS, 10.0))
    noisy = tuple(10.1 + 2e-15 * (i % 2) for i in range(BLOCKS))
    shifted = replace(base, value=10.1, loo=noisy, se=3e-15)
    found = difference(shifted, base, same_seeds=same_seeds)
    assert (found.se, found.errors) == (0.0, "paired" if same_seeds else "unpaired")


def test_worse_is_positive_in_both_directions(pair):
    assert worse_by(3.0, 2.0, "lower") == 1.0
    assert worse_by(3.0, 2.0, "higher") == -1.0
    ours, theirs = pair
    assert difference(ours, theirs, same_seeds=True).value == ours.value - theirs.value
    up = [replace(side, direction="higher") for side in pair]
    turned = difference(*up, same_seeds=True)
    assert turned.value == theirs.value - ours.value
    assert turned.se == difference(ours, theirs, same_seeds=True).se


def test_paired_is_the_jackknife_of_the_differences(pair):
    ours, theirs = pair
    found = difference(ours, theirs, same_seeds=True)
    changes = np.subtract(ours.loo, theirs.loo)
    by_hand = math.sqrt((BLOCKS - 1) / BLOCKS * float(((changes - changes.mean()) ** 2).sum()))
    assert found.se == pytest.approx(by_hand, rel=1e-12)
    assert (found.errors, found.degrees) == ("paired", BLOCKS - 1)
    assert found.se < 0.5 * difference(ours, theirs, same_seeds=False).se


def test_paired_blocks_of_unequal_sizes_are_weighted(pair):
    sizes = (65,) * 8 + (64,) * 8
    ours, theirs = (replace(side, sizes=sizes) for side in pair)
    changes = np.subtract(ours.loo, theirs.loo)
    expected = jackknife(float(changes.mean()), changes, sizes=sizes).stderr
    # Its sides' own shares are below 1 by rounding of the sizes only.
    assert difference(ours, theirs, same_seeds=True).se == pytest.approx(expected, rel=0.01)


def test_unpaired_adds_the_variances_on_the_smaller_number_of_degrees(pair):
    ours, theirs = pair[0], replace(pair[1], degrees=7)
    found = difference(ours, theirs, same_seeds=False)
    assert found.se == math.hypot(ours.se, theirs.se)
    assert (found.errors, found.degrees) == ("unpaired", 7)


UNPAIRED = {
    "other seeds": ({}, False),
    "other sizes": ({"sizes": (SIZE,) * 15 + (SIZE - 1,)}, True),
    "no sizes": ({"sizes": ()}, True),
    "no blocks": ({"loo": (), "sizes": ()}, True),
    "fewer blocks": ({"loo": (1.0,) * 8, "sizes": (SIZE,) * 8}, True),
}


@pytest.mark.parametrize("why", UNPAIRED)
def test_one_missing_condition_is_enough_to_be_unpaired(pair, why):
    changes, seeds = UNPAIRED[why]
    found = difference(pair[0], replace(pair[1], **changes), same_seeds=seeds)
    assert found.errors == "unpaired"


def test_a_single_block_is_no_pair(pair):
    one = [replace(side, loo=(1.0,), sizes=(64,)) for side in pair]
    assert difference(*one, same_seeds=True).errors == "unpaired"


@pytest.mark.parametrize("bare", [0, 1])
def test_a_side_without_an_error_bar_leaves_the_difference_without_one(pair, bare):
    sides = [replace(side, se=None, degrees=None) if i == bare else side for i, side in enumerate(pair)]
    found = difference(*sides, same_seeds=True)
    assert (found.se, found.degrees, found.errors) == (None, None, "none")
    assert found.value == pair[0].value - pair[1].value


def test_the_larger_share_of_the_two_corrects_the_paired_variance(pair):
    plain = difference(*pair, same_seeds=True).se
    shares = [replace(side, se=side.se * math.sqrt(s)) for side, s in zip(pair, (0.5, 0.7), strict=True)]
    assert difference(*shares, same_seeds=True).se == pytest.approx(plain * math.sqrt(0.7), rel=1e-12)


def test_a_share_is_never_above_one(pair):
    wide = [replace(side, se=3 * side.se) for side in pair]
    plain = difference(*pair, same_seeds=True).se
    assert difference(*wide, same_seeds=True).se == pytest.approx(plain, rel=1e-12)


def test_blocks_that_do_not_spread_have_share_one(pair):
    flat = of_blocks(np.full(BLOCKS, 10.0))
    found = difference(pair[0], flat, same_seeds=True)
    assert found.se == pytest.approx(pair[0].se, rel=1e-12)


def test_the_error_bar_of_a_mean_does_not_shrink_its_noisier_blocks(pair):
    """Its standard error comes from the images: that it is below the blocks' is chance, not a share."""
    means = [replace(side, se=0.5 * side.se, degrees=1023) for side in pair]
    expected = difference(*pair, same_seeds=True).se
    assert difference(*means, same_seeds=True).se == pytest.approx(expected, rel=1e-12)


def test_the_same_images_with_the_same_score_differ_by_nothing(pair):
    found = difference(pair[0], pair[0], same_seeds=True, same_images=True)
    assert (found.value, found.se, found.errors, found.identical) == (0.0, 0.0, "paired", True)
    row = replace(pair[0], loo=(), sizes=())  # of a leaderboard
    assert difference(pair[0], row, same_seeds=False, same_images=True).identical


def test_the_same_images_with_another_score_are_a_difference(pair):
    """The code below the model changed: exactly what a gate is for."""
    ours, theirs = pair
    found = difference(ours, theirs, same_seeds=True, same_images=True)
    assert not found.identical
    assert found.value == ours.value - theirs.value
    moved = replace(ours, loo=tuple(value + 1e-9 * i for i, value in enumerate(ours.loo)))
    assert not difference(ours, moved, same_seeds=True, same_images=True).identical


def test_equal_blocks_of_other_models_are_paired_with_no_error(pair):
    found = difference(pair[0], pair[0], same_seeds=True)
    assert (found.value, found.se, found.identical) == (0.0, 0.0, False)


def test_opposite_directions_and_other_units_are_refused(pair):
    for changes, words in (({"direction": "higher"}, "better"), ({"unit": "dB"}, "is in")):
        with pytest.raises(InvalidInputError, match=words) as caught:
            difference(
                replace(pair[0], unit="bit"), replace(pair[1], **{"unit": "bit"} | changes), same_seeds=True
            )
        assert caught.value.hint
    assert difference(replace(pair[0], unit="dB"), pair[1], same_seeds=True).errors == "paired"


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20),
    st.floats(-1e3, 1e3),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_laws_of_the_paired_difference(means, shift, first, second):
    """Antisymmetric; the same error both ways; a constant shift of one side changes only the value."""
    ours, theirs = of_blocks(means, share=first), of_blocks(np.roll(means, 1), share=second)
    there, back = (
        difference(ours, theirs, same_seeds=True),
        difference(theirs, ours, same_seeds=True),
    )
    assert there.value == -back.value
    assert there.se == pytest.approx(back.se, rel=1e-9)
    moved = of_blocks(np.add(means, shift), share=first)
    found = difference(moved, theirs, same_seeds=True)
    scale = max(1.0, *map(abs, means), abs(shift))
    assert found.value == pytest.approx(there.value + shift, abs=1e-9 * scale)
    if np.std(means) > 1e-3 * scale:
        assert found.se == pytest.approx(there.se, rel=1e-6, abs=1e-9 * scale)


def test_runs_give_students_two_sample_error():
    from scipy.stats import ttest_ind

    ours, theirs = [10.1, 10.3, 10.2, 9.9], [9.8, 9.7, 10.0]
    found = difference_of_runs(ours, theirs, "lower")
    oracle = ttest_ind(ours, theirs)
    assert found.value / found.se == pytest.approx(oracle.statistic, rel=1e-12)
    assert (found.degrees, found.errors) == (oracle.df, "replicates")
    assert difference_of_runs(ours, theirs, "higher").value == -found.value


def test_several_runs_of_one_side_also_speak_for_the_single_one_of_the_other():
    found = difference_of_runs([3.0], [1.0, 2.0], "lower")
    assert (found.value, found.degrees) == (1.5, 1)
    assert found.se == pytest.approx(math.sqrt(0.5) * math.sqrt(1 + 1 / 2))


@pytest.mark.parametrize("runs", [([1.0], [2.0]), ([], [1.0, 2.0]), ([1.0, 2.0], [])])
def test_without_two_runs_of_one_model_there_is_no_spread(runs):
    assert difference_of_runs(*runs, "lower") is None


def test_the_mean_of_runs_has_no_error_bar_of_its_own(pair):
    mean = with_mean(pair[0], [1.0, 2.0])
    assert (mean.value, mean.se, mean.loo, mean.metric) == (1.5, None, (), pair[0].metric)


def test_the_largest_margin_counts():
    assert margin_of(parse_rule("kd abs=2 rel=5%"), 10.0) == 2.0
    assert margin_of(parse_rule("kd abs=2 rel=5%"), 100.0) == 5.0
    assert margin_of(parse_rule("kd abs=2 rel=5%"), -100.0) == 5.0
    assert margin_of(parse_rule("kd"), 100.0) == NUMERIC_FLOOR * 100
    assert margin_of(parse_rule("kd"), 0.0) == 0.0


def test_a_plain_difference_exceeds_a_margin_by_more_than_rounding():
    assert not exceeds(0.8 - 0.79, 0.01, baseline=0.8)  # 0.010000000000000009
    assert not exceeds(0.01, 0.01, baseline=0.8)
    assert exceeds(0.0100001, 0.01, baseline=0.8)
    assert exceeds(1e-300, 0.0, baseline=0.0)
    assert not exceeds(-1.0, 0.0, baseline=1.0)


SAME = ("base", "scheme", "first", "last")


@pytest.mark.parametrize("field", [*SAME, "n", "labels"])
def test_every_part_of_the_seeds_must_agree_to_be_paired(make, field):
    one = make.run()
    other = make.run(day=2)
    assert same_seeds(one, other)
    sampling = other.sampling
    if field in SAME:
        value = "other" if field == "scheme" else 7
        sampling = replace(sampling, seeds=replace(sampling.seeds, **{field: value}))
    else:
        sampling = replace(sampling, **{field: 7 if field == "n" else "other"})
    assert not same_seeds(one, replace(other, sampling=sampling))


def test_images_of_a_folder_are_never_paired(make):
    drawn, folder = make.run(), make.run(sampling=False)
    assert not same_seeds(drawn, folder)
    assert not same_seeds(folder, drawn)
    assert not same_seeds(folder, folder)
