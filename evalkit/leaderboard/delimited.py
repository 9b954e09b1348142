"""CSV that programs read back exactly and no spreadsheet runs: LF, floats as shortest round trip."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from evalkit.reporting.formatting import Style
from evalkit.spec import Scalar
from evalkit.spreadsheets import inert_text

_PLAIN = Style()


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Scalar]]) -> str:
    """Return a header and a line for each row; what a row does not hold is an empty cell.

    A float is the shortest text that reads back as the same float. Line ends and other control characters in
    a text become blanks, and an apostrophe stands before what a spreadsheet would take for a formula.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_cell(column) for column in columns])
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def _cell(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    # Blanks at the ends would hide a formula from us, not from every spreadsheet.
    return inert_text(_PLAIN.plain(value).strip())
