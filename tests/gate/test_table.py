"""The gate's table: what a reader sees first, and that nothing is cut, coloured or rounded wrongly."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from evalkit.gate.facts import GateSpec, Rule
from evalkit.gate.table import gate_table
from evalkit.reporting.formatting import Style
from evalkit.reporting.rendering import to_csv, to_terminal


def row_of(table, rule):
    titles = [column.title for column in table.columns]
    cells = next(row for row in table.rows if row[0].text.startswith(rule))
    return {title: cell.text for title, cell in zip(titles, cells, strict=True)}


def test_a_row_says_values_difference_bounds_and_margin(report, outcome):
    found = outcome(values=(10.0, 10.5), difference=0.5, se=0.2, low=0.15, high=0.85, margin=1.0)
    row = row_of(gate_table(report(found)), "fd")
    assert row == {
        "rule": "fd ↓",
        "verdict": "pass",
        "baseline": "10.00 ± 0.30",
        "candidate": "10.50 ± 0.30",
        "worse by": "+0.50",
        "95 % bounds": "[0.15, 0.85]",
        "margin": "1.0",
    }


def test_worse_is_positive_for_a_metric_that_should_grow(report, outcome):
    fell = outcome(metric="precision:x", direction="higher", values=(0.60, 0.50), se=0.01)
    grew = outcome(metric="recall:x", direction="higher", values=(0.50, 0.60), se=0.01)
    table = gate_table(report(fell, grew))
    assert row_of(table, "precision ↑")["worse by"] == "+0.100"
    assert row_of(table, "recall ↑")["worse by"] == "-0.100"
    assert "positive is worse" in table.legend


@pytest.mark.parametrize(
    ("status", "burden", "word", "tone"),
    [
        ("pass", "regression", "pass", "good"),
        ("regression", "regression", "regression", "bad"),
        ("inconclusive", "regression", "undecided", "warning"),
        ("inconclusive", "candidate", "undecided", "bad"),
        ("not-comparable", "regression", "not comparable", "bad"),
        ("missing", "regression", "missing", "bad"),
    ],
)
def test_the_verdict_of_a_rule_has_a_word_and_a_tone(report, outcome, status, burden, word, tone):
    cell = gate_table(report(outcome(status), burden=burden)).rows[0][1]
    assert (cell.text, cell.tone) == (word, tone)


def test_an_improvement_is_called_better_and_may_be_accepted(report, outcome):
    table = gate_table(report(outcome("pass", improved=True)))
    assert table.rows[0][1].text == "better"
    assert "is better than its baseline" in table.title
    assert "--accept --why" in table.facts[-1]
    worse = gate_table(report(outcome("pass", improved=True), outcome("regression", metric="kd:x")))
    assert not any("--accept" in fact for fact in worse.facts)


@pytest.mark.parametrize(
    ("statuses", "burden", "start"),
    [
        (["pass", "pass"], "regression", "PASS: ddpm is not worse than its baseline (20260101T000000Z-a)"),
        (["pass", "inconclusive"], "regression", "PASS: ddpm is not shown to be worse than its baseline"),
        (["pass", "inconclusive"], "candidate", "INCONCLUSIVE: ddpm is not shown to be as good as"),
        (["inconclusive", "regression", "missing"], "candidate", "REGRESSION: ddpm is worse than"),
        (["missing", "pass"], "regression", "MISSING: ddpm and its baseline"),
        (["not-comparable", "not-comparable"], "regression", "NOT COMPARABLE: ddpm and its baseline"),
        (["not-comparable", "regression"], "regression", "NOT COMPARABLE: ddpm and its baseline"),
    ],
)
def test_the_verdict_comes_first_and_names_the_rules(report, outcome, statuses, burden, start):
    found = [outcome(status, metric=f"m{i}:x") for i, status in enumerate(statuses)]
    made = report(*found, burden=burden)
    first = to_terminal(gate_table(made)).splitlines()[0]
    assert first.startswith(start)
    if made.status != "pass" and len(set(statuses)) > 1:
        assert first.endswith(f"m{statuses.index(made.status)}:x")


def test_the_verdict_of_many_rules_names_the_first_and_counts_the_rest(report, outcome):
    outcomes = [outcome("regression", metric=f"m{i:02}") for i in range(50)]
    title = gate_table(report(*outcomes)).title
    assert title.endswith("in m00, m01, m02, m03, m04, m05 and 44 more")
    assert gate_table(report(*outcomes[:6])).title.endswith("m04, m05")


def test_a_band_that_is_left_is_not_called_worse_alone(report, outcome):
    found = outcome("regression", rule=Rule(metric="fd", mode="band", band=(1.0, 2.5)), mode="band")
    table = gate_table(report(found))
    assert row_of(table, "fd")["margin"] == "1 to 2.5"
    assert table.title.endswith("fd:efficientnet-lite0 (outside its band)")


def test_a_relative_margin_shows_its_share_only_where_it_is_the_larger(report, outcome):
    rule = Rule(metric="fd", relative=0.05, absolute=0.1)
    relative = outcome(rule=rule, margin=0.5)  # 5 % of 10
    absolute = outcome(rule=replace(rule, absolute=2.0), margin=2.0)
    table = gate_table(report(relative, absolute))
    assert [row[6].text for row in table.rows] == ["0.50 (5 %)", "2.0"]


def test_speed_has_units_and_no_bounds(report, outcome):
    plain = {"value_se": None, "se": None, "low": None, "high": None, "errors": "none", "n": 0, "mode": "rel"}
    speed = outcome(metric="throughput", direction="higher", values=(2543.0, 2501.0), unit="img/s", **plain)
    memory = outcome(metric="peak_memory", values=(3.0 * 2**30, 3.5 * 2**30), unit="B", **plain)
    table = gate_table(report(speed, memory, outcome()))
    assert row_of(table, "throughput ↑")["candidate"] == "2,501 img/s"
    assert row_of(table, "throughput ↑")["95 % bounds"] == "—"
    assert row_of(table, "peak_memory ↓")["worse by"] == "+512 MiB"
    assert row_of(table, "fd ↓")["rule"] == "fd ↓"  # speeds do not keep the extractor from being named once


def test_labels_keep_what_tells_them_apart(report, outcome):
    table = gate_table(report(outcome(metric="fd:a"), outcome(metric="fd:b")))
    assert [row[0].text for row in table.rows] == ["fd:a ↓", "fd:b ↓"]
    one, two = outcome(metric="ppl:a"), outcome(metric="ppl:a")
    other = replace(two, candidate=replace(two.candidate, variant="wend"))
    table = gate_table(report(one, other))
    assert [row["metric"] for row in table.data] == ["ppl:a/block", "ppl:a/wend"]


def test_without_numbers_the_cells_are_empty(report, outcome):
    nothing = {"baseline": None, "candidate": None, "difference": None, "low": None, "high": None}
    found = outcome("missing", **nothing, se=None, margin=0.0, rule=Rule(metric="recall", variant="inside"))
    table = gate_table(report(found))
    assert [cell.text for cell in table.rows[0]] == ["recall/inside", "missing", *["—"] * 5]


def test_what_did_not_pass_is_explained_and_what_passed_is_not(report, outcome):
    found = outcome("regression", reason="so much worse"), outcome("pass", metric="kd:x", reason="all well")
    facts = gate_table(report(*found, warnings=("seeds overlap",))).facts
    assert "fd:efficientnet-lite0: so much worse" in facts
    assert not any("all well" in fact for fact in facts)
    assert "Warning: seeds overlap" in facts


def test_a_warning_that_has_the_reason_is_enough(report, outcome):
    found = outcome("inconclusive", reason="between 1 and 2")
    facts = gate_table(report(found, warnings=("fd is undecided: between 1 and 2",))).facts
    assert sum("between 1 and 2" in fact for fact in facts) == 1


def test_what_differs_is_told_field_by_field_with_the_remedy(report, outcome):
    made = report(
        outcome("not-comparable", reason="measured under another protocol"),
        differing={"num_images": ("1024", "2048"), "extractor.name": ("a", "b")},
        remedy="measure it again with --num-samples 2048",
    )
    assert gate_table(made).legend == "scores of different protocols do not compare"
    facts = gate_table(made).facts
    assert "num_images: candidate 1024, baseline 2048" in facts
    assert "extractor.name: candidate a, baseline b" in facts
    assert "Remedy: measure it again with --num-samples 2048." in facts


def test_errors_are_named_once_where_they_are_alike(report, outcome):
    alike = gate_table(report(outcome(), outcome(metric="kd:x"))).facts
    assert "Errors of the differences: paired by block (the seeds agree)." in alike
    mixed = gate_table(report(outcome(metric="fd:x"), outcome(metric="kd:x", errors="unpaired"))).facts
    assert "Errors of the differences: paired by block (the seeds agree) (fd:x); unpaired (kd:x)." in mixed


def test_the_level_and_holm_are_named(report, outcome):
    spec = GateSpec(alpha=0.01)
    table = gate_table(report(outcome(), outcome(metric="kd:x"), spec=spec))
    assert "99 % bounds" in [column.title for column in table.columns]
    assert "alpha 0.01, Holm over the rules" in table.legend
    assert "Holm" not in gate_table(report(outcome())).legend


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("style", [Style(), Style(bold=True), Style(unicode=False)])
def test_no_line_is_wider_than_the_terminal_and_the_verdict_is_whole(report, outcome, width, style):
    long = "a reason of many words that must be broken " * 5
    made = report(outcome("regression", reason=long), outcome(metric="precision:efficientnet-lite0"))
    text = to_terminal(gate_table(made), style=style, width=width)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(len(line) <= width for line in shown.splitlines()[1:])
    assert ("\x1b[31mregression\x1b[0m" in text) == style.bold
    assert shown.isascii() == (not style.unicode)


def test_a_hostile_name_cannot_drive_the_terminal(report, outcome):
    made = report(outcome("regression", reason="\x1b[2Jcleared\u202etxet"))
    assert "\x1b" not in to_terminal(gate_table(made))
    assert "\u202e" not in to_terminal(gate_table(made))


def test_the_numbers_for_programs_are_unrounded(report, outcome):
    found = outcome(difference=1 / 3, p_value=0.1 + 0.2)
    data = gate_table(report(found)).data[0]
    assert (data["difference"], data["p_value"]) == (1 / 3, 0.1 + 0.2)
    assert data["status"] == "pass"
    assert repr(1 / 3) in to_csv(gate_table(report(found)))
