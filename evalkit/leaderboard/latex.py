r"""A group's table for a paper: LaTeX with booktabs, best values bold, names escaped.

Needs ``\usepackage{booktabs}``; a wide table fits with ``\resizebox{\linewidth}{!}{…}`` around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evalkit.reporting.formatting import Style, to_ascii
from evalkit.reporting.rendering import Cell, Column, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Not \textquotedbl: the encoding that LaTeX begins with lacks it.
    '"': "''",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "—": "---",
    "\N{EN DASH}": "--",
    "•": r"$\bullet$",
    "·": r"$\cdot$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "∞": r"$\infty$",
}
_ANY = re.compile("|".join(map(re.escape, _SPECIAL)))


def to_latex(table: Table) -> str:
    """Return a ``table`` environment in ASCII; footnotes and facts stand as comments above it."""
    return "\n".join([*_comments(table), *_environment(table)]) + "\n"


def latex(text: str) -> str:
    """Return ``text`` so that LaTeX prints it as it is; letters beyond ASCII become escapes of Python."""
    parts = _ANY.split(text := Style().plain(text))
    signs = [_SPECIAL[sign] for sign in _ANY.findall(text)]
    plain = [_SPECIAL["\\"].join(to_ascii(part).split("\\")) for part in parts]
    return "".join(piece for pair in zip(plain, [*signs, ""], strict=True) for piece in pair)


def _comments(table: Table) -> Iterator[str]:
    # One line each: what stands after a line end would no longer be a comment.
    for text in (*table.facts, *(f"{mark} {note}".strip() for mark, note in table.notes)):
        yield f"% {to_ascii(Style().plain(text).replace('•', '(bullet)'))}"


def _environment(table: Table) -> Iterator[str]:
    yield r"\begin{table}"
    yield r"  \centering"
    yield f"  \\caption{{{latex(table.title)}. {latex(table.legend)}.}}"
    yield f"  \\begin{{tabular}}{{{''.join(column.align[0] for column in table.columns)}}}"
    yield r"    \toprule"
    yield f"    {' & '.join(map(_heading, table.columns))} \\\\"
    yield r"    \midrule"
    yield from (f"    {' & '.join(map(_cell, row))} \\\\" for row in table.rows)
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    yield r"\end{table}"


def _heading(column: Column) -> str:
    """The caption names features that all metrics share."""
    return latex((column.short or column.title).replace("\n", " "))


def _cell(cell: Cell) -> str:
    text = latex(cell.text)
    shown = f"\\textbf{{{text}}}" if cell.best else text
    return f"{shown}$^{{{latex(cell.marks.strip())}}}$" if cell.marks.strip() else shown
