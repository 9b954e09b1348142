"""Rows as text in aligned columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as aligned text columns with a heading."""
    if not rows:
        return "none"
    table = [[key.replace("_", " ") for key in rows[0]], *([_cell(v) for v in row.values()] for row in rows)]
    widths = [max(len(line[c]) for line in table) for c in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def _cell(value: Any) -> str:  # noqa: ANN401 - JSON data
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}:{number}" for key, number in value.items())
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return "-" if value is None else str(value)
