"""The gate's report as JSON for programs and as Markdown for job summaries."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit import strict_json
from evalkit.errors import InvalidInputError, UsageError
from evalkit.gate.export import escaped, refusal_json, refusal_markdown, to_json, to_markdown
from evalkit.gate.facts import EXIT_CODES, Quantity, Rule, RuleOutcome

HOSTILE = "a|b*c_<script>alert(1)</script>\n# [x](javascript:y) `z` $\\alpha$"


def test_json_has_the_verdict_and_every_fact(report, outcome):
    made = report(outcome("regression"), warnings=("w",), differing={"n": ("1", "2")}, remedy="r")
    data = json.loads(to_json(made))
    assert (data["schema"], data["status"], data["exit_code"]) == ("evalkit.gate/1", "regression", 1)
    assert data["differing"] == {"n": {"candidate": "1", "baseline": "2"}}
    assert (data["warnings"], data["remedy"], data["improved"]) == (["w"], "r", False)
    assert data["spec"] == {"rules": [], "alpha": 0.05, "burden": "regression"}
    assert data["candidate"]["run_id"] == "20260102T000000Z-b"
    (found,) = data["outcomes"]
    assert found.keys() == {field.name for field in dataclasses.fields(RuleOutcome)}
    assert strict_json.decode(found["candidate"], Quantity) == made.outcomes[0].candidate
    assert strict_json.decode(found["rule"], Rule).metric == "fd:efficientnet-lite0"
    assert (found["difference"], found["errors"], found["margin"]) == (0.5, "paired", 0.25)


@pytest.mark.parametrize("status", sorted(EXIT_CODES))
@pytest.mark.parametrize("burden", ["candidate", "regression"])
def test_status_and_exit_code_agree_everywhere(report, outcome, status, burden):
    made = report(outcome(status), burden=burden)
    data = json.loads(to_json(made))
    assert data["exit_code"] == made.exit_code == EXIT_CODES[data["status"]]
    assert to_markdown(made).splitlines()[0].endswith(made.status.replace("-", " "))


def test_json_never_holds_nan(report, outcome):
    with pytest.raises(InvalidInputError, match="not a finite number"):
        to_json(report(outcome(difference=float("nan"))))


def test_markdown_is_a_heading_a_table_and_folded_details(report, outcome):
    text = to_markdown(report(outcome("regression", reason="so much worse"), outcome("pass", metric="kd:x")))
    lines = text.splitlines()
    assert lines[0] == "## ❌ evalkit gate: regression"
    assert lines[2].startswith("**REGRESSION: ddpm is worse than its baseline")
    assert sum(line.startswith("| ") for line in lines) == 4  # head, rule, two rows
    folded = text.split("<details>")[1]
    assert "so much worse" in text.split("<details>")[0]
    assert "run 20260102T000000Z-b" in folded
    assert "</details>" in folded
    assert "\n\n- candidate" in folded  # without the blank line GitHub would not read the list


def test_several_summaries_in_one_file_do_not_run_into_each_other(report, outcome):
    two = to_markdown(report(outcome())) + to_markdown(report(outcome("regression")))
    assert "\n\n## ❌" in two


def test_untrusted_text_stays_text_in_markdown(report, outcome):
    text = to_markdown(report(outcome("regression", reason=HOSTILE), warnings=(HOSTILE,), remedy=HOSTILE))
    assert not re.search(r"(?<!\\)<(?!/?(details|summary)>)", text)
    assert not re.search(r"(?<!\\)\[", text)
    assert all("\n# [x]" not in part for part in text.split("<details>"))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}


@given(st.text(max_size=60))
def test_escaped_text_is_one_line_without_live_markup(text):
    found = escaped(text)
    assert len(found.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]<>|#~&$]", found)


def test_a_refusal_has_code_message_and_hint():
    error = UsageError("no rule <b>", hint="did you mean kd?")
    text = refusal_markdown(error)
    assert "no verdict (exit code 2)" in text.splitlines()[0]
    assert "no rule \\<b\\>" in text
    assert "Hint: did you mean kd?" in text
    assert "Hint" not in refusal_markdown(UsageError("x"))
    assert json.loads(refusal_json(error)) == {
        "schema": "evalkit.gate/1",
        "status": "error",
        "exit_code": 2,
        "message": "no rule <b>",
        "hint": "did you mean kd?",
    }
