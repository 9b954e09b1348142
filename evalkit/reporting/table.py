"""Tables from run records: the scores of one run, and several models side by side. No torch, no pandas.

print(render(comparison_table([RunRecord.read(path) for path in paths]), "table"))
"""

from evalkit.reporting.comparison import comparison_table
from evalkit.reporting.rendering import Cell, Column, Table, render, to_csv, to_json, to_markdown, to_terminal
from evalkit.reporting.scores import score_table

__all__ = [
    "Cell",
    "Column",
    "Table",
    "comparison_table",
    "render",
    "score_table",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_terminal",
]
