"""How values of flags are read, where several commands share it."""

from __future__ import annotations

from pathlib import Path

import click


def named_files(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path]:
    """Read ``NAME=FILE`` values.

    Raises:
        click.BadParameter: a value is not of that form, or a name occurs twice.
    """
    pairs: dict[str, Path] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not equals or not name or not file:
            raise click.BadParameter(f"{value!r} is not of the form NAME=FILE")
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice")
        pairs[name] = Path(file)
    return pairs
