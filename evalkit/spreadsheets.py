"""Text that a table file can hold and a spreadsheet does not run. No torch.

Names of files come from whoever made the images: one that begins with ``=`` would be a formula in a CSV file,
and one that is no UTF-8 could not be written at all.
"""

from __future__ import annotations

from typing import Final

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, "CSV injection")."""


def utf8_text(name: str) -> str:
    """Return ``name`` as text that UTF-8 can hold; what it cannot is written as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def inert_text(name: str) -> str:
    """Return ``name`` for a CSV file: with an apostrophe before what would be a formula."""
    return f"'{utf8_text(name)}" if name.startswith(FORMULA_STARTS) else utf8_text(name)
