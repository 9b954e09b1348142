"""JUnit XML against two schemas: Jenkins' (a file) and the one of Apache Ant (its rules, written out here).

``tests/data/junit-10.xsd`` is the schema of the Jenkins xUnit plugin. The stricter schema of Ant's JUnit task
(github.com/windyroad/JUnit-Schema) is not copied; :func:`require_ant` says what it says.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import InvalidInputError, NothingMeasuredError
from evalkit.gate.junit import refusal_junit, to_junit

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parents[1] / "data" / "junit-10.xsd"))
SUITE = {"name", "timestamp", "hostname", "tests", "failures", "errors", "time", "package", "id"}


def checked(text):
    """Return the suite of a file that both schemas allow."""
    SCHEMA.validate(text)
    root = ET.fromstring(text)
    require_ant(root)
    (suite,) = root
    return suite


def require_ant(root):
    assert root.tag == "testsuites"
    assert not root.attrib
    for suite in root:
        assert suite.attrib.keys() - {"skipped"} == SUITE
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
        for name in ("tests", "failures", "errors", "skipped", "id"):
            assert int(suite.get(name)) >= 0
        float(suite.get("time"))
        tags = [child.tag for child in suite]
        cases = tags.count("testcase")
        assert tags == ["properties", *["testcase"] * cases, "system-out", "system-err"]
        assert all(p.tag == "property" and p.get("name") and p.get("value") is not None for p in suite[0])
        for case in suite.iter("testcase"):
            assert case.attrib.keys() == {"name", "classname", "time"}
            assert len(case) <= 1
            for child in case:
                assert child.tag in {"skipped", "error", "failure"}
                assert child.tag == "skipped" or {"type"} <= child.attrib.keys() <= {"type", "message"}


@pytest.mark.parametrize(
    ("status", "burden", "tag"),
    [
        ("pass", "regression", None),
        ("regression", "regression", "failure"),
        ("inconclusive", "regression", "skipped"),
        ("inconclusive", "candidate", "failure"),
        ("not-comparable", "regression", "error"),
        ("missing", "candidate", "error"),
    ],
)
def test_each_status_has_its_element(report, outcome, status, burden, tag):
    suite = checked(to_junit(report(outcome(status, reason="so it is"), burden=burden)))
    (case,) = suite.iter("testcase")
    assert [child.tag for child in case] == ([tag] if tag else [])
    assert (suite.get("name"), case.get("name"), case.get("classname")) == (
        "evalkit-gate", "fd:efficientnet-lite0", "ddpm",
    )  # fmt: skip
    if tag:
        assert case[0].get("message") == "so it is"


def test_the_counts_are_those_of_the_cases(report, outcome):
    statuses = ["pass", "regression", "regression", "inconclusive", "missing", "pass"]
    made = report(*(outcome(status, metric=f"m{i}:x") for i, status in enumerate(statuses)))
    suite = checked(to_junit(made))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "2", "errors": "1", "skipped": "1"}
    assert len({case.get("name") for case in suite.iter("testcase")}) == 6


def test_the_suite_has_the_table_and_the_facts(report, outcome):
    suite = checked(to_junit(report(outcome("regression"))))
    assert suite.findtext("system-out").startswith("REGRESSION: ddpm is worse than its baseline")
    facts = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert (facts["verdict"], facts["exit_code"]) == ("regression", "1")
    assert facts["candidate"] == "ddpm 20260102T000000Z-b"


def test_what_differs_stands_in_the_error(report, outcome):
    made = report(outcome("not-comparable"), differing={"num_images": ("1", "2")}, remedy="measure again")
    error = checked(to_junit(made)).find("testcase/error")
    assert "num_images: candidate 1, baseline 2" in error.text
    assert "measure again" in error.text


def test_a_refusal_is_one_error_with_message_and_hint():
    error = NothingMeasuredError("no baseline at x", hint="look there")
    suite = checked(refusal_junit(error, candidate="new.json"))
    (case,) = suite.iter("testcase")
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert case[0].attrib == {"message": "no baseline at x", "type": "NothingMeasuredError"}
    assert case[0].text == "no baseline at x\nhint: look there"
    assert case.get("classname") == "new.json"
    assert "None" not in refusal_junit(InvalidInputError("bad"), candidate="x")


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_makes_a_valid_file(reason, name):
    error = InvalidInputError(reason, hint=name)
    case = checked(refusal_junit(error, candidate=name)).find("testcase")
    kept = re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", reason)
    # A parser reads a carriage return in text as a line feed.
    assert (case[0].text or "").startswith(kept.replace("\r\n", "\n").replace("\r", "\n"))


def test_markup_and_control_characters_in_a_name_are_text(report, outcome):
    evil = ']]></failure><!--\x00\x1b[31m\ud800"&'
    suite = checked(to_junit(report(outcome("regression", reason=evil))))
    failure = suite.find("testcase/failure")
    assert failure.get("message") == ']]></failure><!--\ufffd\ufffd[31m\ufffd"&'
    assert len(failure) == 0
