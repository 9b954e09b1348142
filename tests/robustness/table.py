"""Write docs/robustness.md: run every fault test, and put what was observed beside what was expected.

    python tests/robustness/table.py                      # minutes
    python tests/robustness/table.py signal disk-full     # these rows alone; the others stay as they are

A test says what it saw through the fixture ``observed``. Of one that does not, the errors of evalkit that it
waited for are shown: exit code and message. Tests marked ``exhaustive`` are listed, not run.
"""

from __future__ import annotations

import re
import sys
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from _pytest.raises import RaisesExc

ROOT = Path(__file__).parents[2]
# A wheel among the peers installs a package called tests, which would win over a folder without __init__.
sys.modules.setdefault("tests", types.ModuleType("tests")).__path__ = [str(ROOT / "tests")]

from tests.robustness.rows import Fault, Proof, find_proofs, read_faults  # noqa: E402

PAGE = ROOT / "docs" / "robustness.md"
HEAD = """# What goes wrong, and what evalkit does about it

Written by `python tests/robustness/table.py`, which injects every fault and notes what it saw; do not edit.
Tests marked † are `exhaustive`: they take minutes and run with `-m exhaustive`. What these promises are for
is told in [SECURITY.md](../SECURITY.md).
"""
_ROW = re.compile(r'^\| <a id="([\w-]+)"></a>.*? \| .*? \| (.*) \| `.*\|$', re.MULTILINE)
_COLUMNS = "| fault | expected | observed | tests |\n| --- | --- | --- | --- |\n"
_LONGEST, _MOST = 220, 4
_PLACES = (
    (re.compile(r"(?<![\w/])/[\w./ -]*?/pytest-[0-9]+/[\w.-]+/"), ""),
    (re.compile(r"(?<![\w/])/(?:tmp|root|work)/[\w./-]*/"), ""),
    (re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}"), "RUN"),
    (re.compile(r"\b[0-9a-f]{16,64}(?:-[0-9]+)?\b"), "DIGEST"),
    (re.compile(r"\bprocess [0-9]+ on [\w.-]+"), "process NUMBER on HOST"),
    (re.compile(r"127\.0\.0\.1:[0-9]+"), "HOST"),
    (re.compile(r"\\u001b\[[0-9;]*m|\s+"), " "),
)


class Recorder:
    """A plugin of pytest: by test function, what was observed, and whether it passed."""

    def __init__(self) -> None:
        self.told: dict[str, list[str]] = defaultdict(list)
        self.raised: dict[str, list[str]] = defaultdict(list)
        self.failed: list[str] = []
        self._errors: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._errors.clear()
        plain = RaisesExc.__exit__

        def noting(waiting: RaisesExc, kind: object, error: object, trace: object) -> bool:
            code, message = getattr(error, "exit_code", None), getattr(error, "message", None)
            if code is not None and message is not None:
                self._errors.append(f"exit {code}: {message}")
            return plain(waiting, kind, error, trace)

        RaisesExc.__exit__ = noting
        try:
            return (yield)
        finally:
            RaisesExc.__exit__ = plain

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        node = report.nodeid.partition("[")[0]
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when != "call":
            return
        told = [str(text) for name, text in report.user_properties if name == "observed"]
        self.told[node] += told
        self.raised[node] += [] if told else self._errors[-1:]


def main() -> int:
    """Run the tests and write the page; return 1 where one failed."""
    wanted = set(sys.argv[1:]) or {fault.id for fault in read_faults()}
    proofs = find_proofs()
    recorder = Recorder()
    nodes = [proof.node for proof in proofs if not proof.exhaustive and wanted & set(proof.faults)]
    options = ["-q", "-n0", "-p", "no:randomly", "-m", "fault and not exhaustive", "--rootdir", str(ROOT)]
    pytest.main([*options, *nodes], plugins=[recorder])
    if recorder.failed:
        print("not written, these failed:", *recorder.failed, sep="\n", file=sys.stderr)
        return 1
    cells = dict(_ROW.findall(PAGE.read_text(encoding="utf-8"))) if PAGE.is_file() else {}
    for fault in wanted:
        own = [proof for proof in proofs if fault in proof.faults]
        texts = _told(own, recorder.told) + _told(own, recorder.raised)
        cells[fault] = "<br>".join(_cell(text) for text in texts[:_MOST]) or "as expected"
    PAGE.write_text(page(read_faults(), proofs, cells), encoding="utf-8")
    return 0


def page(faults: Iterable[Fault], proofs: Iterable[Proof], observed: Mapping[str, str]) -> str:
    """Return the page; ``observed`` is what the tests of each row saw."""
    by_fault: dict[str, list[Proof]] = defaultdict(list)
    for proof in proofs:
        for fault in proof.faults:
            by_fault[fault].append(proof)
    lines, section = [HEAD], ""
    for row in faults:
        if row.section != section:
            section = row.section
            lines.append(
                f"\n## {section}\n\n| fault | expected | observed | tests |\n| --- | --- | --- | --- |\n"
            )
        names = "<br>".join(
            f"`{proof.node.removeprefix('tests/')}`{'†' * proof.exhaustive}" for proof in by_fault[row.id]
        )
        lines.append(
            f'| <a id="{row.id}"></a>{row.fault} | {row.expected} | {observed[row.id]} | {names} |\n'
        )
    return "".join(lines)


def _told(proofs: Iterable[Proof], seen: Mapping[str, list[str]]) -> list[str]:
    """Return what the tests saw, none of it twice."""
    return list(dict.fromkeys(_clean(text) for proof in proofs for text in seen.get(proof.node, ())))


def _clean(text: str) -> str:
    for place, name in _PLACES:
        text = place.sub(name, text)
    return text.strip() if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"


def _cell(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|*_`\[\]])", r"\\\1", escaped)


if __name__ == "__main__":
    sys.exit(main())
