"""A gate's report: JSON (schema ``evalkit.gate/1``) and Markdown for job summaries. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from evalkit import strict_json
from evalkit.errors import EvalkitError
from evalkit.gate.facts import GateReport, Status
from evalkit.gate.sentences import side_lines
from evalkit.gate.table import gate_table
from evalkit.reporting import rendering
from evalkit.reporting.rendering import escaped

SCHEMA = "evalkit.gate/1"

_SYMBOLS: Mapping[Status, str] = {
    "pass": "✅",
    "regression": "❌",
    "inconclusive": "⚠️",
    "not-comparable": "⛔",
    "missing": "⛔",
}


def to_data(report: GateReport) -> dict[str, Any]:
    """Return the report as JSON data: its schema, verdict and exit code, then every fact.

    Raises:
        InvalidInputError: a number is not finite.
    """
    facts = strict_json.encode_object(report)
    differing = {
        name: {"candidate": one, "baseline": other} for name, (one, other) in facts["differing"].items()
    }
    head = {
        "schema": SCHEMA,
        "status": report.status,
        "exit_code": report.exit_code,
        "improved": report.improved,
    }
    return head | facts | {"differing": differing}


def to_json(report: GateReport) -> str:
    """Return :func:`to_data` as indented text; never NaN or infinity."""
    return strict_json.dumps(to_data(report))


def to_markdown(report: GateReport) -> str:
    """Return Markdown for ``$GITHUB_STEP_SUMMARY``: verdict and table, the details folded.

    Several may follow each other in one file. Names and notes are escaped.
    """
    table = gate_table(report)
    lines = [f"## {_SYMBOLS[report.status]} evalkit gate: {report.status.replace('-', ' ')}", ""]
    lines += [rendering.to_markdown(replace(table, facts=()))]
    lines += _items(fact for fact in table.facts if fact not in side_lines(report))
    lines += ["<details><summary>Runs, protocol and every rule</summary>", ""]
    lines += _items([*side_lines(report), f"fingerprint {report.candidate.fingerprint}"])
    lines += _items(f"{row['metric']}: {row['reason']}" for row in table.data)
    return "\n".join([*lines, "</details>", ""]) + "\n"


def refusal_json(error: EvalkitError) -> str:
    """Return the JSON of a gate that could not decide: ``status`` is ``error``."""
    return strict_json.dumps(
        {
            "schema": SCHEMA,
            "status": "error",
            "exit_code": error.exit_code,
            "message": error.message,
            "hint": error.hint,
        }
    )


def refusal_markdown(error: EvalkitError) -> str:
    """Return Markdown for a gate that could not decide because of ``error``."""
    lines = [f"## ⛔ evalkit gate: no verdict (exit code {error.exit_code})", "", escaped(error.message), ""]
    return "\n".join([*lines, *([f"Hint: {escaped(error.hint)}", ""] if error.hint else [])]) + "\n"


def _items(texts: Iterable[str]) -> list[str]:
    """Return a bullet list and the blank line that ends it; nothing for no texts."""
    items = [f"- {escaped(text)}" for text in texts]
    return [*items, ""] if items else []
