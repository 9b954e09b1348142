"""The gate as a whole: every status, the order of their exit codes, and what a report says beside them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError, NothingMeasuredError, UsageError
from evalkit.gate.baselines import Baseline, find_baseline, side_of
from evalkit.gate.decision import gate
from evalkit.gate.facts import EXIT_CODES, GateSpec, RuleOutcome, Side
from evalkit.gate.quantities import quantities
from evalkit.gate.rules import parse_rule
from evalkit.gate.subjects import identity
from evalkit.record import Blocks


def baseline_of(*records):
    return Baseline(
        side=side_of(records[0], "old.json"), records=records, quantities=quantities(records[0]),
        identity=identity(records[0]),
    )  # fmt: skip


def judge(candidate, baseline, *rules, **spec):
    """Gate runs (one, or several of a side) by rules as text."""
    ours, theirs = (side if isinstance(side, tuple) else (side,) for side in (candidate, baseline))
    return gate(ours, baseline_of(*theirs), GateSpec(rules=tuple(map(parse_rule, rules)), **spec))


def one(candidate, baseline, rule, **spec):
    (outcome,) = judge(candidate, baseline, rule, **spec).outcomes
    return outcome


@pytest.fixture(scope="module")
def pair(make):
    """Candidate and baseline of other weights and seeds, by the values of a kernel distance."""

    def build(ours, theirs, se=0.1, **more):
        return (
            make.run(make.score("kd:lite", ours, se, seed=1, **more), sha="c" * 64, seeds=1, day=2),
            make.run(make.score("kd:lite", theirs, se, seed=2, **more), sha="b" * 64),
        )

    return build


def test_a_worse_model_is_a_regression(pair):
    found = one(*pair(3.0, 2.0), "kd rel=5%")
    assert (found.status, found.mode, found.errors) == ("regression", "stat", "unpaired")
    assert found.difference == 1.0
    assert found.se == pytest.approx(math.hypot(0.1, 0.1))
    assert found.margin == pytest.approx(0.1)
    assert found.low > found.margin
    assert found.reason == "worse by 1.00 ± 0.14 (unpaired), 95 % sure to exceed the margin 0.10"
    assert judge(*pair(3.0, 2.0), "kd rel=5%").exit_code == 1


def test_an_equal_model_passes_within_the_margin(pair):
    found = one(*pair(2.0, 2.0), "kd abs=0.5")
    assert found.status == "pass"
    assert found.high <= 0.5
    assert not found.improved
    assert found.reason == "equal ± 0.14 (unpaired), 95 % sure to be at most 0.25 worse; the margin is 0.50"


def test_a_better_model_is_an_improvement(pair):
    report = judge(*pair(1.0, 2.0), "kd abs=0.5")
    (found,) = report.outcomes
    assert report.improved
    assert found.improved
    expected = "better by 1.00 ± 0.14 (unpaired), 95 % sure to be at least 0.75 better"
    assert found.reason == f"{expected}, an improvement beyond the margin"


def test_higher_is_better_where_the_metric_says_so(pair):
    assert one(*pair(3.0, 2.0, direction="higher"), "kd abs=0.1").improved
    assert one(*pair(2.0, 3.0, direction="higher"), "kd abs=0.1").status == "regression"


def test_what_cannot_be_decided_says_how_many_images_would(pair):
    found = one(*pair(2.1, 2.0), "kd abs=0.2")
    assert found.status == "inconclusive"
    # 1024 (1.75305 * 0.141421 / 0.1)^2 = 6293.9.
    assert found.images_to_decide == 6300
    assert "about 6,300 images a side would decide if the difference stays" in found.reason
    assert "another number of images is another protocol: measure both sides again" in found.reason


def test_the_burden_of_proof_decides_what_an_open_question_is(pair):
    request = judge(*pair(2.1, 2.0), "kd abs=0.2")
    assert (request.status, request.exit_code) == ("pass", 0)
    (warning,) = request.warnings
    assert warning.startswith("kd is undecided and passes, since the burden of proof is on the regression")
    assert warning.endswith("about 6,300 images a side would decide if the difference stays")
    release = judge(*pair(2.1, 2.0), "kd abs=0.2", burden="candidate")
    assert (release.status, release.exit_code, release.warnings) == ("inconclusive", 4, ())


def test_a_question_that_no_number_of_images_decides(pair):
    found = one(*pair(2.0, 2.0), "kd")
    assert (found.status, found.images_to_decide) == ("inconclusive", None)
    assert "no number of images up to 10,000,000 would decide: choose another margin" in found.reason


def test_the_same_seeds_pair_the_error_bars(make):
    ours = make.run(make.score("kd:lite", 2.1, 0.1, seed=7), sha="c" * 64, day=2)
    theirs = make.run(make.score("kd:lite", 2.0, 0.1, seed=7))
    found = one(ours, theirs, "kd abs=0.05")
    assert (found.errors, found.status) == ("paired", "regression")
    assert found.se == pytest.approx(0, abs=1e-9)
    other = replace(ours, sampling=replace(ours.sampling, labels="other"))
    assert one(other, theirs, "kd abs=0.05").errors == "unpaired"


def test_the_same_images_and_scores_are_identical(make):
    record = make.run(make.score("kd:lite", 2.0, 0.1))
    report = judge(replace(record, run_id="again"), record, "kd")
    (found,) = report.outcomes
    assert (found.status, found.difference, found.se) == ("pass", 0.0, 0.0)
    assert found.reason == "identical: the very same images gave the same score"
    assert report.warnings == ()


def test_a_run_of_images_from_a_folder_is_identical_to_itself(make):
    record = make.run(make.score("kd:lite", 2.0, 0.1), sampling=False)
    assert one(record, record, "kd", burden="candidate").reason.startswith("identical")
    other = one(replace(record, run_id="other"), record, "kd", burden="candidate")
    assert (other.status, other.errors) == ("inconclusive", "unpaired")


@pytest.mark.parametrize(
    ("rule", "value", "said"),
    [
        ("kd rel=5%", -0.1, True),
        ("kd rel rel=5%", 0.0, True),
        ("kd rel=5%", 0.3, False),
        ("kd rel=5% abs=0.1", -0.1, False),
        ("kd abs=0.1", -0.1, False),
    ],
)
def test_a_share_of_a_baseline_that_is_nothing_is_no_margin(pair, rule, value, said):
    warnings = judge(*pair(0.0, value), rule).warnings
    assert (
        any(w.startswith("kd:lite/block of the baseline is 0 within its error bar") for w in warnings) == said
    )


def test_the_same_checkpoint_and_seeds_with_other_scores_is_judged_and_said(make):
    """A broken sampler of unchanged weights is what a pull request's gate is for."""
    theirs = make.run(make.score("kd:lite", 2.0, 0.1, seed=1))
    ours = make.run(make.score("kd:lite", 3.0, 0.1, seed=1), day=2)
    report = judge(ours, theirs, "kd rel=5%")
    assert report.status == "regression"
    assert any("the code or the machine changed" in warning for warning in report.warnings)


def test_images_of_a_folder_are_unpaired(make):
    ours, theirs = (
        make.run(make.score("kd:lite", 2.0, 0.1), sampling=False, sha=None, day=day) for day in (2, 1)
    )
    assert one(ours, theirs, "kd abs=1").errors == "unpaired"


def test_without_rules_the_headline_is_judged_and_it_is_said(make, pair):
    report = judge(*pair(2.0, 2.0))
    assert report.spec.rules == (parse_rule("kd:lite stat rel=5%"),)
    assert report.warnings[0] == "no rule was given: only kd:lite stat rel=5% is judged"
    with pytest.raises(NothingMeasuredError):
        judge(make.run(), make.run(day=2))


def test_holms_correction_counts_the_statistical_rules_only(make):
    scores = [make.score(f"m{i}", 2.0 + (0.34 if i == 0 else 0), 0.1, seed=i) for i in range(4)]
    olds = [make.score(f"m{i}", 2.0, 0.1, seed=9 + i) for i in range(4)]
    ours = make.run(*scores, seeds=1, sha="c" * 64, day=2, performance=(make.speed(),))
    theirs = make.run(*olds, performance=(make.speed(),))
    alone = one(ours, theirs, "m0")
    plain = judge(ours, theirs, "m0", "throughput rel=5%", "m1 abs abs=1", "m2 band=0..9", "nope")
    assert alone.status == plain.outcomes[0].status == "regression"
    assert plain.outcomes[0].adjusted == alone.adjusted == alone.p_value
    four = judge(ours, theirs, "m0", "m1 abs=1", "m2 abs=1", "m3 abs=1").outcomes
    assert four[0].adjusted == pytest.approx(4 * alone.p_value)
    assert four[0].status == "inconclusive"
    assert "but not after Holm's correction for 4 rules (p = " in four[0].reason
    assert four[0].images_to_decide > 1024


@pytest.mark.parametrize(
    ("rule", "status", "mode"),
    [
        ("throughput rel=10%", "pass", "rel"),
        ("throughput rel rel=4%", "regression", "rel"),
        ("throughput abs=6", "pass", "abs"),
        ("throughput abs=1 rel=4%", "regression", "rel"),
        ("throughput abs=4 rel=1%", "regression", "abs"),
        ("throughput abs", "regression", "abs"),
        ("throughput abs abs=5", "pass", "abs"),
        ("nfe abs", "pass", "abs"),
        ("latency_p50 rel=1%", "pass", "rel"),
        ("kd abs abs=0.1", "pass", "abs"),
        ("kd rel rel=1%", "regression", "rel"),
    ],
)
def test_plain_comparisons(make, rule, status, mode):
    ours = make.run(make.score("kd:lite", 2.05, 0.1), performance=(make.speed(95.0),), day=2, seeds=1)
    theirs = make.run(make.score("kd:lite", 2.0, 0.1), performance=(make.speed(100.0),))
    found = one(ours, theirs, rule)
    assert (found.status, found.mode, found.errors, found.se) == (status, mode, "none", None)
    assert found.p_value is None
    no_error_bar = "so the values are compared plainly" in found.reason
    assert no_error_bar == (parse_rule(rule).mode is None)
    if rule.startswith("throughput"):
        assert found.reason.startswith(
            f"5 img/s worse, {'beyond' if status == 'regression' else 'within'} the margin"
        )


def test_plain_differences_are_told_in_the_unit_that_people_read(make):
    ours, theirs = (make.run(performance=(make.speed(peak_memory_bytes=n),)) for n in (3 * 2**30, 2**30))
    assert one(ours, theirs, "peak_memory rel=5%").reason.startswith(
        "2 GiB worse, beyond the margin 51.2 MiB"
    )
    assert one(theirs, ours, "peak_memory rel=5%").reason.startswith(
        "2 GiB better, beyond the margin 154 MiB"
    )
    assert one(ours, ours, "peak_memory rel=5%").reason.startswith("equal, within the margin")


def test_a_plain_improvement_is_beyond_the_margin(make):
    ours, theirs = (make.run(performance=(make.speed(speed),), day=2) for speed in (120.0, 100.0))
    assert one(ours, theirs, "throughput rel=10%").improved
    assert not one(ours, theirs, "throughput rel=30%").improved


def test_statistics_without_an_error_bar_are_refused(make):
    ours, theirs = (
        make.run(make.score("kd:lite", 2.0), day=2),
        make.run(make.score("kd:lite", 2.0, 0.1), seeds=1),
    )
    for sides, where in (((ours, theirs), "on the candidate$"), ((theirs, ours), "on the baseline$")):
        with pytest.raises(
            UsageError, match=f"wants statistics, but there is no error bar {where}"
        ) as caught:
            judge(*sides, "kd stat rel=5%")
        assert caught.value.hint == (
            "give folders with several runs, or compare plainly: kd:lite/block rel rel=5%"
        )
    with pytest.raises(UsageError, match="on the candidate and the baseline"):
        judge(ours, replace(ours, run_id="x", model=replace(ours.model, sha256="b" * 64)), "kd stat")


def test_neither_an_error_bar_nor_a_margin_is_refused(make):
    ours, theirs = (make.run(performance=(make.speed(),), day=day) for day in (2, 1))
    with pytest.raises(UsageError, match="has no margin, and there is no error bar") as caught:
        judge(ours, theirs, "throughput")
    assert caught.value.hint == "give one: throughput rel=5%; or tolerate nothing: throughput abs"


@pytest.mark.parametrize(
    ("band", "status"),
    [("1..3", "pass"), ("2..2", "pass"), ("0..1.9", "regression"), ("2.1..9", "regression")],
)
def test_a_band_holds_the_candidate_alone(make, pair, band, status):
    for ours, theirs in (pair(2.0, 50.0), (make.run(make.score("kd:lite", 2.0), day=2), make.run())):
        found = one(ours, theirs, f"kd band={band}")
        assert (found.status, found.mode, found.margin, found.improved) == (status, "band", 0.0, False)
        word = "inside" if status == "pass" else "outside"
        assert found.reason.startswith(f"2 lies {word} ")


def test_replicates_stand_in_for_error_bars(make):
    def runs(values, sha, day):
        return tuple(
            make.run(make.score("kd:lite", value), sha=sha, seeds=seed, day=day + seed)
            for seed, value in enumerate(values)
        )

    ours, theirs = runs([3.1, 3.0, 2.9], "c" * 64, 5), runs([2.1, 1.9], "b" * 64, 1)
    found = one(ours, theirs, "kd rel=5%")
    assert (found.status, found.mode, found.errors) == ("regression", "stat", "replicates")
    assert (found.candidate.value, found.baseline.value) == (pytest.approx(3.0), pytest.approx(2.0))
    pooled = math.sqrt((0.01 + 0.01 + 0.01 + 0.01) / 3)
    assert found.se == pytest.approx(pooled * math.sqrt(1 / 3 + 1 / 2))
    assert "(from the spread of the runs)" in found.reason
    wide = one(ours[:2], theirs, "kd abs=0.9")
    assert (wide.status, wide.images_to_decide) == ("inconclusive", None)
    assert "more runs of both would decide" in wide.reason


def test_the_same_seeds_again_are_no_replicates(make):
    """Their spread is nothing, and would make every difference certain."""
    again = tuple(make.run(make.score("kd:lite", 2.0), day=day) for day in (3, 2))
    other = make.run(make.score("kd:lite", 2.1), sha="b" * 64)
    assert one(again, other, "kd rel=10%").errors == "none"
    folder = tuple(make.run(make.score("kd:lite", 2.0), sampling=False, day=day) for day in (3, 2))
    assert one(folder, other, "kd rel=10%").errors == "none"


def test_a_speed_measured_again_is_a_replicate_under_the_same_conditions_only(make):
    def runs(*speeds, **more):
        return tuple(
            make.run(performance=(make.speed(speed, **more),), day=9 - i, sha="b" * 64)
            for i, speed in enumerate(speeds)
        )

    found = one(runs(100.0, 101.0, 99.0), runs(120.0, 121.0), "throughput rel=5%")
    assert (found.status, found.errors) == ("regression", "replicates")
    mixed = (*runs(100.0), *(replace(r, run_id="gpu") for r in runs(900.0, device="cuda")))
    found = one(mixed, runs(101.0), "throughput rel=5%")
    assert (found.status, found.errors, found.candidate.value) == ("pass", "none", 100.0)


def test_a_count_has_no_spread(make):
    ours, theirs = (
        tuple(make.run(sha=sha * 64, seeds=seed, day=day) for seed in (1, 2))
        for sha, day in (("c", 2), ("b", 1))
    )
    assert one(ours, theirs, "nfe rel=5%").errors == "none"


def test_of_a_speed_under_several_conditions_the_comparable_one_counts(make, pair):
    ours, theirs = pair(2.0, 2.0)
    ours = replace(ours, performance=(make.speed(100.0),))
    row = replace(baseline_of(theirs), records=())
    slow, fast = (
        replace(quantities(replace(ours, performance=(make.speed(speed, device=device),)))[1])
        for speed, device in ((100.0, "cpu"), (900.0, "cuda"))
    )
    for speeds in ((slow, fast), (fast, slow)):
        known = replace(row, quantities=speeds)
        report = gate([ours], known, GateSpec(rules=(parse_rule("throughput rel=5%"),)))
        assert (report.status, report.outcomes[0].baseline.value) == ("pass", 100.0)


def test_what_is_missing_is_said_with_its_side(make):
    scores = make.score("kd:lite", 2.0, 0.1), make.score("fd:lite", 2.0, 0.1)
    both, one_only = make.run(*scores, day=2), make.run(scores[0], seeds=1)
    found = one(both, one_only, "fd")
    assert (found.status, found.reason) == (
        "missing",
        "the baseline has no fd:lite/block, which the candidate has",
    )
    assert (found.candidate.metric, found.baseline) == ("fd:lite", None)
    found = one(one_only, both, "fd")
    assert found.reason == "the candidate has no fd:lite/block, which the baseline has"
    assert (found.candidate, found.baseline.metric) == (None, "fd:lite")
    for text, hint in (("kdd", "did you mean 'kd'?"), ("zzz", "known: fd:lite, kd:lite, nfe")):
        report = judge(both, one_only, text)
        assert report.exit_code == 5
        assert report.outcomes[0].reason == f"neither side has {text}; {hint}"
    assert one(make.run(day=2), both, "kd band=0..1").status == "missing"
    assert one(both, one_only, "kd/pool").reason == "neither side has kd/pool; known: kd:lite/block"


def test_a_short_name_means_the_same_on_both_sides(make):
    ours = make.run(make.score("kd:lite", 2.0, 0.1), day=2)
    theirs = make.run(make.score("kd:vit", 2.0, 0.1), make.score("kd:lite", 2.0, 0.1), seeds=1)
    assert one(ours, theirs, "kd abs=1").baseline.metric == "kd:lite"
    with pytest.raises(UsageError, match="fits several"):
        judge(theirs, ours, "kd abs=1")


def test_other_protocols_are_not_compared_and_the_way_out_is_named(make):
    ours = make.run(make.score("kd:lite", 2.0, 0.1), day=2, fields={"num_images": 512})
    theirs = make.run(make.score("kd:lite", 9.0, 0.1), performance=(make.speed(),))
    report = judge(ours, theirs, "kd", "throughput rel=5%", "kd band=0..1", "nope")
    assert (report.status, report.exit_code) == ("not-comparable", 3)
    assert {outcome.status for outcome in report.outcomes} == {"not-comparable"}
    assert report.differing == {"num_images": ("512", "1024")}
    assert report.remedy == (
        f"to compare ddpm with ddpm ({theirs.run_id}), measure it again with --num-samples 1024"
    )
    assert report.outcomes[0].reason == "measured under another protocol: num_images"
    assert report.outcomes[0].candidate.value == 2.0
    assert report.outcomes[0].difference is None


def test_fingerprints_that_differ_without_a_field_are_shown(make):
    ours, theirs = make.run(make.score(), day=2), make.run(make.score())
    ours = replace(ours, protocol=replace(ours.protocol, fingerprint="0" * 64))
    report = judge(ours, theirs, "kd")
    assert report.exit_code == 3
    assert list(report.differing) == ["fingerprint"]


def test_a_row_of_a_leaderboard_has_only_a_fingerprint_to_show(make):
    ours, record = make.run(make.score("kd:lite", 2.0, 0.1), day=2), make.run(make.score("kd:lite", 2.0, 0.1))
    row = replace(baseline_of(record), records=())
    other = replace(row, side=replace(row.side, fingerprint="0" * 64))
    report = gate([ours], other, GateSpec(rules=(parse_rule("kd"),)))
    assert report.exit_code == 3
    assert list(report.differing) == ["fingerprint"]
    assert (
        f"has only the fingerprint: to see which choices differ, name the record of its run {record.run_id}"
        in (report.remedy)
    )
    same = gate([ours], row, GateSpec(rules=(parse_rule("kd abs=1"),)))
    assert (same.status, same.outcomes[0].errors) == ("pass", "paired")  # identical
    moved = replace(row, quantities=tuple(replace(q, value=q.value + 0.1, loo=()) for q in row.quantities))
    assert gate([ours], moved, GateSpec(rules=(parse_rule("kd abs=1"),))).outcomes[0].errors == "unpaired"


@pytest.mark.parametrize(
    ("change", "name", "there"),
    [
        ({"device": "cuda (H200)"}, "device", "cuda (H200)"),
        ({"dtype": "bfloat16"}, "dtype", "bfloat16"),
        ({"batch_size": 8}, "batch size", "8"),
        ({"scenario": "single-stream"}, "scenario", "single-stream"),
    ],
)
def test_speeds_compare_under_the_same_conditions_only(make, pair, change, name, there):
    ours, theirs = pair(2.0, 2.0)
    ours = replace(ours, performance=(make.speed(),))
    theirs = replace(theirs, performance=(make.speed(**change),))
    report = judge(ours, theirs, "throughput rel=5%", "kd abs=1")
    assert [outcome.status for outcome in report.outcomes] == ["not-comparable", "pass"]
    assert report.exit_code == 3
    here = {"device": "cpu", "dtype": "float32", "batch size": "64", "scenario": "offline"}[name]
    assert report.differing == {f"speed.{name}": (here, there)}
    assert report.remedy == "measure the speed of both on one device, at one dtype and batch size"
    assert report.outcomes[0].reason == f"measured under other conditions: {name} {here} against {there}"


def test_opposite_directions_are_refused(make):
    ours = make.run(make.score("kd:lite", 2.0, 0.1, direction="higher"), day=2)
    with pytest.raises(InvalidInputError, match="better higher in the candidate and lower in the baseline"):
        judge(ours, make.run(make.score("kd:lite", 2.0, 0.1)), "kd")


def test_no_candidate_is_nothing_measured(make):
    with pytest.raises(NothingMeasuredError, match="no candidate"):
        gate([], baseline_of(make.run(make.score())), GateSpec())


def test_a_spec_is_checked_before_anything_is_judged(pair):
    with pytest.raises(UsageError, match="alpha is 2"):
        judge(*pair(2.0, 2.0), "kd", alpha=2.0)


def test_both_sides_are_named(make, pair):
    ours, theirs = pair(2.0, 2.0)
    report = gate([ours], baseline_of(theirs), GateSpec(), source="new.json")
    assert report.candidate == Side(
        model="ddpm", run_id=ours.run_id, fingerprint=ours.protocol.fingerprint, source="new.json",
        seeds="base 1, 1024 images",
    )  # fmt: skip
    assert report.baseline == baseline_of(theirs).side


def test_what_the_records_say_of_their_numbers_is_repeated_once(make):
    bound = "only 0 of 5000 images keep the score off its bound"
    few = "small sample: 1024 images"
    ours = make.run(make.score("recall:lite", 0.0, 0.0, warnings=(bound, few), direction="higher"), day=2)
    theirs = make.run(make.score("recall:lite", 0.0, 0.0, warnings=(few,), direction="higher"), seeds=1)
    report = judge(ours, theirs, "recall", "recall abs=0.1")
    assert report.warnings == (
        f"recall:lite/block (candidate): {bound}",
        f"recall:lite/block (candidate and baseline): {few}",
    )
    assert {outcome.status for outcome in report.outcomes} == {"pass"}


def test_another_environment_is_a_warning(pair):
    ours, theirs = pair(2.0, 2.0)
    env = {"evalkit": "0.2.0", "determinism": "strict", "accelerator": "NVIDIA H200", "torch": "9"}
    warnings = judge(replace(ours, env=env), theirs, "kd abs=1").warnings
    assert warnings == (
        "measured with different releases of evalkit: 0.2.0 (candidate) and 0.1.0 (baseline)",
        "measured with different modes of determinism: strict (candidate) and standard (baseline)",
        "measured with different accelerators: NVIDIA H200 (candidate) and none (baseline)",
    )
    assert judge(replace(ours, env={}), theirs, "kd abs=1").warnings == ()


def test_older_runs_that_were_not_read_are_said(make, pair):
    ours, theirs = pair(2.0, 2.0)
    older = tuple(replace(theirs, run_id=f"old-{i}") for i in range(2))
    (warning,) = judge((ours, replace(ours, run_id="older")), theirs, "kd abs=1").warnings
    assert warning == "the newest run of the candidate counts; 1 older one of the same model not read"
    (warning,) = judge(ours, (theirs, *older), "kd abs=1").warnings
    assert warning == "the newest run of the baseline counts; 2 older ones of the same model not read"


def test_notes_on_the_baseline_reach_the_report(make, pair, tmp_path):
    ours, theirs = pair(2.0, 2.0)
    path = tmp_path / "old.json"
    replace(theirs, status="partial").write(path)
    report = gate([ours], find_baseline(path, [ours]), GateSpec(rules=(parse_rule("kd abs=1"),)))
    assert report.warnings == ("the baseline is partial, not complete",)


ORDER = ["not-comparable", "regression", "inconclusive", "missing", "pass"]


@given(st.lists(st.sampled_from(ORDER), min_size=1, max_size=8), st.sampled_from(["candidate", "regression"]))
def test_the_verdict_is_the_worst_status_of_a_rule(statuses, burden):
    rule = parse_rule("kd")
    side = Side(model="m", run_id="r", fingerprint="f", source="s")
    from evalkit.gate.facts import GateReport

    report = GateReport(
        candidate=side, baseline=side, spec=GateSpec(burden=burden),
        outcomes=tuple(RuleOutcome(rule=rule, status=status, reason="") for status in statuses),
    )  # fmt: skip
    counted = [s for s in statuses if burden == "candidate" or s != "inconclusive"] or ["pass"]
    assert report.status == min(counted, key=ORDER.index)
    assert (
        report.exit_code
        == {"not-comparable": 3, "regression": 1, "inconclusive": 4, "missing": 5, "pass": 0}[report.status]
    )
    assert report.exit_code == EXIT_CODES[report.status]


KINDS = {
    "speed rel=1%": "not-comparable",
    "bad abs=0.1": "regression",
    "open abs=0.2": "inconclusive",
    "none": "missing",
    "good abs=1": "pass",
}


@pytest.fixture(scope="module")
def mixture(make):
    """Two records of which each of KINDS finds what it says."""
    ours, theirs = (
        [make.score("bad", bad, 0.001, seed=s), make.score("open", open_, 0.1, seed=s + 1),
         make.score("good", 2.0, 0.1, seed=s + 2)]
        for s, bad, open_ in ((0, 9.0, 2.1), (5, 2.0, 2.0))
    )  # fmt: skip
    return (
        make.run(*ours, seeds=1, sha="c" * 64, day=2, performance=(make.speed(),)),
        make.run(*theirs, performance=(make.speed(device="cuda"),)),
    )


@given(kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True), burden=st.booleans())
def test_the_exit_code_of_a_mixture_of_rules(mixture, kinds, burden):
    rules = [kind.replace("speed", "throughput") for kind in kinds]
    report = judge(*mixture, *rules, burden="candidate" if burden else "regression")
    assert [outcome.status for outcome in report.outcomes] == [KINDS[kind] for kind in kinds]
    found = {KINDS[kind] for kind in kinds} - (set() if burden else {"inconclusive"})
    expected = next((status for status in ORDER if status in found), "pass")
    assert (report.status, report.exit_code) == (expected, EXIT_CODES[expected])


def test_a_record_without_sizes_of_its_blocks_is_unpaired(make):
    score = make.score("kd:lite", 2.0, 0.1)
    bare = replace(score, blocks=Blocks(16, score.blocks.loo))
    assert one(make.run(bare, sha="c" * 64, day=2), make.run(bare), "kd abs=1").errors == "unpaired"
