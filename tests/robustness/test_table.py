"""Every row of the table has a test, every test names a row, and the page was written from both."""

from __future__ import annotations

import re
from pathlib import Path

from tests.robustness.rows import find_proofs, read_faults

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"


def test_every_fault_has_a_test_and_every_mark_a_fault():
    rows = [fault.id for fault in read_faults()]
    assert len(set(rows)) == len(rows)
    marked = {fault for proof in find_proofs() for fault in proof.faults}
    assert marked == set(rows)


def test_every_fault_has_a_test_that_runs_by_default():
    quick = {fault for proof in find_proofs() if not proof.exhaustive for fault in proof.faults}
    assert {fault.id for fault in read_faults()} == quick


def test_the_page_is_not_stale():
    """The words and the tests; what was observed is refreshed by `python tests/robustness/table.py`."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r'^\| <a id="([\w-]+)"></a>(.*?) \| (.*?) \| (.*) \| (`.*) \|$', text, re.MULTILINE)
    proofs = find_proofs()
    assert [row[0] for row in found] == [fault.id for fault in read_faults()]
    for fault, (_, said, expected, observed, tests) in zip(read_faults(), found, strict=True):
        assert (said, expected) == (fault.fault, fault.expected)
        named = [proof.node.removeprefix("tests/") for proof in proofs if fault.id in proof.faults]
        assert re.findall(r"`([^`]+)`", tests) == named
        assert observed
