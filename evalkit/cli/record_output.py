"""What a command that made records prints."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.record import RunRecord
    from evalkit.reporting.rendering import Format


def rendered(records: Sequence[RunRecord], output_format: Format) -> str:
    """Return one record as its own table, several as a comparison; JSON is the record itself."""
    from evalkit import strict_json  # noqa: PLC0415
    from evalkit.reporting.formatting import style_for  # noqa: PLC0415
    from evalkit.reporting.rendering import DEFAULT_WIDTH  # noqa: PLC0415
    from evalkit.reporting.table import comparison_table, render, score_table  # noqa: PLC0415

    if output_format == "json" and len(records) == 1:
        return strict_json.dumps(records[0].to_json())
    table = score_table(records[0]) if len(records) == 1 else comparison_table(records)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
    return render(table, output_format, style=style_for(sys.stdout), width=width)
