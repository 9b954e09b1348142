"""A gate's report as JUnit XML, which CI systems show as tests: a test case a rule.

The files satisfy two schemas: the one of Jenkins' xUnit plugin (``junit-10.xsd``) and the stricter one of
Apache Ant's JUnit task, by which GitLab, Azure and others read. ``<failure>`` is a regression, or what is not
decided while the burden of proof is the candidate's; ``<error>`` is what could not be compared;
``<skipped>`` is what is not decided and passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree as ET

from evalkit.errors import EvalkitError
from evalkit.gate.facts import GateReport, RuleOutcome
from evalkit.gate.sentences import differing_lines, verdict
from evalkit.gate.table import gate_table
from evalkit.reporting.rendering import to_terminal

SUITE = "evalkit-gate"

# All that XML 1.0 (fifth edition, production 2, Char) cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_Kind = Literal["", "failure", "error", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One test case: ``kind`` is its child element, none where it passed."""

    name: str
    model: str
    kind: _Kind = ""
    type: str = ""
    message: str = ""
    text: str = ""


def to_junit(report: GateReport) -> str:
    """Return one test case a rule, and the table as the suite's output."""
    table = gate_table(report)
    names = [str(row["metric"]) for row in table.data]
    cases = [_case(report, name, outcome) for name, outcome in zip(names, report.outcomes, strict=True)]
    facts = {
        "verdict": report.status,
        "exit_code": str(report.exit_code),
        "candidate": f"{report.candidate.model} {report.candidate.run_id}",
        "baseline": f"{report.baseline.model} {report.baseline.run_id}",
        "fingerprint": report.candidate.fingerprint,
    }
    return _document(cases, facts, to_terminal(table))


def refusal_junit(error: EvalkitError, *, candidate: str) -> str:
    """Return one test case with an ``<error>``: the gate could not read or decide."""
    text = "\n".join([error.message, *([f"hint: {error.hint}"] if error.hint else [])])
    case = _Case(
        name="gate",
        model=candidate,
        kind="error",
        type=type(error).__name__,
        message=error.message,
        text=text,
    )
    return _document([case], {"verdict": "error", "exit_code": str(error.exit_code)}, f"{text}\n")


def _case(report: GateReport, name: str, outcome: RuleOutcome) -> _Case:
    details = [outcome.reason]
    if outcome.status == "not-comparable":
        details += [
            *differing_lines(report),
            *([f"remedy: {report.remedy}"] if report.remedy else []),
        ]
    return _Case(
        name=name,
        model=report.candidate.model,
        kind=_kind(report, outcome),
        type=outcome.status,
        message=outcome.reason,
        text="\n".join([verdict(report), *details]),
    )


def _kind(report: GateReport, outcome: RuleOutcome) -> _Kind:
    if outcome.status == "inconclusive":
        return "failure" if report.spec.burden == "candidate" else "skipped"
    if outcome.status == "regression":
        return "failure"
    return "" if outcome.status == "pass" else "error"


def _document(cases: Sequence[_Case], facts: dict[str, str], output: str) -> str:
    count = {kind: str(sum(case.kind == kind for case in cases)) for kind in ("failure", "error", "skipped")}
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root,
        "testsuite",
        name=SUITE,
        package="evalkit",
        id="0",
        # The Ant schema allows no time zone here; what is meant is UTC. The host is nobody's business.
        timestamp=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}",
        hostname="localhost",
        tests=str(len(cases)),
        failures=count["failure"],
        errors=count["error"],
        skipped=count["skipped"],
        time="0",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_text(value))
    for case in cases:
        _append(suite, case)
    ET.SubElement(suite, "system-out").text = _text(output)
    ET.SubElement(suite, "system-err")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _append(suite: ET.Element, case: _Case) -> None:
    element = ET.SubElement(suite, "testcase", name=_text(case.name), classname=_text(case.model), time="0")
    if case.kind == "skipped":  # the Ant schema gives it no type
        ET.SubElement(element, "skipped", message=_text(case.message))
    elif case.kind:
        child = ET.SubElement(element, case.kind, message=_text(case.message), type=_text(case.type))
        child.text = _text(case.text)


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
